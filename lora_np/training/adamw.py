"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

import math
from dataclasses import dataclass

import numpy as np

from .blocks import balanced_groups, blocks


@dataclass(frozen=True)
class AdamW:
    """The optimiser's settings; the learning rate comes with each step, from the schedule.

    Parameters
    ----------
    beta1, beta2 : float in [0, 1), how much of the mean gradient and of its square a step keeps
    eps : float above 0, outside the root
    weight_decay : float ≥ 0, λ
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self):
        for name in ("beta1", "beta2", "eps", "weight_decay"):
            # NumPy's scalars would turn float32 arrays into float64.
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 ≤ {name} < 1")
        if not self.eps > 0.0:
            raise ValueError(f"eps: got {self.eps}, expected a number above 0")
        if not self.weight_decay >= 0.0:
            raise ValueError(f"weight_decay: got {self.weight_decay}, expected at least 0")


def decays(array):
    """Weight decay is for matrices; biases and the scales of layer norms have one axis and get none."""
    return array.ndim >= 2


def adamw_update(params, grads, m, v, step, learning_rate, config, run=map):
    """One step of AdamW on a flat dict.

        m ← β₁ m + (1 − β₁) g              mean of the gradient
        v ← β₂ v + (1 − β₂) g²             mean of its square
        m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)      both start at 0: this takes the bias out
        p ← p − lr · λ · p − lr · m̂ / (√v̂ + ε)     ε outside the root

    Every element is on its own, so groups of arrays can be worked on side by side.

    Parameters
    ----------
    params, grads, m, v : dicts of arrays with the same names and shapes
    step : int, t, from 1
    learning_rate : float
    config : AdamW
    run : `map`, or a pool's `map` to work in parallel threads; changes the time and no number

    Returns
    -------
    params, m, v : new dicts of new arrays
    """
    learning_rate = float(learning_rate)  # as in the settings
    # √v̂ + ε and m̂ with the corrections moved into two numbers a step, not two passes over the arrays
    root_correction = math.sqrt(1.0 - config.beta2**step)
    step_size = learning_rate / (1.0 - config.beta1**step)
    new_params, new_m, new_v = ({name: np.empty_like(p, order="C") for name, p in params.items()} for _ in range(3))

    def update(names):
        for name in names:
            shrink = 1.0 - learning_rate * config.weight_decay if decays(params[name]) else 1.0
            old = params[name], grads[name], m[name], v[name]
            for parts in blocks(*old, new_params[name], new_m[name], new_v[name]):
                update_block(*parts, shrink)

    def update_block(p, g, m, v, new_p, new_m, new_v, shrink):
        """The formulas above, on one piece of one array; writes the last three."""
        np.multiply(config.beta1, m, out=new_m)
        new_m += (1.0 - config.beta1) * g
        np.multiply(config.beta2, v, out=new_v)
        new_v += (1.0 - config.beta2) * (g * g)
        denominator = np.sqrt(new_v)
        denominator /= root_correction
        denominator += config.eps
        np.multiply(shrink, p, out=new_p)
        new_p -= step_size * new_m / denominator

    list(run(update, balanced_groups(params)))
    return new_params, new_m, new_v
