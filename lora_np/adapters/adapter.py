"""An adapter for a whole model: a flat dict of arrays and a small configuration."""

from typing import NamedTuple

import numpy as np

from .config import AdapterConfig, adapted_modules, module_config
from .kinds import KINDS

HEAD = "head.weight"


class Adapter(NamedTuple):
    """The adapter's arrays under the names of the layers that they belong to.

    weights holds "blocks.0.attn.q_proj.lora_A" and so on. It may also hold whole weights under the
    base's own names, such as a trained "head.weight"; these take the place of the base's.
    """

    config: AdapterConfig
    weights: dict[str, np.ndarray]


def init_adapter(params, config, rng):
    """A fresh adapter for a model; with it attached the model's output is the base's, bit for bit.

    Parameters
    ----------
    params : dict, the base model's weights (only looked at)
    config : AdapterConfig
    rng : np.random.Generator

    Returns
    -------
    Adapter, in execution order; with a copy of the base's head where config.train_head and there is one

    Raises
    ------
    ValueError
        For an unknown kind or target, or a rank above min(out, in) of a layer, which is named.
    """
    if config.kind not in KINDS:
        raise ValueError(f"kind: got {config.kind!r}, expected one of {', '.join(KINDS)}")
    weights = {}
    for module in adapted_modules(config, params):
        try:
            parts = KINDS[config.kind].init(params[f"{module}.weight"], module_config(config, module), rng)
        except ValueError as error:
            raise ValueError(f"{module}: {error}") from None
        weights |= {f"{module}.{leaf}": array for leaf, array in parts.items()}
    if config.train_head and HEAD in params:
        weights[HEAD] = params[HEAD].copy()
    return Adapter(config, weights)


def adapter_parts(adapter):
    """The adapter's arrays by layer: {"blocks.0.attn.q_proj": {"lora_A": …, "lora_B": …}}."""
    parts = {}
    for name, array in adapter.weights.items():
        module, _, leaf = name.rpartition(".")
        if leaf not in ("weight", "bias"):
            parts.setdefault(module, {})[leaf] = array
    return parts


def fitting_parts(params, adapter):
    """`adapter_parts`, after a check that the model has all the layers that they stand for."""
    parts = adapter_parts(adapter)
    for module in parts:
        if f"{module}.weight" not in params:
            raise ValueError(f"adapter: the model has no layer {module}")
    return parts


def adapter_deltas(params, adapter):
    """ΔW of every adapted layer: {"blocks.0.attn.q_proj.weight": (out, in) array}."""
    kind = KINDS[adapter.config.kind]
    return {
        f"{module}.weight": kind.delta(params[f"{module}.weight"], parts, module_config(adapter.config, module))
        for module, parts in fitting_parts(params, adapter).items()
    }
