"""One file at a time: named tensors (safetensors) and JSON, written whole or not at all."""

import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np


def write_atomically(path, data):
    """Write bytes so that `path` holds the old content or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is
    renamed, which the file system does in one piece. Whatever kills the process, nothing is half-written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~current_umask())  # mkstemp gives 0600; a normal file is meant
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def check_folder(path, argument, sources=()):
    """Refuse at once, and not after hours of work, a folder that could not be written to, or should not.

    Parameters
    ----------
    path : the folder; it need not be there yet
    argument : str, what the caller calls it, for the message
    sources : folders that are read from, and so must not be written over

    Raises
    ------
    ValueError
    """
    path = Path(path).resolve()
    for source in sources:
        if Path(source).resolve() == path:
            raise ValueError(f"{argument}: {path} is what is read from; expected another folder")
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"{argument}: {there} is a file, expected a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{argument}: {there} cannot be written to")


def check_file(path, argument, sources=()):
    """Refuse at once a file that could not be written, or that is somewhere inside a source; see `check_folder`."""
    if Path(path).is_dir():
        raise ValueError(f"{argument}: {path} is a folder, expected a file")
    if Path(path).exists() and not Path(path).is_file():  # a device, which the renaming would do away with
        raise ValueError(f"{argument}: {path} is no regular file")
    for source in sources:
        if Path(source).resolve() in Path(path).resolve().parents:
            raise ValueError(f"{argument}: {path} is in {source}, which is read from; expected another place")
    check_folder(Path(path).parent, argument)


def current_umask():
    """The process's umask; the system lets one read it only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_tensors(path, tensors, metadata=None):
    """Write a flat dict of arrays as safetensors.

    Parameters
    ----------
    path : where to
    tensors : dict, name -> array
    metadata : dict of str -> str, or None
    """
    from safetensors.numpy import save

    # safetensors writes an array's buffer as it lies: a transposed view must be laid out first
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    contiguous = {name: a.reshape(tensors[name].shape) for name, a in contiguous.items()}
    write_atomically(path, save(contiguous, metadata or None))


def read_tensors(path):
    """Read a safetensors file.

    Returns
    -------
    tensors : dict, name -> array; bfloat16, which NumPy lacks, as float32, which holds all its values
    metadata : dict of str -> str

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is truncated or not safetensors, or has numbers that NumPy lacks.
    """
    from safetensors import SafetensorError, deserialize, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            tensors = {name: file.get_tensor(name) for name, dtype in dtypes.items() if dtype != "BF16"}
            metadata = dict(file.metadata() or {})
        if len(tensors) < len(dtypes):
            raw = dict(deserialize(Path(path).read_bytes()))
            tensors |= {name: bfloat16(raw[name]) for name, dtype in dtypes.items() if dtype == "BF16"}
        return tensors, metadata
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    except (TypeError, AttributeError, ValueError) as error:  # float8, for one; or 65 axes
        raise ValueError(f"{path}: holds numbers or shapes that NumPy does not have ({error})") from None


def bfloat16(view):
    """A tensor of bfloat16 as float32: its 16 bits are the upper half of a float32."""
    bits = np.frombuffer(view["data"], dtype="<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(view["shape"])


def write_text(path, text):
    """Write a text as UTF-8."""
    write_atomically(path, text.encode("utf-8"))


def write_json(path, value):
    """Write a value as JSON, indented by 2, a list of numbers on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # Nothing inside a string can match: JSON writes a string's own line breaks as \n.
    text = re.sub(r"\[\n[-+.\deE,\s]+\]", lambda numbers: "".join(numbers[0].split()).replace(",", ", "), text)
    write_text(path, text + "\n")


def read_json(path):
    """Read a JSON file.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is not JSON, not UTF-8, an object has a name twice, or a whole number more than 64 bits.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = Path(path).read_bytes().decode("utf-8")
        return json.loads(text, object_pairs_hook=without_repeats, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None


def whole_number(digits):
    """An int of 64 bits; Python would take any number of digits, and no array could have that size."""
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the number {digits[:12]}… of {len(digits)} digits is too large")
    return int(digits)


def without_repeats(pairs):
    """The dict of a JSON object; json alone would keep the last of two equal names."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"repeated name {next(name for name in names if names.count(name) > 1)!r}")
    return found
