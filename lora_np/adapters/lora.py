"""LoRA on one linear layer (Hu et al. 2021, section 4.1, equation 3).

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ        A (r, in),  B (out, r),  s = α/r

The update ΔW = s B A has rank at most r. Training never computes ΔW: each row of x is projected down to r values and up
again, which costs r (in + out) multiplications instead of in · out.
"""

import math
from typing import NamedTuple

import numpy as np

from ..ops.linear import LinearCache, linear_backward, linear_forward
from ..ops.low_rank import LowRankCache, low_rank_backward, low_rank_forward
from ..ops.wanted import add, operands_wanted, present
from .config import scaling

OPERANDS = {"x": "x", "lora_A": "A", "lora_B": "B"}  # of the low-rank product


class LoRACache(NamedTuple):
    base: LinearCache  # of x Wᵀ + b; if W is frozen, it contains W for dx, but no activation
    update: LowRankCache  # of s (x Aᵀ) Bᵀ


def shapes(n_out, n_in, r):
    """Shapes of the arrays of one layer's adapter.

    Parameters
    ----------
    n_out, n_in : int, the shape of the layer's base weight
    r : int, the rank

    Returns
    -------
    dict: lora_A (r, in), lora_B (out, r)
    """
    return {"lora_A": (r, n_in), "lora_B": (n_out, r)}


def init(weight, config, rng):
    """Draw A at random and set B to zero, so ΔW = 0 and the untrained adapter does not change the model.

    If A were also zero, both gradients would stay zero, because dB is proportional to A and dA to B. So A or B must be
    nonzero; the paper sets B to zero.

    Parameters
    ----------
    weight : array (out, in), the layer's base weight
    config : AdapterConfig of this layer
    rng : np.random.Generator

    Returns
    -------
    dict: lora_A (r, in), lora_B (out, r), of the weight's dtype
    """
    shape = shapes(*weight.shape, config.r)
    if config.init == "gaussian":
        lora_A = rng.normal(0.0, 1.0 / config.r, shape["lora_A"])
    else:
        bound = 1.0 / math.sqrt(weight.shape[1])  # kaiming-uniform with a = √5: gain √(1/3), so ±√(3 · 1/3 / in)
        lora_A = rng.uniform(-bound, bound, shape["lora_A"])
    return {"lora_A": lora_A.astype(weight.dtype), "lora_B": np.zeros(shape["lora_B"], dtype=weight.dtype)}


def forward(x, weight, bias, adapter, config, wanted=("x", "lora_A", "lora_B"), mask=None):
    """The adapted layer's output.

    Parameters
    ----------
    x : array (..., in)
    weight : array (out, in), bias : array (out,) or None
    adapter : dict with lora_A (r, in) and lora_B (out, r)
    config : AdapterConfig of this layer
    wanted : names of the operands whose gradients the backward pass will compute: x, weight, bias, lora_A, lora_B
    mask : array of x's shape from `dropout_mask`, for the adapter's input; or None

    Returns
    -------
    y : array (..., out)
    cache : LoRACache
    """
    A, B, s = adapter["lora_A"], adapter["lora_B"], scaling(config)
    y, base = linear_forward(x, weight, bias, wanted)  # x Wᵀ + b  (..., out)
    z, update = low_rank_forward(x, A, s, B, operands_wanted(wanted, OPERANDS), mask)  # s (x Aᵀ) Bᵀ  (..., out)
    y += z
    return y, LoRACache(base, update)


def backward(dy, cache):
    """Gradients of the adapted layer.

    y is the sum of two products, so dy passes through both, and dx is the sum of the two gradients. With u = x Aᵀ (with
    a mask, x ⊙ mask replaces x in the second product):

        dB = s dyᵀ u            (out, r)
        du = s dy B             (..., r)
        dA = duᵀ x              (r, in)
        dx = dy W + du A        (..., in)

    `ops/linear.py` and `ops/low_rank.py` derive the gradients of the two products.

    Parameters
    ----------
    dy : array (..., out)
    cache : LoRACache

    Returns
    -------
    dx : array (..., in), or None if it is not wanted
    grads : dict with the wanted gradients of weight, bias, lora_A and lora_B
    """
    # y = x Wᵀ + b + s (x Aᵀ) Bᵀ
    dx_base, dW, db = linear_backward(dy, cache.base)
    dx_update, dA, _, dB = low_rank_backward(dy, cache.update)
    return add(dx_base, dx_update), present({"weight": dW, "bias": db, "lora_B": dB, "lora_A": dA})


def delta(weight, adapter, config):
    """The update ΔW = s B A, (out, in)."""
    return scaling(config) * (adapter["lora_B"] @ adapter["lora_A"])
