"""Single files: named tensors (safetensors) and JSON. A write replaces the whole file or changes nothing."""

import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np


def write_atomically(path, data):
    """Write bytes so that `path` holds either the old content or the new one, even if the process is killed.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and then renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)  # it can only be read by setting it
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp gives 0600; make it a normal file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def check_folder(path, argument, sources=()):
    """Check before a long job that a folder, which need not exist yet, can be written to.

    Raises ValueError, which names the caller's `argument`, if it cannot, or if it is one of the `sources` or has one
    in it: folders and files that are read from and must not be overwritten.
    """
    path = Path(path).resolve()
    for source in sources:
        if Path(source).resolve() == path and not Path(source).is_file():
            raise ValueError(f"{argument}: {path} is also read from; expected another folder")
        if Path(source).is_file() and path in Path(source).resolve().parents:
            raise ValueError(f"{argument}: {source}, which is also read from, is in {path}; expected another folder")
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        raise ValueError(f"{argument}: {existing} is a file, expected a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{argument}: {existing} cannot be written to")


def check_file(path, argument, sources=()):
    """Check before a long job that a file can be written and is neither a source nor inside one; see `check_folder`."""
    if Path(path).is_dir():
        raise ValueError(f"{argument}: {path} is a folder, expected a file")
    if Path(path).exists() and not Path(path).is_file():  # a device, which the rename would replace
        raise ValueError(f"{argument}: {path} is not a regular file")
    for source in sources:
        if Path(path).exists() and Path(source).exists() and os.path.samefile(path, source):
            raise ValueError(f"{argument}: {path} is also read from, as {source}; expected another file")
        if Path(source).resolve() in Path(path).resolve().parents:
            raise ValueError(f"{argument}: {path} is in {source}, which is also read from; expected another place")
    check_folder(Path(path).parent, argument)


def write_tensors(path, tensors, metadata=None):
    """Write a flat dict, name -> array, as safetensors; `metadata` is a dict of str -> str, or None."""
    from safetensors.numpy import save

    # safetensors writes an array's buffer as it is, so a transposed view has to be copied first.
    rows = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    write_atomically(path, save(rows, metadata or None))


def read_tensors(path):
    """Read a safetensors file.

    Returns
    -------
    tensors : dict, name -> array; bfloat16, which NumPy lacks, becomes float32, which is exact
    metadata : dict of str -> str

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is truncated, is not safetensors, or has a dtype that NumPy lacks.
    """
    from safetensors import SafetensorError, deserialize, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            tensors = {name: file.get_tensor(name) for name, dtype in dtypes.items() if dtype != "BF16"}
        for name, view in deserialize(Path(path).read_bytes()) if "BF16" in dtypes.values() else ():
            if dtypes[name] == "BF16":  # whose 16 bits are the upper half of a float32
                bits = np.frombuffer(view["data"], dtype="<u2").astype(np.uint32) << 16
                tensors[name] = bits.view(np.float32).reshape(view["shape"])
        return tensors, metadata
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error})") from None
    except (TypeError, AttributeError, ValueError) as error:  # float8, or 65 axes
        raise ValueError(f"{path}: has a dtype or shape that NumPy does not support ({error})") from None


def write_text(path, text):
    """Write a text as UTF-8."""
    write_atomically(path, text.encode("utf-8"))


def write_json(path, value):
    """Write a value as JSON, indented by 2, with each list of numbers on one line."""
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
        If it is not JSON or not UTF-8, a name is repeated, or a whole number needs more than 64 bits.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = Path(path).read_bytes().decode("utf-8")
        return json.loads(text, object_pairs_hook=without_repeats, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None


def whole_number(digits):
    """An int of 64 bits. Python would accept any number of digits, but no array could have that size."""
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the number {digits[:12]}… of {len(digits)} digits is too large")
    return int(digits)


def without_repeats(pairs):
    """The dict of a JSON object; `json` alone would silently use the last of two equal names."""
    values = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"repeated name {name!r}")
        values[name] = value
    return values
