"""Models and adapters as folders: a configuration in JSON beside the tensors in safetensors."""

import warnings
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from ..adapters import Adapter, AdapterConfig, adapter_shapes
from ..adapters.config import INITS
from ..adapters.starts import STARTS
from ..model import ModelConfig, parameter_shapes
from .tensors import read_json, read_tensors, write_json, write_tensors

PRETRAINED = Path(__file__).parent.parent / "pretrained"


def save_model(folder, params, config, dtype=None):
    """Write `model.safetensors` and `config.json`.

    Parameters
    ----------
    folder : where to; made if it is not there
    params : dict of the weights
    config : ModelConfig
    dtype : "float16" halves the file (weights near 0.02 keep three digits); None keeps the arrays' own
    """
    folder = Path(folder)
    write_pair(folder / "model.safetensors", params, folder / "config.json", config, dtype)


def load_model(folder, dtype=np.float32):
    """Read what `save_model` wrote.

    Parameters
    ----------
    folder : the model's folder
    dtype : np.float32 or np.float64, of the arrays returned

    Returns
    -------
    params : dict of arrays, in execution order
    config : ModelConfig

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, damaged, or its tensors are not those of the configuration.
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype: got {np.dtype(dtype)}, expected float32 or float64")
    folder = Path(folder)
    config = read_config(folder / "config.json", ModelConfig)
    path = folder / "model.safetensors"
    tensors, _ = read_tensors(path)
    if config.n_layers > len(tensors):  # before a name is made for each of a damaged number of layers
        raise ValueError(f"{folder}: n_layers is {config.n_layers}, and model.safetensors has {len(tensors)} tensors")
    shapes = parameter_shapes(config)
    check_tensors(path, tensors, shapes)
    return cast(path, {name: tensors[name] for name in shapes}, dtype), config


def load_pretrained(dtype=np.float32):
    """The language model that ships with the package, trained on IMDb reviews.

    Returns
    -------
    params, config : as `load_model`
    """
    return load_model(PRETRAINED, dtype)


def save_adapter(folder, adapter, dtype=None):
    """Write `adapter.safetensors` and `adapter.json`.

    Parameters
    ----------
    folder : where to; made if it is not there
    adapter : Adapter; one that its init took out of the base has to go through `on_given_base` first
    dtype : see `save_model`
    """
    check_init(adapter.config)
    folder = Path(folder)
    write_pair(folder / "adapter.safetensors", adapter.weights, folder / "adapter.json", adapter.config, dtype)


def load_adapter(folder, params):
    """Read what `save_adapter` wrote.

    Parameters
    ----------
    folder : the adapter's folder
    params : dict of the base's weights, which the adapter must fit

    Returns
    -------
    Adapter, of the base's dtype

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, damaged, or does not fit its configuration and the base.
    """
    folder = Path(folder)
    config = read_config(folder / "adapter.json", AdapterConfig)
    path = folder / "adapter.safetensors"
    tensors, _ = read_tensors(path)
    try:
        check_init(config)
        shapes = adapter_shapes(params, config)
    except ValueError as error:
        raise ValueError(f"{folder / 'adapter.json'}: {error}") from None
    check_tensors(path, tensors, shapes)
    return Adapter(config, cast(path, {name: tensors[name] for name in shapes}, params["tok_emb.weight"].dtype))


def check_init(config):
    """Raise ValueError for an adapter that its init took out of the base: on the base as it was given it is wrong."""
    if config.init in STARTS:
        kept = [init for init in INITS if init not in STARTS]
        raise ValueError(
            f"init: got {config.init!r}, an adapter on what that left of the base; expected one of {', '.join(kept)}: "
            "`on_given_base` makes it one for the base that was given, or `merge` puts it into its own"
        )


def write_pair(tensors_path, tensors, config_path, config, dtype=None):
    """Write tensors, in a dtype or in their own, and their configuration over an earlier pair.

    The old configuration goes first and the new one comes last: a kill in between leaves a folder that
    lacks it and is refused, never new tensors that are read by old settings.
    """
    tensors = cast(tensors_path, tensors, dtype)
    config_path.unlink(missing_ok=True)
    write_tensors(tensors_path, tensors)
    write_json(config_path, {name: value for name, value in asdict(config).items() if name != "extra" or value})


def read_config(path, kind):
    """A configuration dataclass from its JSON file; missing and wrong fields are named, unknown ones kept as extra."""
    values = read_object(path)
    known = [field.name for field in fields(kind)]
    unknown = {name: value for name, value in values.items() if name not in known}
    warn_of_unknown(path, unknown)
    values = {name: value for name, value in values.items() if name in known}
    try:
        if unknown:
            values["extra"] = {**values.get("extra", {}), **unknown}
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def cast(path, tensors, dtype=None):
    """The tensors in a dtype, or in their own; ValueError for the first that it cannot hold, or that is not finite.

    Parameters
    ----------
    path : of the file that they are read from or written to, for the message
    tensors : dict of floating-point arrays
    dtype : a dtype, or None
    """
    found = {}
    for name, array in tensors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            found[name] = array.astype(dtype or array.dtype, copy=False)
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{path}: {name} holds values that are not finite or beyond {found[name].dtype}")
    return found


def read_object(path):
    """The fields of a JSON file that holds one object."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: got a JSON {type(values).__name__}, expected an object")
    return values


def warn_of_unknown(path, names):
    """Say that fields of a configuration mean nothing here; whoever calls keeps them."""
    if names:
        warnings.warn(f"{path}: unknown fields {', '.join(names)}: kept, and of no effect", stacklevel=2)


def check_tensors(path, tensors, shapes):
    """Raise ValueError for the first tensor that is missing, unexpected, of another shape or not of floats."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"{path}: {name} is missing")
        if tensors[name].shape != tuple(shape):
            raise ValueError(f"{path}: {name} has shape {tensors[name].shape}, expected {tuple(shape)}")
        if not np.issubdtype(tensors[name].dtype, np.floating):
            raise ValueError(f"{path}: {name} is of dtype {tensors[name].dtype}, expected floating point")
    for name in tensors:
        if name not in shapes:
            raise ValueError(f"{path}: unexpected tensor {name}")
