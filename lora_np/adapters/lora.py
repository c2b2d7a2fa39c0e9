"""LoRA on one linear layer (Hu et al. 2021, section 4.1, equation 3).

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ        A (r, in),  B (out, r),  s = α/r

The update ΔW = s B A has at most rank r. It is never formed in training: x passes through r
numbers, which costs r (in + out) products a row in place of in · out.
"""

import math
from typing import NamedTuple

import numpy as np

from ..ops import add, linear_backward, linear_forward, low_rank_backward, low_rank_forward, operands_wanted, present
from ..ops.linear import LinearCache
from ..ops.low_rank import LowRankCache
from .config import scaling

OPERANDS = {"x": "x", "lora_A": "A", "lora_B": "B"}  # of the low-rank product


class LoRACache(NamedTuple):
    base: LinearCache  # of x Wᵀ + b; with W frozen it holds W for dx and no activation
    update: LowRankCache  # of s (x Aᵀ) Bᵀ


def shapes(n_out, n_in, r):
    """Shapes of the arrays of one layer's adapter.

    Parameters
    ----------
    n_out, n_in : int, of the layer's base weight
    r : int

    Returns
    -------
    dict: lora_A (r, in), lora_B (out, r)
    """
    return {"lora_A": (r, n_in), "lora_B": (n_out, r)}


def init(weight, config, rng):
    """A random, B zero: ΔW = 0, so the adapted model starts as the base.

    If A were zero as well, both gradients would stay zero: dB ∝ A and dA ∝ B. One of the two must
    be random; the paper chooses B as the one at zero.

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
    if config.init == "kaiming":
        bound = 1.0 / math.sqrt(weight.shape[1])  # kaiming-uniform with a = √5: gain √(1/3), so ±√(3 · 1/3 / in)
        lora_A = rng.uniform(-bound, bound, shape["lora_A"])
    else:
        lora_A = rng.normal(0.0, 1.0 / config.r, shape["lora_A"])
    return {
        "lora_A": lora_A.astype(weight.dtype),
        "lora_B": np.zeros(shape["lora_B"], dtype=weight.dtype),
    }


def forward(x, weight, bias, adapter, config, wanted=("x", "lora_A", "lora_B"), mask=None):
    """The adapted layer's output.

    Parameters
    ----------
    x : array (..., in)
    weight : array (out, in), bias : array (out,) or None
    adapter : dict with lora_A (r, in) and lora_B (out, r)
    config : AdapterConfig of this layer
    wanted : names of the operands whose gradient will be asked for, among x, weight, bias, lora_A, lora_B
    mask : array of x's shape from `dropout_mask`, on the adapter's input; or None

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

    y is the sum of two products, so dy goes through both, and x gets the sum of what comes back. With u = x Aᵀ
    (and x ⊙ mask in place of x in the second product, where there is a mask):

        dB = s dyᵀ u            (out, r)
        du = s dy B             (..., r)
        dA = duᵀ x              (r, in)
        dx = dy W + du A        (..., in)

    `ops/linear.py` and `ops/low_rank.py` derive the two.

    Parameters
    ----------
    dy : array (..., out)
    cache : LoRACache

    Returns
    -------
    dx : array (..., in), or None where it was not wanted
    grads : dict with the wanted ones of weight, bias, lora_A, lora_B
    """
    # y = x Wᵀ + b + s (x Aᵀ) Bᵀ
    through_base = linear_backward(dy, cache.base)
    through_update = low_rank_backward(dy, cache.update)
    grads = {
        "weight": through_base.dweight,
        "bias": through_base.dbias,
        "lora_B": through_update.dB,
        "lora_A": through_update.dA,
    }
    return add(through_base.dx, through_update.dx), present(grads)


def delta(weight, adapter, config):
    """ΔW = s B A, the change of the weight that the adapter stands for, (out, in)."""
    return scaling(config) * (adapter["lora_B"] @ adapter["lora_A"])
