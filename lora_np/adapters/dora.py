"""DoRA on one linear layer: magnitude and direction of each output's weights apart (Liu et al. 2024, section 4).

    V = W + s B A                      (out, in), the directions
    W′ = m ⊙ V / ‖V‖                   ‖V‖ (out,) the norms of V's rows, m (out,) their magnitudes, trained
    y = x W′ᵀ + b

W stands here as (out, in), so that a norm is of a row, one an output, as in the authors' program and in PEFT; the
paper writes W as (d, k), with norms by column. It starts with m = ‖W‖, so that W′ = W. As V is needed for its norms, x
goes through V itself: one product of full size, as in the base, with s B A added to the weight first.

The paper's section 4.3 holds ‖V‖ constant in the backward pass, which spares an autograd's graph much memory, and so
do PEFT and this file. By hand the exact gradient costs little, see `backward`; with `config.norm_gradient` it is
that one.
"""

from typing import NamedTuple

import numpy as np

from ..ops import dropout_backward, dropout_forward, linear_backward, linear_forward
from ..ops.dropout import DropoutCache
from ..ops.linear import LinearCache, as_rows
from . import lora
from .config import scaling
from .counting import linear_flops, linear_kept

MAGNITUDE = "lora_magnitude_vector"  # m, by the name that it has in PEFT's files
FACTORS = ("lora_A", "lora_B")


class DoRACache(NamedTuple):
    """What the backward pass needs; V is made anew there, which costs no product with the batch's rows."""

    x: np.ndarray | None  # (..., in) before dropout, read by dA and by dW
    su: np.ndarray | None  # (..., r), s x̃ Aᵀ, read by dB
    h: np.ndarray | None  # (..., out), x̃ Vᵀ, read by dm and by the norm's gradient
    weight: np.ndarray  # (out, in), as it was given
    adapter: dict  # its arrays
    inv_norm: np.ndarray | None  # (out,), 1/‖V‖
    scale: float
    dropout: DropoutCache
    norm_gradient: bool
    wanted: tuple[str, ...]


def shapes(n_out, n_in, r):
    """Shapes of one layer's arrays: LoRA's, and m (out,); see `lora.shapes`."""
    return {**lora.shapes(n_out, n_in, r), MAGNITUDE: (n_out,)}


def init(weight, config, rng):
    """LoRA's A and B, and m = ‖W‖, which makes W′ = W; parameters as in `lora.init`."""
    return {**lora.init(weight, config, rng), MAGNITUDE: row_norms(np.asarray(weight))}


def row_norms(V):
    """‖V‖ of each row, (out,); the same bits whatever V's memory order."""
    return np.sqrt(np.sum(np.multiply(V, V, order="C"), axis=1))


def directions(weight, adapter, scale):
    """V = W + s B A, (out, in)."""
    return np.asanyarray(weight) + scale * (adapter["lora_B"] @ adapter["lora_A"])


def over(numerator, norm):
    """m/‖V‖, or 1/‖V‖, and 0 for a row of zeros, which has no direction: it stays zero.

    m is divided by ‖V‖ and not multiplied by 1/‖V‖, so that it is 1 exactly at the start.
    """
    return np.divide(numerator, norm, out=np.zeros_like(norm), where=norm > 0)


def forward(x, weight, bias, adapter, config, wanted=("x", *FACTORS, MAGNITUDE), mask=None, norm=None):
    """The adapted layer's output.

    Dropout acts on what the adapter adds to the base, y = x Wᵀ + b + (x̃ W′ᵀ − x̃ Wᵀ) with x̃ = x ⊙ mask, as in
    PEFT; without a mask that is x W′ᵀ + b.

    Parameters
    ----------
    x, weight, bias, adapter, config, wanted, mask : see `lora.forward`
    norm : array (out,), to stand in the place of ‖V‖, or None. With it held, the paper's backward pass is the exact
        gradient, and can be checked as one.

    Returns
    -------
    y : array (..., out)
    cache : DoRACache
    """
    scale = scaling(config)
    V = directions(weight, adapter, scale)  # (out, in)
    norm = row_norms(V) if norm is None else norm  # (out,)
    dropped, dropout = dropout_forward(x, mask)  # (..., in)
    h, _ = linear_forward(dropped, V, None, ())  # (..., out)
    y = over(adapter[MAGNITUDE], norm) * h
    if bias is not None:
        y += bias
    if mask is not None:
        y += linear_forward(x - dropped, weight, None, ())[0]
    su = None
    if "lora_B" in wanted:
        su = scale * linear_forward(dropped, adapter["lora_A"], None, ())[0]  # (..., r)
    x_wanted = "lora_A" in wanted or "weight" in wanted
    h_wanted = MAGNITUDE in wanted or norm_wanted(config.norm_gradient, wanted)
    cache = DoRACache(
        x=x if x_wanted else None,
        su=su,
        h=h if h_wanted else None,
        weight=weight,
        adapter=adapter,
        inv_norm=over(1.0, norm) if wanted else None,
        scale=scale,
        dropout=dropout,
        norm_gradient=config.norm_gradient,
        wanted=tuple(wanted),
    )
    return y, cache


def norm_wanted(norm_gradient, wanted):
    """Whether a gradient passes through ‖V‖: A, B and W move it, x and m do not."""
    return norm_gradient and any(name in wanted for name in (*FACTORS, "weight"))


def backward(dy, cache):
    """Gradients of the adapted layer.

    Without dropout, h = x Vᵀ and y = (m/‖V‖) ⊙ h + b. With ‖V‖ held constant:

        dm = Σ_n dy ⊙ h / ‖V‖                   (out,)
        dh = (m/‖V‖) ⊙ dy                       (..., out)
        dx = dh V,   dV = dhᵀ x

    and V = W + s B A hands dV on as LoRA's gradients, dB = s dV Aᵀ = dhᵀ (s x Aᵀ) and
    dA = s Bᵀ dV = (s dh B)ᵀ x, for which dV itself need not be formed.

    The exact gradient (`norm_gradient`) has one term more, through ‖V‖: with a = Σ_n dy ⊙ h,

        ∂L/∂‖V‖ = − m a / ‖V‖²   and   ∂‖V‖/∂V = V / ‖V‖   so   dV += − (m a / ‖V‖³) ⊙ V

    which is of the weight's size and knows nothing of the batch's rows. It takes away the part of dV along each
    row: B A can turn a row of W′ and, but for m, cannot stretch it.

    With dropout y has the further term (x − x̃) Wᵀ, and x̃ = x ⊙ mask stands in place of x above.

    Parameters
    ----------
    dy : array (..., out)
    cache : DoRACache

    Returns
    -------
    dx : array (..., in) or None
    grads : dict with the wanted ones of weight, bias, lora_A, lora_B, lora_magnitude_vector
    """
    wanted, scale, mask = cache.wanted, cache.scale, cache.dropout.mask
    if not wanted:
        return None, {}
    A, B, m = (cache.adapter[name] for name in (*FACTORS, MAGNITUDE))
    V = directions(cache.weight, cache.adapter, scale)  # (out, in)
    dropped = None if cache.x is None else dropout_forward(cache.x, mask)[0]
    grads, dx = {}, None
    # y = (m/‖V‖) ⊙ h + b
    if "bias" in wanted:
        grads["bias"] = as_rows(dy).sum(axis=0)  # (out,)
    if cache.h is not None:
        a = np.sum(as_rows(dy) * as_rows(cache.h), axis=0)  # (out,)
        grads[MAGNITUDE] = a * cache.inv_norm
    dh = (m * cache.inv_norm) * dy  # (..., out)
    # h = x̃ Vᵀ
    asked = tuple(name for name in ("x", "weight") if name in wanted)
    through_V = linear_backward(dh, LinearCache(dropped, V, asked))
    if "weight" in wanted:
        grads["weight"] = through_V.dweight
    # V = W + s B A
    if "lora_B" in wanted:
        grads["lora_B"] = as_rows(dh).T @ as_rows(cache.su)  # (out, r)
    if "lora_A" in wanted:
        grads["lora_A"] = (scale * (as_rows(dh) @ B)).T @ as_rows(dropped)  # (r, in)
    if norm_wanted(cache.norm_gradient, wanted):
        # W′ = m ⊙ V / ‖V‖, through ‖V‖
        dV = (-m * a * cache.inv_norm**3)[:, None] * V  # (out, in)
        if "lora_B" in wanted:
            grads["lora_B"] += scale * (dV @ A.T)
        if "lora_A" in wanted:
            grads["lora_A"] += scale * (B.T @ dV)
        if "weight" in wanted:
            grads["weight"] += dV
    if "x" in wanted:
        dx = dropout_backward(through_V.dx, cache.dropout).dx
    if mask is not None and asked:
        # y += (x − x̃) Wᵀ
        left = None if dropped is None else cache.x - dropped
        through_base = linear_backward(dy, LinearCache(left, cache.weight, asked))
        if "x" in wanted:
            dx = dx + (through_base.dx - dropout_backward(through_base.dx, cache.dropout).dx)
        if "weight" in wanted:
            grads["weight"] += through_base.dweight
    return dx, {name: grads[name] for name in grads if name in wanted}


def delta(weight, adapter, config):
    """ΔW = m ⊙ V / ‖V‖ − W, (out, in); it depends on W, unlike LoRA's."""
    W = np.asarray(weight)
    V = directions(W, adapter, scaling(config))
    return over(adapter[MAGNITUDE], row_norms(V))[:, None] * V - W


def flops(name, rows, shape, config, wanted, masked=False):
    """FLOPs of one layer's step by term; see `lora.flops`.

    V = W + s B A is made in both passes, out · r · in multiply-adds each time, whatever the number of rows.
    """
    n_out, n_in = shape
    r, asked = config.r, tuple(n for n in ("x", "weight") if n in wanted)
    made = 2 * n_out * r * n_in
    terms = linear_flops(name, rows, shape, asked) | {f"{name}.directions.forward": made}
    if wanted:
        terms[f"{name}.directions.dx"] = made
    if masked:
        terms |= linear_flops(f"{name}.left_out", rows, shape, asked)
    if "lora_B" in wanted:
        terms |= {f"{name}.lora_A.forward": 2 * rows * r * n_in, f"{name}.lora_B.dweight": 2 * rows * n_out * r}
    if "lora_A" in wanted:
        terms |= {f"{name}.lora_B.dx": 2 * rows * n_out * r, f"{name}.lora_A.dweight": 2 * rows * r * n_in}
    if norm_wanted(config.norm_gradient, wanted):
        terms |= {f"{name}.norm.{factor}": made for factor in FACTORS if factor in wanted}
    return terms


def kept(name, x, rows, shape, config, wanted, array):
    """Bytes that the cache holds: x, s u, h and the norms; see `lora.kept`."""
    n_out = shape[0]
    held = linear_kept(x, ("weight",) * ("lora_A" in wanted or "weight" in wanted))
    if "lora_B" in wanted:
        held = held | array(f"{name}.lora_A", rows, config.r)
    if MAGNITUDE in wanted or norm_wanted(config.norm_gradient, wanted):
        held = held | array(f"{name}.h", rows, n_out)
    return held | (array(f"{name}.inv_norm", n_out) if wanted else {})
