"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

import math
from dataclasses import dataclass, field

import numpy as np

from ..checked import check_fields, finite_number
from ..ops.blocks import blocks
from .threads import balanced_groups


@dataclass(frozen=True)
class AdamW:
    """The optimiser's settings, except for the learning rate, which the schedule sets.

    Parameters
    ----------
    beta1, beta2 : float in [0, 1), the decay rates of the running means of the gradient and of its square
    eps : float above 0, added outside the square root
    weight_decay : float ≥ 0, λ
    rate_factors : dict, last part of an array's name, such as "lora_B" -> factor for its learning rate, by default 1;
        see `AdapterConfig`
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    rate_factors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        check_fields(self, finite_number, "beta1", "beta2", least=0, below=1)
        check_fields(self, finite_number, "eps", above=0)
        check_fields(self, finite_number, "weight_decay", least=0)


def adamw_update(params, grads, m, v, step, learning_rate, config, run=map, out=None, scale=1.0):
    """Take one AdamW step on a flat dict of arrays.

        m ← β₁ m + (1 − β₁) g              mean of the gradient
        v ← β₂ v + (1 − β₂) g²             mean of its square
        m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)      corrects the bias from starting at 0
        p ← p − lr · λ · p − lr · m̂ / (√v̂ + ε)     ε is outside the root

    Weight decay applies only to matrices, not to one-dimensional arrays (biases and layer-norm weights).

    Parameters
    ----------
    params, grads, m, v : dicts of arrays with the same names and shapes
    step : int ≥ 1, t
    learning_rate : float
    config : AdamW
    run : `map`, or a thread pool's `map` to run in parallel; both give the same result
    out : three dicts of C-contiguous arrays for the new params, m and v, or None to allocate new arrays. `out` may
        be (params, m, v), because each element is read before it is written; updating in place is fastest.
    scale : float, a factor by which all gradients are multiplied first, for clipping

    Returns
    -------
    params, m, v : new dicts of new arrays, or `out`
    """
    learning_rate = float(learning_rate)  # a NumPy scalar would promote float32 arrays to float64
    # m̂ / (√v̂ + ε) = m c / (√v + ε c′) with c = c′ / (1 − β₁ᵗ) and c′ = √(1 − β₂ᵗ). In this form, the bias correction
    # takes two scalars per step instead of two passes over the arrays.
    root_correction = math.sqrt(1.0 - config.beta2**step)
    step_size = learning_rate * root_correction / (1.0 - config.beta1**step)
    if out is None:
        out = tuple({name: np.empty_like(p, order="C") for name, p in params.items()} for _ in range(3))
    new_params, new_m, new_v = out
    for name in params:
        if not all(arrays[name].flags.c_contiguous for arrays in out):
            raise ValueError(f"out: {name} is not C-contiguous, so it cannot be written block by block")

    def update(names):
        for name in names:
            factor = config.rate_factors.get(name.rpartition(".")[2], 1.0)
            shrink = 1.0 - factor * learning_rate * config.weight_decay if params[name].ndim >= 2 else 1.0
            old = params[name], grads[name], m[name], v[name]
            for pieces in blocks(*old, new_params[name], new_m[name], new_v[name]):
                update_piece(*pieces, shrink, factor * step_size)

    def update_piece(p, g, m, v, new_p, new_m, new_v, shrink, step_size):
        """Apply AdamW's formulas to one block. Intermediate results share one array, which stays in the CPU cache."""
        g = g if scale == 1.0 else g * scale
        term = np.asarray((1.0 - config.beta1) * g)  # for shape (), the product is a scalar, not an array
        np.multiply(config.beta1, m, out=new_m)
        new_m += term
        np.multiply(g, g, out=term)
        term *= 1.0 - config.beta2
        np.multiply(config.beta2, v, out=new_v)
        new_v += term
        np.sqrt(new_v, out=term)
        term += config.eps * root_correction
        np.divide(new_m, term, out=term)
        term *= step_size
        np.multiply(shrink, p, out=new_p)
        new_p -= term

    list(run(update, balanced_groups(params)))
    return out
