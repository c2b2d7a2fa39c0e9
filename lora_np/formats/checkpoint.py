"""Read and write models and adapters as folders: the configuration is JSON, and the tensors are safetensors."""

import warnings
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np

from ..adapters import Adapter, AdapterConfig, adapter_shapes
from ..adapters.config import INITS
from ..adapters.starts import STARTS
from ..checked import errors_of, one_of, quoted, shown
from ..model import ARCHITECTURES, architecture, parameter_shapes
from .atomic import of_one_version, write_folder
from .tensors import json_bytes, read_json, read_tensors, tensor_bytes

OLDEST = next(iter(ARCHITECTURES))  # the architecture of a configuration file that names none


def save_model(folder, params, config, dtype=None, beside=None, carry=()):
    """Write a folder with `model.safetensors` and `config.json`, replacing any existing one.

    Parameters
    ----------
    folder : folder to write; created if needed
    params : dict of the weights
    config : the model's configuration
    dtype : "float16" halves the size (weights near 0.02 keep three significant digits); None: the arrays' own dtype
    beside, carry : see `write_pair`
    """
    names, check = ("model.safetensors", "config.json"), reader(load_model, params)
    name = architecture(config).name
    fields = ({} if name == OLDEST else {"architecture": name}) | config_fields(config)
    write_pair(folder, names, params, fields, dtype, beside, check=check, carry=carry)


@of_one_version
def load_model(folder, dtype=np.float32):
    """Read a model from a folder that `save_model` wrote.

    Parameters
    ----------
    folder : the model's folder
    dtype : np.float32 or np.float64, of the returned arrays

    Returns
    -------
    params : dict of arrays, in execution order
    config : the model's configuration

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or the tensors do not match the configuration.
    """
    check_is_model(folder)
    folder = Path(folder)
    config = read_config(folder / "config.json")
    path = folder / "model.safetensors"
    tensors, _ = read_tensors(path)
    check_depth(folder / "config.json", "n_layers", config.n_layers, tensors)
    return read_as(path, tensors, parameter_shapes(config), dtype), config


def check_is_model(folder):
    """Raise FileNotFoundError or ValueError unless a folder has the two files of a model in our format."""
    folder = Path(folder)
    if not folder.is_dir() and not folder.is_file():
        raise FileNotFoundError(f"{folder}: no such folder")
    if is_hf(folder):
        raise ValueError(f"{folder}: this is a Hugging Face model; give its folder, not a file in it, or use `load_hf`")
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(f"{folder}: no {' and no '.join(missing)} ({contents(folder)}), expected a model")


def is_hf(folder):
    """Whether a path is the folder of a Hugging Face model, or the index file of a sharded one."""
    config, index = folder / "config.json", folder / "model.safetensors.index.json"
    is_index = index.is_file() or folder.name == index.name
    return is_index or config.is_file() and "model_type" in read_object(config)


def contents(folder):
    """Describe the contents of a folder, for an error message."""
    if not folder.is_dir():
        return "it is a file"
    names = sorted(shown(path.name, 50) for path in folder.iterdir())
    return f"{', '.join(names[:10]) or 'nothing'} found"


def save_adapter(folder, adapter, dtype=None, beside=None, check=None):
    """Write a folder with `adapter.safetensors` and `adapter.json`, replacing any existing one.

    Parameters
    ----------
    folder : folder to write; created if needed
    adapter : Adapter; if its init changed the base, convert it with `for_original_base` (PiSSA, OLoRA) or `merge` it
    dtype, beside, check : see `write_pair`
    """
    check_init(adapter.config)
    names = "adapter.safetensors", "adapter.json"
    write_pair(folder, names, adapter.weights, config_fields(adapter.config), dtype, beside, check=check)


@of_one_version
def load_adapter(folder, params):
    """Read an adapter from a folder that `save_adapter` wrote.

    Parameters
    ----------
    folder : the adapter's folder
    params : dict of the base's weights, which the adapter must fit

    Returns
    -------
    Adapter, in the base's dtype

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or the tensors do not match the configuration or the base.
    """
    folder = Path(folder)
    config = read_config(folder / "adapter.json", AdapterConfig)
    path = folder / "adapter.safetensors"
    tensors, _ = read_tensors(path)
    with errors_of(folder / "adapter.json"):
        check_init(config)
        shapes = adapter_shapes(params, config)
    return Adapter(config, read_as(path, tensors, shapes, params["tok_emb.weight"].dtype))


def check_init(config):
    """Raise ValueError if the adapter's init changed the base: its update would be incorrect on the original base."""
    if config.init in STARTS:
        plain = ", ".join(init for init in INITS if init not in STARTS)
        remedy = "convert the adapter with `for_original_base`, or `merge` it"
        raise ValueError(f"init: got {config.init!r}, which changes the base, expected one of {plain}; {remedy}")


def check_depth(path, field, n_layers, tensors):
    """Raise ValueError if a configuration has more layers than there are tensors, before any memory is allocated."""
    if isinstance(n_layers, int) and n_layers > len(tensors):
        raise ValueError(f"{path}: {field} is {quoted(n_layers)}, but the model has only {len(tensors)} tensors")


def config_fields(config):
    """Convert a configuration dataclass to a dict for JSON."""
    return {name: value for name, value in asdict(config).items() if name != "extra" or value}


def write_pair(folder, names, tensors, values, dtype=None, beside=None, metadata=None, check=None, carry=()):
    """Write a folder with tensors and their configuration, replacing any existing one; see `write_folder`.

    Parameters
    ----------
    names : names of the tensor file and of the configuration file, whose fields are `values`
    beside : dict of additional files to write, name -> bytes, str or JSON value
    metadata : dict of str -> str to store in the tensor file, or None
    check : function (path of the new folder) that reads the folder back; None: only the two files are read back
    """
    tensors = cast(Path(folder) / names[0], tensors, dtype)
    files = {names[0]: tensor_bytes(tensors, metadata), names[1]: json_bytes(values)}
    for name, content in (beside or {}).items():
        content = content.encode("utf-8") if isinstance(content, str) else content
        files[name] = content if isinstance(content, bytes) else json_bytes(content)
    check = check or (lambda new: (read_tensors(new / names[0]), read_object(new / names[1])))
    write_folder(folder, files, check, carry)


def reader(load, params):
    """Return the function `load` with its `dtype` set to one that can hold these parameters without loss."""
    return partial(load, dtype=np.result_type(np.float32, *(array.dtype for array in params.values())))


def read_object(path):
    """The fields of a JSON file that contains a single object."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: got a JSON {type(values).__name__}, expected an object")
    return values


def read_config(path, kind=None):
    """Read a configuration from JSON.

    `kind` is the dataclass of the configuration, by default that of the architecture named in the file. Missing and
    invalid fields raise a ValueError that names them. Unknown fields are stored in `extra`, with a warning.
    """
    values = read_object(path)
    if kind is None:
        name = one_of(f"{path}: architecture", values.pop("architecture", OLDEST), ARCHITECTURES)
        kind = ARCHITECTURES[name].config_class
    known = {field.name for field in fields(kind)}
    unknown = {name: values.pop(name) for name in list(values) if name not in known}
    warn_of_unknown(path, unknown)
    with errors_of(path):
        if unknown:
            values["extra"] = {**values.get("extra", {}), **unknown}
        return kind(**values)


def warn_of_unknown(path, names):
    """Warn that the configuration fields `names` have no effect; the caller stores them in `extra`."""
    if names:
        warnings.warn(f"{path}: unknown fields {shown(', '.join(names))} have no effect, but are kept", stacklevel=2)


def read_as(path, tensors, shapes, dtype):
    """Convert a file's tensors to float32 or float64, in the order of `shapes`.

    Raises ValueError for the first tensor that `check_shapes` or `cast` rejects.
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype: got {np.dtype(dtype)}, expected float32 or float64")
    check_shapes(path, tensors, shapes)
    return cast(path, {name: tensors[name] for name in shapes}, dtype)


def check_shapes(path, tensors, shapes):
    """Raise ValueError for the first tensor of a file that is missing, has a mismatched shape, or is unexpected."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"{path}: {name} is missing")
        if tensors[name].shape != tuple(shape):
            raise ValueError(f"{path}: {name} has shape {tensors[name].shape}, expected {tuple(shape)}")
    for name in tensors:
        if name not in shapes:
            raise ValueError(f"{path}: unexpected tensor {shown(name)}")


def cast(path, tensors, dtype=None):
    """Convert tensors to `dtype` (None: their own dtypes); `path` names their file in error messages.

    Raises ValueError for the first array that is not floating point, is not finite, or overflows the dtype.
    """
    arrays = {}
    for name, array in tensors.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"params: {name} is a {type(array).__name__}, expected an array; dequantise it first")
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{path}: {shown(name)} has dtype {array.dtype}, expected floating point")
        with np.errstate(over="ignore", invalid="ignore"):
            arrays[name] = array.astype(dtype or array.dtype, copy=False)
        if not np.isfinite(arrays[name]).all():
            fault = f"has values that are too large for {arrays[name].dtype} or not finite"
            raise ValueError(f"{path}: {shown(name)} {fault}")
    return arrays
