"""What one step will compute and keep, known from shapes before any array is made."""

from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, adapter_shapes, check_ranks, trained_weights
from ..model import ModelConfig, parameter_shapes
from ..model.call import Call, begin


class StepPlan(NamedTuple):
    """A step of B rows of T tokens: what FLOPs and bytes are counted from."""

    config: ModelConfig
    B: int
    T: int
    call: Call  # of the real forward pass, on hollow arrays: it says which gradients are wanted
    trained: tuple[str, ...]  # names of the parameters whose gradients are computed
    shapes: dict[str, tuple]  # of every parameter, the base's and the adapter's


def plan_step(config, B, T, adapter_config=None, wanted=None):
    """Begin a step as `model.forward` does, on shapes.

    Parameters
    ----------
    config : ModelConfig
    B, T : int, rows and tokens a row; T at most config.n_positions
    adapter_config : AdapterConfig or None
    wanted : names of the parameters to train, as in `model.forward`. None: the adapter's arrays that are not
        frozen, or without an adapter the whole model. (): a forward pass alone.

    Returns
    -------
    StepPlan

    Raises
    ------
    ValueError
        For sizes below 1, a sequence longer than the position table, unknown names or kinds, a target
        that fits no layer, or a rank that its layer has no room for.
    """
    for name, value in (("B", B), ("T", T)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1")
    if T > config.n_positions:
        raise ValueError(f"T: got {T}, expected at most n_positions = {config.n_positions}")
    params = hollow(parameter_shapes(config))
    adapter = None
    if adapter_config is not None:
        check_ranks(params, adapter_config)
        adapter = Adapter(adapter_config, hollow(adapter_shapes(params, adapter_config)))
    if wanted is None:
        wanted = params if adapter is None else trained_weights(adapter)
    wanted = tuple(dict.fromkeys(wanted))
    ids = np.broadcast_to(np.int64(0), (B, T))
    call = begin(params, ids, config, None, adapter, wanted, None)
    return StepPlan(config, B, T, call, wanted, {name: array.shape for name, array in call.params.items()})


def hollow(shapes):
    """An array for each shape, with one number behind it."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
