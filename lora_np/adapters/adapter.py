"""An adapter for a whole model: a flat dict of arrays and a small configuration."""

from typing import NamedTuple

import numpy as np

from ..checked import one_of
from .config import AdapterConfig, adapted_modules, module_config, module_rank
from .kinds import KINDS
from .starts import STARTS

HEAD, HEAD_BIAS = "head.weight", "head.bias"
STARTED = ("lora", "dora")  # kinds whose A and B can be initialised from the base's weight


class Adapter(NamedTuple):
    """An adapter's settings and arrays.

    An array's name begins with its layer's name: "blocks.0.attn.q_proj.lora_A" belongs to the layer
    "blocks.0.attn.q_proj". An adapter may also contain whole weights, such as a trained "head.weight", each of which
    replaces the base's weight of the same name.
    """

    config: AdapterConfig
    weights: dict[str, np.ndarray]


def adapter_kind(config):
    """The module that implements the adapter's kind."""
    return KINDS[one_of("kind", config.kind, KINDS)]


def adapter_shapes(params, config):
    """The shape of every array of an adapter, by name, in execution order.

    Parameters
    ----------
    params : dict, the base model's weights, of which only the shapes are used
    config : AdapterConfig

    Raises
    ------
    ValueError
        If the kind is unknown, or a target matches no layer.
    """
    kind, by_name = adapter_kind(config), {}
    for module in adapted_modules(config, params):
        shapes = kind.shapes(*params[f"{module}.weight"].shape, module_rank(config, module))
        by_name |= {f"{module}.{leaf}": shape for leaf, shape in shapes.items()}
    return by_name | {name: array.shape for name, array in trained_head(params, config).items()}


def head_arrays(arrays):
    """The arrays of the head: its weight and, in some architectures, its bias; an empty dict if there is no head."""
    return {name: arrays[name] for name in (HEAD, HEAD_BIAS) if name in arrays}


def trained_head(params, config):
    """The arrays of the classification head that an adapter trains as a whole; a language model's head is not one."""
    head = head_arrays(params) if config.train_head else {}
    return {} if HEAD in head and head[HEAD].shape == np.shape(params.get("tok_emb.weight")) else head


def check_ranks(params, config):
    """Raise ValueError if a layer's rank exceeds min(out, in), because the excess parameters would be redundant.

    Only new adapters are checked. A mixed adapter's rank is the sum of several ranks and may exceed this limit.
    """
    for module in adapted_modules(config, params):
        r, shape = module_rank(config, module), params[f"{module}.weight"].shape
        if r > min(shape):
            raise ValueError(
                f"{module}: r: got {r}, expected at most min(out, in) = {min(shape)} for a weight of shape {shape}"
            )


def init_adapter(params, config, rng):
    """Create a new adapter that leaves the model's output bit-identical to the base's.

    Parameters
    ----------
    params : dict, the base model's weights; not changed
    config : AdapterConfig
    rng : np.random.Generator

    Returns
    -------
    Adapter, with its arrays in execution order and, if config.train_head, a copy of the base's classification head

    Raises
    ------
    ValueError
        If the kind is unknown, a target matches no layer, a rank exceeds min(out, in) of its layer, a rate factor
        refers to an unknown array, or the init changes the base (use `start_adapter` instead).
    """
    if config.init in STARTS:
        raise ValueError(f"init: {config.init!r} changes the base; use start_adapter, which also returns the new base")
    return start_adapter(params, config, rng)[1]


def start_adapter(params, config, rng):
    """Create a new adapter with any `init`, together with the base on which to train it.

    For "kaiming" and "gaussian", the base does not change. "pissa", "olora" and "loftq" move a part of each adapted
    weight into the adapter and keep the rest in the base. The new base and the adapter together compute the same
    function as the original base, except for rounding (and, for "loftq", NF4's quantisation error). `starts.py`
    explains how to convert the trained adapter into one for the original base.

    Parameters
    ----------
    params, config, rng : see `init_adapter`

    Returns
    -------
    base : dict, frozen during training; unchanged arrays are shared, not copied
    adapter : Adapter

    Raises
    ------
    ValueError
        As in `init_adapter`; also if the kind does not support the init.
    """
    kind, start = adapter_kind(config), STARTS.get(config.init)
    check_ranks(params, config)
    known = [*kind.shapes(1, 1, 1), "weight"]
    for leaf in config.rate_factors:
        if leaf not in known:
            raise ValueError(f"rate_factors: {config.kind} has no {leaf!r}, expected one of {', '.join(known)}")
    if start is not None and config.kind not in STARTED:
        raise ValueError(f"init: {config.init!r} works only with kinds {' and '.join(STARTED)}, got {config.kind!r}")
    base, weights = dict(params), {}
    for module in adapted_modules(config, params):
        name, settings = f"{module}.weight", module_config(config, module)
        arrays = kind.init(params[name], settings, rng)
        if start is not None:
            base[name], factors = start(params[name], settings)
            arrays |= factors
        weights |= {f"{module}.{leaf}": array for leaf, array in arrays.items()}
    weights |= {name: np.array(array) for name, array in trained_head(params, config).items()}
    return (params if start is None else base), Adapter(config, weights)


def trained_weights(adapter):
    """The arrays that are trained: all except those whose rate factor is 0."""
    factors = adapter.config.rate_factors
    return {name: a for name, a in adapter.weights.items() if factors.get(name.rpartition(".")[2], 1.0) != 0.0}


class TrainableReport(NamedTuple):
    trainable: int  # number of trainable parameters
    total: int  # number of parameters of the model and its adapter
    percent: float  # 100 · trainable / total


def trainable_report(params, trainable):
    """Count the trainable parameters and the total number of parameters.

    Parameters
    ----------
    params : dict, the base model's weights
    trainable : dict of the trained arrays: an adapter's weights, or some or all of params. An array whose name is also
        in params, such as the head's, is counted only once.

    Returns
    -------
    TrainableReport
    """
    count = sum(array.size for array in trainable.values())
    total = sum(array.size for array in {**params, **trainable}.values())
    return TrainableReport(count, total, 100.0 * count / total)


def layer_arrays(adapter):
    """The adapter's arrays by layer: {"blocks.0.attn.q_proj": {"lora_A": …, "lora_B": …}}."""
    by_layer = {}
    for name, array in adapter.weights.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in ("weight", "bias"):
            by_layer.setdefault(module, {})[leaf] = array
    return by_layer


def whole_weights(adapter):
    """The weights that replace the base's, such as a trained head."""
    return {name: array for name, array in adapter.weights.items() if name.endswith((".weight", ".bias"))}


def fitting_arrays(params, adapter):
    """Check that the model has the adapter's layers, with matching shapes, and return `layer_arrays(adapter)`.

    Raises
    ------
    ValueError
        If the adapter belongs to another model; the message names the first array that does not match.
    """
    kind, by_layer = adapter_kind(adapter.config), layer_arrays(adapter)
    for module, arrays in by_layer.items():
        if f"{module}.weight" not in params:
            raise ValueError(f"adapter: the model has no layer {module}")
        n_out, n_in = params[f"{module}.weight"].shape
        shapes = kind.shapes(n_out, n_in, module_rank(adapter.config, module))
        for leaf, shape in shapes.items():
            got = arrays[leaf].shape if leaf in arrays else "none"
            if got != shape:
                raise ValueError(
                    f"adapter: {module}.{leaf} has shape {got}, expected {shape} for a base weight of shape "
                    f"{(n_out, n_in)}"
                )
    for name, array in whole_weights(adapter).items():
        if name in params and array.shape != params[name].shape:
            raise ValueError(f"adapter: {name} has shape {array.shape}, expected the base's {params[name].shape}")
    return by_layer


def adapter_deltas(params, adapter):
    """ΔW of every adapted layer: {"blocks.0.attn.q_proj.weight": (out, in) array}."""
    kind = adapter_kind(adapter.config)
    return {
        f"{module}.weight": kind.delta(params[f"{module}.weight"], arrays, module_config(adapter.config, module))
        for module, arrays in fitting_arrays(params, adapter).items()
    }
