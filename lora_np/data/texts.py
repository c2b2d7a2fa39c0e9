"""Read plain text files."""

import codecs
import json
import re
from pathlib import Path

MOST_BYTES = 2**30  # maximum size of a configuration or tokenizer file; the largest tokenizers take about 20 MB


def read_texts(path):
    """Read a UTF-8 file and split it into texts.

    Empty lines separate texts, such as the paragraphs of a book. In a file without empty lines, each line is a text.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of str, in order

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not UTF-8 or contains no text.
    """
    content = read_utf8(path).strip()
    blocks = re.split(r"\n[ \t\r]*\n", content)
    texts = [" ".join(block.split()) for block in (blocks if len(blocks) > 1 else content.splitlines())]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f"{path} has no text; expected at least one line")
    return texts


def read_utf8(path):
    """Return a UTF-8 file's text without its byte-order mark; a ValueError gives the line of an invalid byte."""
    check_utf8(path)
    return Path(path).read_bytes().decode("utf-8-sig")


def check_utf8(path):
    """Raise ValueError if a file is not UTF-8, reading it in pieces to save memory; see also `existing_file`."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with existing_file(path).open("rb") as file:
        while True:
            piece = file.read(2**20)
            if b"\0" in piece:
                raise ValueError(f"{path} has null bytes, as UTF-16 files do; save the file as UTF-8")
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                byte = f"byte 0x{error.object[error.start]:02x}"
                raise ValueError(f"{path}, line {line}: {byte} is not UTF-8; save the file as UTF-8") from error
            if not piece:
                return
            line += piece.count(b"\n")


def parsed_json(text):
    """Parse JSON; the error message for an integer with more than 4000 digits says how many digits it has."""
    return json.loads(text, parse_int=parsed_integer)


def parsed_integer(digits):
    if len(digits) > 4000:
        raise ValueError(f"got an integer with {len(digits)} digits, expected at most 4000")
    return int(digits)


def small_file(path):
    """Return the content of a file as bytes; raise ValueError if it has more than `MOST_BYTES`."""
    if (size := existing_file(path).stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} is {size / 1e9:.1f} GB, expected at most {MOST_BYTES / 1e9:.1f} GB")
    return Path(path).read_bytes()


def existing_file(path):
    """Return `path` as a Path if it is an existing file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is a folder, a pipe or a device. (Reading from a pipe may block forever.)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if not path.is_file():
        raise ValueError(f"{path} is {kind_of(path)}, expected a file")
    return path


def kind_of(path):
    """The kind of file at a path, for messages."""
    path = Path(path)
    kinds = {"a file": path.is_file, "a folder": path.is_dir, "a pipe": path.is_fifo}
    kinds |= {"a device or socket": path.exists, "a broken link": path.is_symlink}
    return next((kind for kind, is_kind in kinds.items() if is_kind()), "not there")
