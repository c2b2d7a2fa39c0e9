"""What a port has written: its outputs for a case as safetensors, as JSON, or as a folder of .npy files.

    DIR/model-lm.float64.safetensors
    DIR/model-lm.float64.json
    DIR/model-lm.float64/blocks.0.attn.probs.npy

Whatever cannot be compared gets a complaint that names it; nothing is converted silently.
"""

import io
import math
import re
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np

from ..formats import read_json, read_tensors
from .cases import DTYPES

NAMES = re.compile(rf"(?P<case>.+)\.(?P<dtype>{'|'.join(DTYPES)})(?P<form>\.safetensors|\.json|)")
INFINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # JSON has no such numbers
# What NumPy raises at a damaged header, which it reads with Python's own parser.
DAMAGED = (ValueError, TypeError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError)


class PortFile(NamedTuple):
    """One case's outputs, in one precision."""

    path: Path
    case: str
    dtype: str  # "float64" or "float32", from the name


def shown(name):
    """A name that is safe to print: short, and without characters that a terminal would obey."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= 80 else name[:77] + "…"


def port_files(folder):
    """The PortFiles in a port's folder, and complaints about other files that look like outputs.

    The manifest and the schema of an exported folder are skipped.

    Raises
    ------
    ValueError
        If the folder does not exist, is no folder, or holds nothing to check.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"DIR: {folder} is {'a file' if folder.exists() else 'not there'}, expected a folder")
    files, complaints = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "manifest.")):
            continue
        match = NAMES.fullmatch(path.name)
        looks_like_output = path.suffix in (".safetensors", ".json", ".npy") or path.is_dir()
        if match and path.is_dir() == (match["form"] == ""):
            files.append(PortFile(path, match["case"], match["dtype"]))
        elif looks_like_output or any(f".{dtype}" in path.name for dtype in DTYPES):
            complaints.append(f"{shown(path.name)}: expected the name of a case and a precision, as in linear.float64"
                              " with .safetensors or .json, or of a folder of .npy files")  # fmt: skip
    if not files and not complaints:
        raise ValueError(f"DIR: {folder} holds no outputs; expected files such as linear.float64.safetensors")
    return files, complaints


def read_port_file(file, expected, outputs):
    """The tensors of one case that can be compared, and complaints about all others.

    Parameters
    ----------
    file : PortFile
    expected : dict, name -> array, of everything that may be there: outputs, and inputs handed back
    outputs : names of those that have to be there

    Returns
    -------
    tensors : dict, name -> array of its expected dtype and shape
    complaints : list of str
    """
    tensors, complaints, named = {}, [], set()
    read = {".json": read_json_tensors, ".safetensors": read_safetensors}
    read = read_arrays if file.path.is_dir() else read[file.path.suffix]
    try:
        arrays = read(file.path, expected)
    except (OSError, ValueError) as error:
        return {}, [f"{shown(file.path.name)}: {reason(error)}"]
    for name, array in arrays.items():
        if isinstance(array, Exception):
            complaint = reason(array)
        elif name not in expected:
            meant = meant_by(name, expected)
            named.add(meant)
            complaint = "is no tensor of this case" + (f"; it looks like {meant}" if meant else "")
        elif array.dtype != expected[name].dtype:
            complaint = f"is of dtype {array.dtype}, expected {expected[name].dtype}"
        elif array.shape != expected[name].shape:
            complaint = f"has shape {array.shape}, expected {expected[name].shape}"
        else:
            tensors[name] = array
            continue
        complaints.append(f"{file.path.name}: {shown(name)} {complaint}")
    absent = [name for name in outputs if name not in {*arrays, *named}]
    return tensors, [*(f"{file.path.name}: {name} is missing" for name in absent), *complaints]


def reason(error):
    """An error in a few words."""
    return getattr(error, "strerror", None) or str(error)


def meant_by(name, expected):
    """The expected name with the same letters and digits, or None: a name has to be exactly right."""

    def bare(text):
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return next((other for other in expected if bare(other) == bare(name)), None)


# Each reader returns name -> array, or the error where one tensor alone cannot be read.


def read_safetensors(path, expected):
    """All tensors, except for bfloat16 ones: NumPy has no such dtype, and `read_tensors` makes them float32."""
    from safetensors import safe_open

    tensors, _ = read_tensors(path)
    with safe_open(path, framework="numpy") as file:
        for name in tensors:
            if file.get_slice(name).get_dtype() == "BF16":
                tensors[name] = ValueError("is of dtype bfloat16, expected that of the case")
    return tensors


def read_arrays(folder, expected):
    """A folder of .npy files, each named after its tensor."""
    arrays = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix != ".npy" or not path.is_file():
            raise ValueError(f"{shown(path.name)} is no regular .npy file; expected those alone, named after tensors")
        try:
            arrays[path.stem] = read_npy(path.read_bytes())
        except (OSError, ValueError) as error:
            arrays[path.stem] = error
    return arrays


def read_npy(data):
    """The array in a .npy file's bytes, if it is little-endian, in C order and complete."""
    file = io.BytesIO(data)
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGED as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"is not a complete .npy file of numbers ({message})") from None
    if file.tell() != len(data):
        raise ValueError(f"is not a .npy file: {len(data) - file.tell()} more bytes than shape {array.shape} needs")
    if array.dtype.byteorder == ">":
        raise ValueError(f"is big-endian, {array.dtype.str}; expected {array.dtype.newbyteorder('<').str}")
    if not array.flags.c_contiguous:
        raise ValueError("is in Fortran order, column by column; expected C order, row by row")
    return array


def read_json_tensors(path, expected):
    """{"tensors": {name: {"shape": [...], "values": [...]}}}; values row by row, "inf", "-inf" and "nan" as texts."""
    value = read_json(path)
    tensors = value.get("tensors") if isinstance(value, dict) else None
    if not isinstance(tensors, dict):
        raise ValueError('expected an object with an object "tensors" in it')
    arrays = {}
    for name, entry in tensors.items():
        try:  # what a tensor that no one expects holds does not matter
            arrays[name] = array_of(entry, expected[name]) if name in expected else None
        except ValueError as error:
            arrays[name] = error
    return arrays


def array_of(entry, like):
    """The array of one entry, with the dtype and shape of another."""
    if not isinstance(entry, dict) or set(entry) != {"shape", "values"}:
        raise ValueError('should be an object of "shape" and "values"')
    shape, values = entry["shape"], entry["values"]
    if shape != list(like.shape):
        raise ValueError(f"has shape {shown(str(shape))}, expected {list(like.shape)}")
    if not isinstance(values, list) or len(values) != like.size:
        raise ValueError(f"should have a flat list of {like.size} values")
    numbers = [INFINITE.get(value, value) if isinstance(value, str) else value for value in values]
    for number in numbers:
        if type(number) not in (int, float):
            raise ValueError(f"has the value {shown(repr(number))}, expected numbers, or 'inf', '-inf' or 'nan'")
    wide = np.array(numbers, dtype=np.float64).reshape(like.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        array = wide.astype(like.dtype)
    if like.dtype.kind != "f" and (array != wide).any():
        raise ValueError(f"should hold whole numbers of {like.dtype}")
    return array
