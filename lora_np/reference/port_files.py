"""What a port has written: its outputs for a case as safetensors, as JSON, or as a folder of .npy files.

    DIR/model-lm.float64.safetensors
    DIR/model-lm.float64.json
    DIR/model-lm.float64/blocks.0.attn.probs.npy

Whatever cannot be compared is said by name, never converted on the quiet.
"""

import io
import math
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..formats import read_json, read_tensors
from .cases import DTYPES

NAMES = re.compile(rf"(?P<case>.+)\.(?P<dtype>{'|'.join(DTYPES)})(?P<form>\.safetensors|\.json|)")
INFINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # JSON has no such numbers
# What NumPy raises at a damaged header, which it reads with Python's own parser.
DAMAGED = (ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError)
DAMAGED += (RecursionError, MemoryError, OverflowError)


class PortFile(NamedTuple):
    """One case's outputs, in one precision."""

    path: Path
    case: str
    dtype: str  # "float64" or "float32", from the name


class PortTensors(NamedTuple):
    """What was found in one of them."""

    tensors: dict  # name -> array of its expected dtype and shape
    complaints: list[str]  # about all others
    named: set[str]  # expected tensors that a complaint is about, so that they are not missing besides


def shown(name):
    """A name as it may be printed: short, and without characters that a terminal would obey."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= 80 else name[:77] + "…"


def port_files(folder):
    """The files and folders of outputs in a port's folder, and complaints about those that are none.

    The manifest and the schema of an exported folder are passed over; so is what has nothing of an output in its name.

    Raises
    ------
    ValueError
        If the folder is not there, is no folder, or holds nothing to check.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"DIR: {folder} is {'a file' if folder.exists() else 'not there'}, expected a folder")
    found, complaints = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "manifest.")):
            continue
        match = NAMES.fullmatch(path.name)
        meant = path.suffix in (".safetensors", ".json", ".npy") or any(f".{dtype}" in path.name for dtype in DTYPES)
        if match and path.is_dir() == (match["form"] == ""):
            found.append(PortFile(path, match["case"], match["dtype"]))
        elif path.is_dir() or meant:
            complaints.append(f"{shown(path.name)}: expected the name of a case and a precision, as in linear.float64"
                              " with .safetensors or .json, or of a folder of .npy files")  # fmt: skip
    if not found and not complaints:
        raise ValueError(f"DIR: {folder} holds no outputs; expected files such as linear.float64.safetensors")
    return found, complaints


def read_port_file(file, expected):
    """The PortTensors of one case.

    Parameters
    ----------
    file : PortFile
    expected : dict, name -> array, of all that may be there: outputs, and inputs handed back
    """
    found = PortTensors({}, [], set())
    try:
        if file.path.is_dir():
            given = read_arrays(file.path, found)
        elif file.path.suffix == ".json":
            given = read_json_tensors(file.path, expected, found)
        else:
            given = read_safetensors(file.path, found)
    except (OSError, ValueError) as error:
        found.complaints.append(f"{shown(file.path.name)}: {reason(error)}")
        found.named.update(expected)
        return found
    for name, array in given.items():
        about = f"{file.path.name}: {shown(name)}"
        if name not in expected:
            meant = meant_by(name, expected)
            guess = f"; it looks like {meant}" if meant else ""
            found.complaints.append(f"{about} is no tensor of this case{guess}")
            found.named.add(meant)
        elif array.dtype != expected[name].dtype:
            found.complaints.append(f"{about} is of dtype {array.dtype}, expected {expected[name].dtype}")
            found.named.add(name)
        elif array.shape != expected[name].shape:
            found.complaints.append(f"{about} has shape {array.shape}, expected {expected[name].shape}")
            found.named.add(name)
        else:
            found.tensors[name] = array
    return found


def reason(error):
    """An error in a few words."""
    return getattr(error, "strerror", None) or str(error)


def meant_by(name, expected):
    """The expected name that has the same letters and digits, or None: names are matched to the letter."""

    def bare(text):
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return next((other for other in expected if bare(other) == bare(name)), None)


def read_safetensors(path, found):
    """All tensors but those of bfloat16, which NumPy has not and `read_tensors` makes float32 of."""
    from safetensors import safe_open

    tensors, _ = read_tensors(path)
    with safe_open(path, framework="numpy") as file:
        widened = [name for name in tensors if file.get_slice(name).get_dtype() == "BF16"]
    for name in widened:
        found.complaints.append(f"{path.name}: {shown(name)} is of dtype bfloat16, expected that of the case")
        found.named.add(name)
    return {name: array for name, array in tensors.items() if name not in widened}


def read_arrays(folder, found):
    """A folder of .npy files, each named after its tensor."""
    arrays = {}
    for path in sorted(folder.iterdir()):
        about, name = f"{folder.name}/{shown(path.name)}", path.name.removesuffix(".npy")
        if path.name.startswith("."):
            continue
        try:
            if path.suffix != ".npy" or not path.is_file():
                raise ValueError("expected .npy files alone, each named after its tensor: blocks.0.ln1.npy")
            arrays[name] = read_npy(path.read_bytes())
        except (OSError, ValueError) as error:
            found.complaints.append(f"{about}: {reason(error)}")
            found.named.add(name)
    return arrays


def read_npy(data):
    """The array in a .npy file's bytes, if it is little-endian, in C order and whole."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        two = np.lib.format.read_array_header_2_0
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): two}[version]
        shape, fortran, dtype = read_header(file)
    except (KeyError, *DAMAGED) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"not a whole .npy file of version 1 or 2 ({said[0]})") from None
    if dtype.byteorder == ">":
        raise ValueError(f"is big-endian, {dtype.str}; expected {dtype.newbyteorder('<').str}")
    if dtype.kind not in "fiu":
        raise ValueError(f"is of dtype {dtype}, expected numbers")
    if fortran:
        raise ValueError("lies in Fortran order, column by column; expected C order, row by row")
    expected, got = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if got != expected:
        raise ValueError(f"not a whole .npy file: {got} bytes of data, expected {expected} for shape {shape}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)


def read_json_tensors(path, expected, found):
    """{"tensors": {name: {"shape": [...], "values": [...]}}}; values row by row, "inf", "-inf" and "nan" as texts."""
    value = read_json(path)
    tensors = value.get("tensors") if isinstance(value, dict) else None
    if not isinstance(tensors, dict):
        raise ValueError('expected an object with an object "tensors" in it')
    arrays = {}
    for name, entry in tensors.items():
        if name not in expected:
            arrays[name] = np.zeros(0)  # refused by the caller, whatever it holds
            continue
        try:
            arrays[name] = array_of(entry, expected[name])
        except (ValueError, OverflowError) as error:
            found.complaints.append(f"{path.name}: {name}: {error}")
            found.named.add(name)
    return arrays


def array_of(entry, like):
    """The array of one entry, of the dtype and shape of another."""
    if not isinstance(entry, dict) or set(entry) != {"shape", "values"}:
        raise ValueError('expected an object of "shape" and "values"')
    shape, values = entry["shape"], entry["values"]
    if shape != list(like.shape) or any(isinstance(n, bool) for n in shape):
        raise ValueError(f"has shape {shown(str(shape))}, expected {list(like.shape)}")
    if not isinstance(values, list) or len(values) != like.size:
        raise ValueError(f"expected a flat list of {like.size} values")
    numbers = [INFINITE.get(value, value) if isinstance(value, str) else value for value in values]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ValueError(f"has the value {shown(repr(number))}, expected numbers, or 'inf', '-inf' or 'nan'")
    if np.issubdtype(like.dtype, np.integer):
        limits = np.iinfo(like.dtype)
        if not all(math.isfinite(n) and n == int(n) and limits.min <= n <= limits.max for n in numbers):
            raise ValueError(f"expected whole numbers of {like.dtype}")
        numbers = [int(n) for n in numbers]
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=np.float64 if like.dtype.kind == "f" else None).astype(like.dtype).reshape(shape)
