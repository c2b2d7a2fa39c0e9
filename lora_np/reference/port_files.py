"""What a port has written: its outputs for a case as safetensors, as JSON, or as a folder of .npy files.

    DIR/model-lm.float64.safetensors
    DIR/model-lm.float64.json
    DIR/model-lm.float64/blocks.0.attn.probs.npy

Whatever cannot be compared is said by name, never converted on the quiet.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..formats import read_json, read_tensors
from .cases import DTYPES

NAMES = re.compile(rf"(?P<case>.+)\.(?P<dtype>{'|'.join(DTYPES)})(?P<form>\.safetensors|\.json|)")


class PortFile(NamedTuple):
    """One case's outputs, in one precision."""

    path: Path
    case: str
    dtype: str  # "float64" or "float32", from the name


def port_files(folder):
    """The files and folders of outputs in a port's folder, and complaints about those that are none.

    The manifest and the schema of an exported folder are passed over; so is what is no .safetensors, .json or .npy.

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
        if match and path.is_dir() == (match["form"] == ""):
            found.append(PortFile(path, match["case"], match["dtype"]))
        elif path.is_dir() or path.suffix in (".safetensors", ".json", ".npy"):
            complaints.append(f"{path.name}: expected the name of a case and a precision, as in linear.float64"
                              " with .safetensors or .json, or of a folder of .npy files")  # fmt: skip
    if not found and not complaints:
        raise ValueError(f"DIR: {folder} holds no outputs; expected files such as linear.float64.safetensors")
    return found, complaints


def read_port_file(file, expected):
    """The tensors of one case.

    Parameters
    ----------
    file : PortFile
    expected : dict, name -> array, of all that may be there: outputs, and inputs handed back

    Returns
    -------
    tensors : dict, name -> array of its expected dtype and shape
    complaints : dict, name of a tensor, or of a file -> str
    """
    tensors, complaints = {}, {}
    try:
        if file.path.is_dir():
            given = read_arrays(file.path, complaints)
        elif file.path.suffix == ".json":
            given = read_json_tensors(file.path, expected, complaints)
        else:
            given = read_tensors(file.path)[0]
    except (OSError, ValueError) as error:
        return {}, {file.path.name: str(error)}
    for name, array in given.items():
        about, meant = f"{file.path.name}: {name}", name if name in expected else meant_by(name, expected)
        if name not in expected:
            guess = f"; it looks like {meant}, whose words are parted by dots" if meant else ""
            complaints[meant or name] = f"{about} is no tensor of this case{guess}"
        elif array.dtype != expected[name].dtype:
            complaints[name] = f"{about} is of dtype {array.dtype}, expected {expected[name].dtype}"
        elif array.shape != expected[name].shape:
            complaints[name] = f"{about} has shape {array.shape}, expected {expected[name].shape}"
        else:
            tensors[name] = array
    return tensors, complaints


def meant_by(name, expected):
    """The expected name that differs in nothing but what parts its words, or None."""

    def bare(text):
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return next((other for other in expected if bare(other) == bare(name)), None)


def read_arrays(folder, complaints):
    """A folder of .npy files, each named after its tensor."""
    found = {}
    for path in sorted(folder.iterdir()):
        about, name = f"{folder.name}/{path.name}", path.name.removesuffix(".npy")
        if path.is_dir() or path.suffix != ".npy":
            complaints[name] = f"{about}: expected .npy files alone, each named after its tensor: blocks.0.ln1.npy"
            continue
        try:
            with open(path, "rb") as file:
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0}
                read_header = read_header.get(version, np.lib.format.read_array_header_2_0)
                _, fortran, dtype = read_header(file)
            if dtype.byteorder == ">":
                complaints[name] = f"{about}: is big-endian, {dtype.str}; expected {dtype.newbyteorder('<').str}"
            elif fortran:
                complaints[name] = f"{about}: lies in Fortran order, column by column; expected C order, row by row"
            else:
                found[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            complaints[name] = f"{about}: not a whole .npy file ({error})"
    return found


def read_json_tensors(path, expected, complaints):
    """{"tensors": {name: {"shape": [...], "values": [...]}}}; values row by row, "inf", "-inf" and "nan" as texts."""
    value = read_json(path)
    tensors = value.get("tensors") if isinstance(value, dict) else None
    if not isinstance(tensors, dict):
        raise ValueError(f"{path.name}: expected an object with an object \"tensors\" in it")
    found = {}
    for name, entry in tensors.items():
        try:
            # A name that is not expected is refused by the caller; until then it has to have some dtype.
            dtype = expected[name].dtype if name in expected else np.float64
            shape, values = entry["shape"], entry["values"]
            array = np.array([float(v) if isinstance(v, str) else v for v in values])
            if array.size and not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
                raise ValueError("values that are no numbers")
            if np.issubdtype(dtype, np.integer) and not np.array_equal(array, array.astype(dtype)):
                raise ValueError(f"values that are no numbers of {dtype}")
            found[name] = array.astype(dtype).reshape(shape)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            complaints[name] = f"{path.name}: {name}: expected shape and values that fit it ({error})"
    return found
