"""VeRA on one linear layer: random factors that nobody trains, and two trained vectors (Kopiczko et al. 2024).

    y = x Wᵀ + b + λ_b ⊙ ((λ_d ⊙ (x Aᵀ)) Bᵀ)        ΔW = diag(λ_b) B diag(λ_d) A

A (r, in) and B (out, r) are one pair for all layers (section 3.1); where layers have several shapes, each takes as
many of A's columns and of B's rows as it has room for, which is PEFT's way. They come from a seed and stand in no
file: an adapter is r + out numbers a layer. There is no α.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..ops import (
    add,
    linear_backward,
    linear_forward,
    low_rank_backward,
    low_rank_forward,
    operands_wanted,
    present,
    scale_backward,
    scale_forward,
)
from ..ops.linear import LinearCache
from ..ops.low_rank import LowRankCache
from ..ops.scale import ScaleCache

LAMBDAS = ("vera_lambda_d", "vera_lambda_b")
START_D = 0.1  # λ_d at the start, which the paper leaves to be tuned and PEFT sets so; λ_b starts at zero
PAIRS_HELD = 16  # random factors that stay in memory; a model needs a pair for each shape of its layers


# The operands of w = (λ_d ⊙ (x Aᵀ)) Bᵀ and of λ_b ⊙ w that each gradient passes through.
OF_PRODUCT = {"x": "x", "vera_lambda_d": "e"}
OF_SCALING = {"x": "x", "vera_lambda_d": "x", "vera_lambda_b": "factor"}


class VeRACache(NamedTuple):
    """What the backward pass needs; A and B come from their seed again."""

    base: LinearCache  # of x Wᵀ + b
    product: LowRankCache  # of z = (λ_d ⊙ (x Aᵀ)) Bᵀ, without A and B
    scaling: ScaleCache  # of λ_b ⊙ z
    shape: tuple[int, int]  # of the weight
    r: int
    seed: int


def shapes(n_out, n_in, r):
    """Shapes of one layer's arrays: vera_lambda_d (r,), vera_lambda_b (out,); see `lora.shapes`."""
    return {"vera_lambda_d": (r,), "vera_lambda_b": (n_out,)}


def init(weight, config, rng):
    """λ_d = 0.1 and λ_b = 0, so that ΔW = 0; the random factors are drawn from config.projection_seed, not rng."""
    shape = shapes(*weight.shape, config.r)
    return {
        "vera_lambda_d": np.full(shape["vera_lambda_d"], START_D, dtype=weight.dtype),
        "vera_lambda_b": np.zeros(shape["vera_lambda_b"], dtype=weight.dtype),
    }


def projections(shape, r, seed, dtype):
    """The shared random factors, as far as a layer of this shape reaches into them.

    The numbers are Kaiming-uniform, in ±√(6/in) for A and ±√(6/r) for B. (PEFT's A has the largest layer's `in`
    in that root for all layers.) They follow from the raw 64-bit words of PCG64, which are fixed for all time: word w
    of the stream of [seed, 0] for A, [seed, 1] for B, becomes (w >> 11) · 2⁻⁵³ in [0, 1). A is filled column by
    column and B row by row, so that a smaller layer's factors are, but for that root, part of a larger one's.

    Parameters
    ----------
    shape : (out, in)
    r : int
    seed : int
    dtype : of the result

    Returns
    -------
    A : array (r, in), B : array (out, r); read only
    """
    return cached_projections(tuple(shape), r, seed, np.dtype(dtype).name)


@lru_cache(maxsize=PAIRS_HELD)
def cached_projections(shape, r, seed, dtype):
    n_out, n_in = shape

    def uniform(which, n, fan_in):
        words = np.random.PCG64([seed, which]).random_raw(n * r) >> np.uint64(11)
        return ((words * 2.0**-53 * 2.0 - 1.0) * math.sqrt(6.0 / fan_in)).reshape(n, r)

    A, B = uniform(0, n_in, n_in).T.astype(dtype, order="C"), uniform(1, n_out, r).astype(dtype)
    for factor in (A, B):
        factor.flags.writeable = False
    return A, B


def forward(x, weight, bias, adapter, config, wanted=("x", *LAMBDAS), mask=None):
    """The adapted layer's output; parameters as in `lora.forward`.

    Returns
    -------
    y : array (..., out)
    cache : VeRACache
    """
    A, B = projections(weight.shape, config.r, config.projection_seed, weight.dtype)
    lambda_d, lambda_b = adapter["vera_lambda_d"], adapter["vera_lambda_b"]
    y, base = linear_forward(x, weight, bias, wanted)  # (..., out)
    z, product = low_rank_forward(x, A, lambda_d, B, operands_wanted(wanted, OF_PRODUCT), mask)  # (..., out)
    scaled, scaling = scale_forward(z, lambda_b, operands_wanted(wanted, OF_SCALING))  # (..., out)
    y += scaled
    product = product._replace(A=None, B=None)
    return y, VeRACache(base, product, scaling, weight.shape, config.r, config.projection_seed)


def backward(dy, cache):
    """Gradients of the adapted layer.

    With v = x Aᵀ, z = (λ_d ⊙ v) Bᵀ and y = x Wᵀ + b + λ_b ⊙ z:

        dλ_b = Σ_n dy ⊙ z                       (out,)
        dw   = (λ_b ⊙ dy) B                     (..., r), the gradient of w = λ_d ⊙ v
        dλ_d = Σ_n dw ⊙ v                       (r,)
        dx   = dy W + (λ_d ⊙ dw) A              (..., in)

    At λ_b = 0 the last two are those of the base: in the first step λ_b alone moves.

    Parameters
    ----------
    dy : array (..., out)
    cache : VeRACache

    Returns
    -------
    dx : array (..., in), or None where it was not wanted
    grads : dict with the wanted ones of weight, bias, vera_lambda_d, vera_lambda_b
    """
    A, B = projections(cache.shape, cache.r, cache.seed, dy.dtype)
    # y = x Wᵀ + b + λ_b ⊙ z
    through_base = linear_backward(dy, cache.base)
    dz, dlambda_b = scale_backward(dy, cache.scaling)
    # z = (λ_d ⊙ (x Aᵀ)) Bᵀ
    through_product = low_rank_backward(dz, cache.product._replace(A=A, B=B))
    grads = {
        "weight": through_base.dweight,
        "bias": through_base.dbias,
        "vera_lambda_b": dlambda_b,
        "vera_lambda_d": through_product.de,
    }
    return add(through_base.dx, through_product.dx), present(grads)


def delta(weight, adapter, config):
    """ΔW = diag(λ_b) B diag(λ_d) A, (out, in)."""
    A, B = projections(weight.shape, config.r, config.projection_seed, weight.dtype)
    return adapter["vera_lambda_b"][:, None] * (B @ (adapter["vera_lambda_d"][:, None] * A))
