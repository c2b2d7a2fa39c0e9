"""Read and write individual safetensors and JSON files. Writes are atomic."""

import hashlib
import json
import math
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..checked import quoted, shown
from ..data.texts import existing_file, small_file
from .atomic import write_atomically

DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "BF16": "<u2", "I32": "<i4"}
DTYPES |= {"U32": "<u4", "F32": "<f4", "C64": "<c8", "F64": "<f8", "I64": "<i8", "U64": "<u8"}  # in safetensors' order


def write_tensors(path, tensors, metadata=None):
    """Write a flat dict, name -> array, as a safetensors file; `metadata` is a dict of str -> str, or None."""
    write_atomically(path, tensor_pieces(tensors, metadata))


def tensor_bytes(tensors, metadata=None):
    """The content of the file that `write_tensors` writes."""
    return b"".join(tensor_pieces(tensors, metadata))


def tensor_pieces(tensors, metadata=None):
    """Yield a safetensors file's header, then each array without copying it, in the safetensors library's order."""
    kinds = {np.dtype(kind): name for name, kind in DTYPES.items() if name != "BF16"}
    arrays = {n: np.asarray(a, np.asarray(a).dtype.newbyteorder("<"), order="C") for n, a in tensors.items()}
    names = sorted(sorted(arrays), key=lambda name: list(kinds).index(arrays[name].dtype), reverse=True)
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name in names:
        array, start, end = arrays[name], end, end + arrays[name].nbytes
        header[name] = {"dtype": kinds[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield arrays[name].data


def read_tensors(path):
    """Read a safetensors file.

    Returns
    -------
    tensors : dict, name -> array; bfloat16, which NumPy lacks, is converted exactly to float32
    metadata : dict of str -> str

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is truncated, is not in safetensors format, or has a dtype that NumPy lacks.
    MemoryError
    """
    names, metadata = read_names(path)
    with naming_memory(path), open(path, "rb") as file:
        start = int.from_bytes(file.read(8), "little") + 8
        header = json.loads(file.read(start - 8))
        return {name: read_tensor(file, start, header[name]) for name in names}, metadata


@contextmanager
def naming_memory(path):
    """Turn a MemoryError into one that names the file being read."""
    try:
        yield
    except MemoryError:
        size = Path(path).stat().st_size / 1e9
        raise MemoryError(f"{path}: not enough memory for {size:.1f} GB of tensors") from None


def read_names(path):
    """The names of a safetensors file's tensors, and its metadata. Raises the same errors as `read_tensors`."""
    from safetensors import SafetensorError, safe_open

    existing_file(path)
    try:
        with naming_memory(path), safe_open(path, framework="numpy") as checked:  # maps the file into memory
            return list(checked.keys()), dict(checked.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({shown(str(error))})") from None


def read_tensor(file, start, entry):
    """Read one tensor, given its entry in a safetensors file's header; offsets are relative to `start`."""
    file.seek(start + entry["data_offsets"][0])
    try:
        array = np.fromfile(file, DTYPES[entry["dtype"]], math.prod(entry["shape"])).reshape(entry["shape"])
    except (KeyError, ValueError) as error:  # such as float8, or 65 axes
        problem = "has a dtype or shape that NumPy does not support"
        raise ValueError(f"{file.name}: {problem} ({shown(str(error))})") from None
    if entry["dtype"] == "BF16":  # its 16 bits are the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def write_text(path, text):
    """Write a string as UTF-8."""
    write_atomically(path, text.encode("utf-8"))


def write_json(path, value):
    """Write a value as JSON, indented by 2 spaces, with each list of numbers on one line."""
    write_atomically(path, json_bytes(value))


def json_bytes(value):
    """The content of the file that `write_json` writes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # The pattern cannot match inside a string, because JSON escapes line breaks there as \n.
    text = re.sub(r"\[\n[-+.\deE,\s]+\]", lambda numbers: "".join(numbers[0].split()).replace(",", ", "), text)
    return (text + "\n").encode("utf-8")


def read_json(path):
    """Read a JSON file.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is not JSON or not UTF-8, a name is repeated, or an integer needs more than 64 bits.
    """
    content = small_file(path)
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=without_repeats, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({shown(str(error))})") from None


def whole_number(digits):
    """Parse an integer. One that does not fit into 64 bits is rejected, because no array can be that large."""
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the integer {digits[:12]}…, which has {len(digits)} characters, is too large")
    return int(digits)


def without_repeats(pairs):
    """Build a dict from a JSON object. Raises ValueError for duplicate keys; `json` would keep only the last value."""
    values = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"repeated name {quoted(name)}")
        values[name] = value
    return values


def file_sha256(path):
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
