"""Check the arguments of a forward pass and its backward pass, and determine which gradients are needed."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, fitting_arrays
from .architectures import modules
from .rows import RowGroup, row_groups


class Call(NamedTuple):
    """The arguments that all layers of one forward pass share."""

    params: dict  # base weights; an adapter's whole weights, such as a head, replace the base's
    config: object  # the model's configuration
    modules: dict  # name -> LayerSpec
    adapter_config: object  # AdapterConfig or None
    adapter_arrays: dict  # layer -> its adapter's arrays
    masks: dict  # name -> dropout mask; empty in evaluation
    wanted: dict  # layer -> operands whose gradients are needed ("x", "weight", "lora_A", …)
    last: np.ndarray  # (B,), the position of the last non-padding token in each row
    groups: tuple[RowGroup, ...] = ()  # rows by adapter if a list of adapters was given, otherwise empty


@lru_cache(maxsize=256)
def operands_by_layer(config, wanted):
    """For each layer, the operands whose gradients are needed: the layer's own wanted parameters, and its input x.

    The gradient of x is needed only if an earlier layer is trained. Computing it only where it is needed lets the
    backward pass stop early and keeps the cache small.

    Parameters
    ----------
    config : the model's configuration
    wanted : tuple of parameter names

    Returns
    -------
    dict, name of a layer -> tuple of operands, such as ("weight", "bias", "x")
    """
    layers, own = modules(config), {}
    for name in wanted:
        module, _, leaf = name.rpartition(".")
        if module not in layers or layers[module].tied_to:
            raise ValueError(f"wanted: no parameter is named {name!r}")
        own[module] = own.get(module, ()) + (leaf,)
    lowest = min((layers[module].depth for module in own), default=math.inf)
    return {
        name: own.get(module.parameters, ()) + (("x",) if lowest < module.depth else ())
        for name, module in layers.items()
    }


def check_ids(ids, config):
    """Raise TypeError or ValueError unless ids is an int array (B, T) with T from 1 to config.n_positions."""
    if not (isinstance(ids, np.ndarray) and np.issubdtype(ids.dtype, np.integer)):
        raise TypeError(f"ids: got {getattr(ids, 'dtype', type(ids).__name__)}, expected an array of integers")
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"ids: got shape {ids.shape}, expected (B, T) with T at least 1")
    if ids.shape[1] > config.n_positions:
        raise ValueError(
            f"ids: a sequence of {ids.shape[1]} tokens is longer than the model's context "
            f"(expected at most n_positions = {config.n_positions})"
        )


def begin(params, ids, config, lengths=None, adapter=None, wanted=(), masks=None):
    """Check the arguments of `forward` and return them as a Call."""
    check_ids(ids, config)
    if lengths is not None and lengths.shape != ids.shape[:1]:
        raise ValueError(f"lengths: got shape {lengths.shape}, expected ({len(ids)},), one for each row")
    if lengths is not None and not ((lengths >= 1) & (lengths <= ids.shape[1])).all():
        raise ValueError(f"lengths: got {lengths}, expected 1 to T = {ids.shape[1]}")
    groups = ()
    if adapter is not None and not isinstance(adapter, Adapter):
        groups, adapter = row_groups(params, adapter, len(ids)), None
        if wanted or masks:
            raise ValueError("adapter: a list of adapters can be used only for evaluation, without wanted or masks")
    known = {**params, **adapter.weights} if adapter is not None else params
    adapter_arrays = fitting_arrays(params, adapter) if adapter is not None else {}
    if config.n_classes:
        for weights in [group.params for group in groups] or [known]:
            check_head(weights, config)
    for name in wanted:
        if name not in known:
            raise ValueError(f"wanted: no parameter is named {name!r}")
    return Call(
        params=known,
        config=config,
        modules=modules(config),
        adapter_config=adapter.config if adapter is not None else None,
        adapter_arrays=adapter_arrays,
        masks=masks or {},
        wanted=operands_by_layer(config, tuple(wanted)),
        last=last_positions(ids, lengths),
        groups=groups,
    )


def check_head(params, config):
    """Raise ValueError unless params has a classification head of shape (n_classes, d_model)."""
    if "head.weight" not in params:
        raise ValueError(f"params: head.weight is missing, but n_classes is {config.n_classes}")
    got, expected = params["head.weight"].shape, (config.n_classes, config.d_model)
    if got != expected:
        raise ValueError(f"params: head.weight has shape {got}, expected (n_classes, d_model) = {expected}")


def last_positions(ids, lengths):
    """The position of the last non-padding token in each row, (B,)."""
    B, T = ids.shape
    return np.full(B, T - 1) if lengths is None else lengths - 1
