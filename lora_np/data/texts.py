"""A user's own text: a plain file, cut into texts."""

from __future__ import annotations

import re
from pathlib import Path

from .table import read_utf8


def read_texts(path: str | Path) -> list[str]:
    """The texts of a UTF-8 file, in order.

    An empty line stands between two texts, as between the paragraphs of a book. In a file that has none, each line
    is a text, as in a list of sentences.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not UTF-8, or holds no text.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}; expected a text file, and there is no such file")
    lines = read_utf8(path).strip()
    blocks = re.split(r"\n[ \t\r]*\n", lines)
    texts = [" ".join(block.split()) for block in (blocks if len(blocks) > 1 else lines.splitlines())]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f"{path} holds no text; expected at least one line")
    return texts
