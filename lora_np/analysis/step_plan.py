"""What one step will compute and keep, known from shapes before any array is made."""

from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, adapted_modules, module_config
from ..model import ModelConfig, parameter_shapes
from ..model.call import Call, begin


class StepPlan(NamedTuple):
    """A step of B rows of T tokens: what FLOPs and bytes are counted from."""

    config: ModelConfig
    B: int
    T: int
    call: Call  # of the real forward pass, with shapes where that has arrays: it says which gradients are wanted
    trained: tuple[str, ...]  # names of the parameters whose gradients are computed

    @property
    def shapes(self):
        """Name -> shape of every parameter, the base's and the adapter's."""
        return self.call.params


def plan_step(config, B, T, adapter_config=None, wanted=None):
    """Begin a step as `model.forward` does, on shapes.

    Parameters
    ----------
    config : ModelConfig
    B, T : int, rows and tokens a row; T at most config.n_positions
    adapter_config : AdapterConfig or None
    wanted : names of the parameters to train, as in `model.forward`. None: the adapter's arrays, or
        without an adapter the whole model. (): a forward pass alone.

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
    shapes = parameter_shapes(config)
    adapter = None
    if adapter_config is not None:
        adapter = Adapter(adapter_config, adapter_shapes(adapter_config, shapes))
    if wanted is None:
        wanted = shapes if adapter is None else adapter.weights
    wanted = tuple(dict.fromkeys(wanted))
    ids = np.broadcast_to(np.int64(0), (B, T))  # a shape with one number behind it
    return StepPlan(config, B, T, begin(shapes, ids, config, None, adapter, wanted, None), wanted)


def adapter_shapes(adapter_config, shapes):
    """Name -> shape of every array that `init_adapter` makes.

    Parameters
    ----------
    adapter_config : AdapterConfig
    shapes : dict, name -> shape of the base's parameters
    """
    if adapter_config.kind not in KIND_SHAPES:
        raise ValueError(f"kind: got {adapter_config.kind!r}, expected one of {', '.join(KIND_SHAPES)}")
    found = {}
    for module in adapted_modules(adapter_config, shapes):
        n_out, n_in = shapes[f"{module}.weight"]
        r = module_config(adapter_config, module).r
        if r > min(n_out, n_in):
            raise ValueError(f"{module}: r: got {r}, expected at most min(out, in) = {min(n_out, n_in)}")
        parts = KIND_SHAPES[adapter_config.kind](n_out, n_in, r)
        found |= {f"{module}.{leaf}": shape for leaf, shape in parts.items()}
    if adapter_config.train_head and "head.weight" in shapes:
        found["head.weight"] = shapes["head.weight"]
    return found


def lora_shapes(n_out, n_in, r):
    return {"lora_A": (r, n_in), "lora_B": (n_out, r)}


KIND_SHAPES = {"lora": lora_shapes}
