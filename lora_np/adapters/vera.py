"""VeRA on one linear layer: frozen random factors and two trained vectors (Kopiczko et al. 2024).

    y = x Wᵀ + b + λ_b ⊙ ((λ_d ⊙ (x Aᵀ)) Bᵀ)        ΔW = diag(λ_b) B diag(λ_d) A

All layers share one A (r, in) and one B (out, r) (section 3.1). If layers have different shapes, each uses as many of
A's columns and B's rows as it needs, as in PEFT. A and B are generated from a seed and not saved, so an adapter stores
only r + out values per layer. There is no α.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..ops.linear import LinearCache, linear_backward, linear_forward
from ..ops.low_rank import LowRankCache, low_rank_backward, low_rank_forward
from ..ops.scale import ScaleCache, scale_backward, scale_forward
from ..ops.wanted import add, operands_wanted, present

LAMBDAS = ("vera_lambda_d", "vera_lambda_b")
START_D = 0.1  # initial λ_d, as in PEFT; the paper tunes it. λ_b starts at zero
CACHED_PAIRS = 16  # pairs of random factors in memory; a model needs one pair for each distinct layer shape

# The operands of z = (λ_d ⊙ (x Aᵀ)) Bᵀ, and of λ_b ⊙ z, through which each wanted gradient passes.
OF_PRODUCT = {"x": "x", "vera_lambda_d": "e"}
OF_SCALING = {"x": "x", "vera_lambda_d": "x", "vera_lambda_b": "factor"}


class VeRACache(NamedTuple):
    """The values that the backward pass needs, except A and B, which are regenerated from the seed."""

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
    """λ_d = 0.1 and λ_b = 0, so ΔW = 0. rng is not used: the random factors come from config.projection_seed."""
    return {
        "vera_lambda_d": np.full(config.r, START_D, dtype=weight.dtype),
        "vera_lambda_b": np.zeros(weight.shape[0], dtype=weight.dtype),
    }


@lru_cache(maxsize=CACHED_PAIRS)
def projections(shape, r, seed, dtype):
    """The part of the shared random factors that a layer of this shape uses.

    The entries are Kaiming-uniform, in ±√(6/in) for A and ±√(6/r) for B. (In PEFT, A's bound uses the largest layer's
    `in`.) They are computed from the raw 64-bit words of PCG64, which never change between NumPy versions: word w of
    the stream seeded with [seed, 0] for A, or [seed, 1] for B, becomes (w >> 11) · 2⁻⁵³ in [0, 1). A is filled column
    by column and B row by row, so a smaller layer's factors are part of a larger layer's, apart from A's bound √(6/in).

    Parameters
    ----------
    shape : (out, in)
    r : int
    seed : int
    dtype : the dtype of the result

    Returns
    -------
    A : array (r, in), B : array (out, r); both read-only
    """
    n_out, n_in = shape

    def uniform(which, n, fan_in):
        words = np.random.PCG64([seed, which]).random_raw(n * r) >> np.uint64(11)
        return ((words * 2.0**-53 * 2.0 - 1.0) * math.sqrt(6.0 / fan_in)).reshape(n, r)

    A, B = uniform(0, n_in, n_in).T.astype(dtype, order="C"), uniform(1, n_out, r).astype(dtype)
    for factor in (A, B):
        factor.flags.writeable = False
    return A, B


def forward(x, weight, bias, adapter, config, wanted=("x", *LAMBDAS), mask=None):
    """Return the adapted layer's output (..., out) and its VeRACache; parameters as in `lora.forward`."""
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

    At the start, λ_b = 0, so dw and dλ_d are zero. The first step therefore changes only λ_b, and its dx is the same as
    without the adapter.

    Parameters and results as in `lora.backward`, with vera_lambda_d and vera_lambda_b in place of lora_A and lora_B.
    """
    A, B = projections(cache.shape, cache.r, cache.seed, dy.dtype)
    # y = x Wᵀ + b + λ_b ⊙ z
    dx_base, dW, db = linear_backward(dy, cache.base)
    dz, dlambda_b = scale_backward(dy, cache.scaling)
    # z = (λ_d ⊙ (x Aᵀ)) Bᵀ
    dx_update, _, dlambda_d, _ = low_rank_backward(dz, cache.product._replace(A=A, B=B))
    grads = {"weight": dW, "bias": db, "vera_lambda_b": dlambda_b, "vera_lambda_d": dlambda_d}
    return add(dx_base, dx_update), present(grads)


def delta(weight, adapter, config):
    """ΔW = diag(λ_b) B diag(λ_d) A, (out, in)."""
    A, B = projections(weight.shape, config.r, config.projection_seed, weight.dtype)
    return adapter["vera_lambda_b"][:, None] * (B @ (adapter["vera_lambda_d"][:, None] * A))
