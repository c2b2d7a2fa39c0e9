"""DoRA on one linear layer: a magnitude and a direction for each output's weights (Liu et al. 2024, section 4).

    V = W + s B A                      (out, in), the directions
    W′ = m ⊙ V / ‖V‖                   ‖V‖ (out,) are the norms of V's rows; m (out,) are the trained magnitudes
    y = x W′ᵀ + b

W is (out, in) here, so the norms are those of its rows, one per output, as in the authors' code and in PEFT. In the
paper, W is (d, k), and the norms are those of its columns. Training starts with m = ‖W‖, so W′ = W. V has to
be computed anyway, for its norms, so x is multiplied by V directly: one full-size product, as in the base.

The paper (section 4.3) treats ‖V‖ as a constant in the backward pass, which saves a lot of memory with autograd. PEFT
and this file do the same. In a hand-written backward pass, the exact gradient costs little; `config.norm_gradient`
selects it, and the docstring of `backward` derives it.
"""

from typing import NamedTuple

import numpy as np

from ..ops.dropout import dropout_forward
from ..ops.linear import LinearCache, linear_backward, linear_forward
from ..ops.low_rank import LowRankCache, low_rank_backward, low_rank_cache, low_rank_weight_backward
from ..ops.scale import ScaleCache, scale_backward, scale_forward
from ..ops.wanted import add, operands_wanted, present
from . import lora
from .config import scaling

MAGNITUDE = "lora_magnitude_vector"  # m, under its name in PEFT's files
FACTORS = ("lora_A", "lora_B")

# The operands of h = x̃ Vᵀ, and of g ⊙ h with g = m/‖V‖, through which each wanted gradient passes.
OF_PRODUCT = {"x": "x", "weight": "weight"}
OF_FACTORS = {"lora_A": "A", "lora_B": "B"}
OF_STRETCH = {"x": "x", "weight": "x", "lora_A": "x", "lora_B": "x", MAGNITUDE: "factor"}
OF_STRETCH_AND_NORM = {**OF_STRETCH, "weight": "x factor", "lora_A": "x factor", "lora_B": "x factor"}


class DoRACache(NamedTuple):
    """The values that the backward pass needs, except V, which is recomputed from the weights."""

    product: LinearCache  # of h = x̃ Vᵀ, without V; its x is the layer's input before dropout
    factors: LowRankCache  # for the gradients of A and B
    stretch: ScaleCache  # of g ⊙ h, without g
    weight: np.ndarray  # (out, in), the base's weight, not converted to an array
    adapter: dict  # the adapter's arrays
    inv_norm: np.ndarray | None  # (out,), 1/‖V‖; None if no gradient is wanted
    norm_gradient: bool
    wanted: tuple[str, ...]


def shapes(n_out, n_in, r):
    """Shapes of one layer's arrays: LoRA's arrays, and m (out,); see `lora.shapes`."""
    return {**lora.shapes(n_out, n_in, r), MAGNITUDE: (n_out,)}


def init(weight, config, rng):
    """LoRA's A and B, and m = ‖W‖, so W′ = W; parameters as in `lora.init`."""
    return {**lora.init(weight, config, rng), MAGNITUDE: row_norms(np.asarray(weight))}


def row_norms(V):
    """The norm of each row of V, (out,); bit-identical whatever the memory order of V."""
    return np.sqrt(np.sum(np.multiply(V, V, order="C"), axis=1))


def directions(weight, adapter, scale):
    """V = W + s B A, (out, in)."""
    return np.asanyarray(weight) + scale * (adapter["lora_B"] @ adapter["lora_A"])


def over(numerator, norm):
    """m/‖V‖ or 1/‖V‖; 0 for a row of zeros, which has no direction and remains zero.

    m is divided by ‖V‖ instead of multiplied by 1/‖V‖, so that the result is exactly 1 at the start of training.
    """
    return np.divide(numerator, norm, out=np.zeros_like(norm), where=norm > 0)


def forward(x, weight, bias, adapter, config, wanted=("x", *FACTORS, MAGNITUDE), mask=None, norm=None):
    """The adapted layer's output.

    As in PEFT, dropout acts on the adapter's contribution: y = x Wᵀ + b + (x̃ W′ᵀ − x̃ Wᵀ) with x̃ = x ⊙ mask. Without
    a mask, this is x W′ᵀ + b.

    Parameters
    ----------
    x, weight, bias, adapter, config, wanted, mask : see `lora.forward`
    norm : array (out,) used as a constant instead of ‖V‖, or None. If the norm is held constant, the paper's gradient
        is exact and can be checked against finite differences.

    Returns
    -------
    y : array (..., out)
    cache : DoRACache
    """
    A, B, s = adapter["lora_A"], adapter["lora_B"], scaling(config)
    V = directions(weight, adapter, s)  # (out, in)
    norm = row_norms(V) if norm is None else norm  # (out,)
    dropped = dropout_forward(x, mask)[0]  # x̃ (..., in)
    h, product = linear_forward(dropped, V, None, operands_wanted(wanted, OF_PRODUCT))  # (..., out)
    of_stretch = operands_wanted(wanted, OF_STRETCH_AND_NORM if config.norm_gradient else OF_STRETCH)
    y, stretch = scale_forward(h, over(adapter[MAGNITUDE], norm), of_stretch)  # (..., out)
    if bias is not None:
        y += bias
    if mask is not None:
        y += linear_forward(x - dropped, weight, None, ())[0]
    cache = DoRACache(
        product=product._replace(x=None if product.x is None else x, weight=None),
        factors=low_rank_cache(x, A, s, B, operands_wanted(wanted, OF_FACTORS), mask),
        stretch=stretch._replace(factor=None),
        weight=weight,
        adapter=adapter,
        inv_norm=over(1.0, norm) if wanted else None,
        norm_gradient=config.norm_gradient,
        wanted=tuple(wanted),
    )
    return y, cache


def backward(dy, cache):
    """Gradients of the adapted layer.

    Without dropout, h = x Vᵀ and y = (m/‖V‖) ⊙ h + b. With ‖V‖ treated as a constant:

        dm = Σ_n dy ⊙ h / ‖V‖                   (out,)
        dh = (m/‖V‖) ⊙ dy                       (..., out)
        dx = dh V,   dV = dhᵀ x

    V = W + s B A gives LoRA's gradients, dB = s dV Aᵀ = dhᵀ (s x Aᵀ) and dA = s Bᵀ dV = (s dh B)ᵀ x, which can be
    computed without dV.

    The exact gradient (`norm_gradient`) has an additional term, through ‖V‖: with a = Σ_n dy ⊙ h,

        ∂L/∂‖V‖ = − m a / ‖V‖²   and   ∂‖V‖/∂V = V / ‖V‖   so   dV += − (m a / ‖V‖³) ⊙ V

    The gradient term through ‖V‖ has the weight's shape, and computing it requires no matrix product over the batch. It
    removes the component of dV along each row of V: B A can rotate a row of W′, but only m can change its length.

    With dropout, x̃ = x ⊙ mask replaces x above, and y has the additional term (x − x̃) Wᵀ.

    Parameters and results as in `lora.backward`; grads may also contain lora_magnitude_vector (out,).
    """
    product, factors, stretch, weight, adapter, inv_norm, norm_gradient, wanted = cache
    if not wanted:
        return None, {}
    m, mask, x = adapter[MAGNITUDE], factors.mask, product.x
    V = directions(weight, adapter, factors.e)  # (out, in)
    # y = (m/‖V‖) ⊙ h + b
    dbias = dy.reshape(-1, len(m)).sum(axis=0) if "bias" in wanted else None  # (out,)
    dh, a = scale_backward(dy, stretch._replace(factor=m * inv_norm))  # (..., out), (out,)
    # h = x̃ Vᵀ
    dropped = None if x is None else dropout_forward(x, mask)[0]
    dx, dweight, _ = linear_backward(dh, product._replace(x=dropped, weight=V))
    # V = W + s B A
    _, dA, _, dB = low_rank_backward(dh, factors)
    if norm_gradient and a is not None:
        # through ‖V‖
        dV = (-m * a * inv_norm**3)[:, None] * V  # (out, in)
        through_norm = low_rank_weight_backward(dV, factors)
        dweight, dA, dB = add(dweight, dV), add(dA, through_norm.dA), add(dB, through_norm.dB)
    if mask is not None:
        # y += (x − x̃) Wᵀ
        left_out = None if x is None else x - dropped
        through_base = linear_backward(dy, product._replace(x=left_out, weight=weight))
        dweight = add(dweight, through_base.dweight)
        if dx is not None:
            dx = dx * mask + (through_base.dx - through_base.dx * mask)
    # m/‖V‖
    dm = a * inv_norm if MAGNITUDE in wanted else None  # (out,)
    return dx, present({"bias": dbias, MAGNITUDE: dm, "weight": dweight, "lora_B": dB, "lora_A": dA})


def delta(weight, adapter, config):
    """ΔW = m ⊙ V / ‖V‖ − W, (out, in). Unlike LoRA's update, DoRA's depends on W."""
    W = np.asarray(weight)
    V = directions(W, adapter, scaling(config))
    return over(adapter[MAGNITUDE], row_norms(V))[:, None] * V - W
