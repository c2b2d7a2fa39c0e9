"""Read a port's outputs. Each case has a safetensors file, a JSON file or a folder of .npy files:

    DIR/model-lm.float64.safetensors
    DIR/model-lm.float64.json
    DIR/model-lm.float64/blocks.0.attn.probs.npy

Each file or tensor that cannot be compared is named in an error message (a complaint). Nothing is converted silently.
"""

import io
import math
import re
from functools import partial
from pathlib import Path

import numpy as np

from ..checked import shown
from ..data.texts import kind_of
from ..formats import read_json, read_tensors
from .cases import DTYPES

NAMES = re.compile(rf"(?P<case>.+)\.(?P<dtype>{'|'.join(DTYPES)})(?P<form>\.safetensors|\.json|)")
INFINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # JSON has no such numbers


def port_files(folder):
    """List the outputs in a port's folder. The manifest and the schema of an export are skipped.

    Returns
    -------
    files : dict, path -> (case, precision), read from the file names
    complaints : list of str, about files that look like outputs but have unexpected names

    Raises
    ------
    ValueError
        If `folder` is not a folder, or has no outputs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"DIR: {folder} is {kind_of(folder)}, expected a folder")
    files, complaints = {}, []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "manifest.")):
            continue
        match = NAMES.fullmatch(path.name)
        looks_like_output = path.suffix in (".safetensors", ".json", ".npy") or path.is_dir()
        if match and path.is_dir() == (match["form"] == ""):
            files[path] = match["case"], match["dtype"]
        elif looks_like_output or any(f".{dtype}" in path.name for dtype in DTYPES):
            complaints.append(f"{shown(path.name)}: expected CASE.PRECISION.safetensors, CASE.PRECISION.json, or "
                              "a folder CASE.PRECISION of .npy files; the precision is float64 or float32")  # fmt: skip
    if not files and not complaints:
        raise ValueError(f"DIR: {folder} has no outputs; expected files such as linear.float64.safetensors")
    return files, complaints


def read_port_file(path, expected, outputs):
    """Read the tensors of one case, and list complaints about those that cannot be compared.

    Parameters
    ----------
    path : file or folder
    expected : dict, name -> array, of all tensors that the file may contain: the case's outputs and inputs
    outputs : names of the tensors that the file must contain

    Returns
    -------
    tensors : dict, name -> array of the expected dtype and shape
    complaints : list of str
    """
    tensors, complaints, misspelt = {}, [], []
    read = {".json": read_json_file, ".safetensors": read_safetensors}.get(path.suffix, read_folder)
    try:
        readers = read(path)
    except (OSError, ValueError) as error:
        return {}, [f"{shown(path.name)}: {error}"]
    for name, reader in readers.items():
        try:
            if name not in expected:
                alike = [other for other in expected if bare(other) == bare(name)]
                misspelt += alike
                looks_like = "".join(f"; it looks like {other}" for other in alike)
                raise ValueError(f"is not a tensor of this case{looks_like}")
            array, like = reader(expected[name]), expected[name]
            if array.dtype != like.dtype:
                raise ValueError(f"has dtype {array.dtype}, expected {like.dtype}")
            if array.shape != like.shape:
                raise ValueError(f"has shape {array.shape}, expected {like.shape}")
            tensors[name] = array
        except (OSError, ValueError) as error:
            complaints.append(f"{path.name}: {shown(name)} {error}")
    absent = [name for name in outputs if name not in {*readers, *misspelt}]
    return tensors, [*(f"{path.name}: {name} is missing" for name in absent), *complaints]


def bare(name):
    """Reduce a name to letters and digits. Names must match exactly, but a complaint may suggest the correct name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


# Each format's reader returns a dict, keyed by tensor, of functions that take the expected array and return the port's
# tensor. A function raises OSError or ValueError if the tensor is invalid.


def read_safetensors(path):
    """Read all tensors of a file. Tensors stored as bfloat16 are rejected, although `read_tensors` converts them."""
    from safetensors import safe_open

    tensors, _ = read_tensors(path)
    with safe_open(path, framework="numpy") as file:
        stored = {name: file.get_slice(name).get_dtype() for name in tensors}

    def tensor(name, like):
        if stored[name] == "BF16":
            raise ValueError(f"has dtype bfloat16, expected {like.dtype}")
        return tensors[name]

    return {name: partial(tensor, name) for name in tensors}


def read_folder(folder):
    """Read a folder of .npy files, each named after its tensor."""
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in paths:
        if path.suffix != ".npy" or not path.is_file():
            raise ValueError(f"{shown(path.name)} is not a regular .npy file; expected only .npy files")
    return {path.stem: partial(read_npy, path) for path in paths}


def read_npy(path, like):
    """Read the array in a .npy file, which must be little-endian, in C order and complete."""
    data = path.read_bytes()
    file = io.BytesIO(data)
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # NumPy may raise any error, because it parses the header as Python
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"is not a complete .npy file of numbers ({message})") from None
    if file.tell() != len(data):
        raise ValueError(f"has {len(data) - file.tell()} extra bytes after the array of shape {array.shape}")
    if array.dtype.byteorder == ">":
        raise ValueError(f"is big-endian, {array.dtype.str}; expected {array.dtype.newbyteorder('<').str}")
    if not array.flags.c_contiguous:
        raise ValueError("is in Fortran order, column by column; expected C order, row by row")
    return array


def read_json_file(path):
    """Read {"tensors": {name: {"shape": [...], "values": [...]}}}; values may be "inf", "-inf" and "nan"."""
    value = read_json(path)
    tensors = value.get("tensors") if isinstance(value, dict) else None
    if not isinstance(tensors, dict):
        raise ValueError('expected a JSON object that contains an object "tensors"')
    return {name: partial(array_of, entry) for name, entry in tensors.items()}


@np.errstate(over="ignore", invalid="ignore")
def array_of(entry, like):
    """Convert one entry of a JSON file to an array with the dtype and shape of the expected array."""
    if not isinstance(entry, dict) or set(entry) != {"shape", "values"}:
        raise ValueError('should be a JSON object with "shape" and "values"')
    shape, values = entry["shape"], entry["values"]
    if shape != list(like.shape):
        raise ValueError(f"has shape {shown(str(shape))}, expected {list(like.shape)}")
    if not isinstance(values, list) or len(values) != like.size:
        raise ValueError(f"should have a flat list of {like.size} values")
    numbers = [INFINITE.get(value, value) if isinstance(value, str) else value for value in values]
    for number in numbers:
        if type(number) not in (int, float):
            raise ValueError(f"has the value {shown(repr(number))}, expected a number, 'inf', '-inf' or 'nan'")
    wide = np.array(numbers, dtype=np.float64).reshape(like.shape)
    array = wide.astype(like.dtype)
    if like.dtype.kind != "f" and (array != wide).any():
        raise ValueError(f"should contain only integers that fit in {like.dtype}")
    return array
