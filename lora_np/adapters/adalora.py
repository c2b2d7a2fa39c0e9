"""AdaLoRA's layer: an update in the form of a singular value decomposition (Zhang et al. 2023, section 3.1).

    y = x Wᵀ + b + s ((x Aᵀ) ⊙ E) Bᵀ        ΔW = s B diag(E) A,   A (r, in),  E (r,),  B (out, r),  s = α/r

(The paper's P, Λ and Q are B, E and A.) E stands for singular values: one that is set to zero takes its direction
out, and may come back. Which are, `training/rank_allocation.py` decides while training goes on. For E to be the
singular values, B's columns and A's rows should be orthonormal, to which the loss's further term draws them
(equation 4), see `orthogonality`.
"""

from typing import NamedTuple

import numpy as np

from ..ops import dropout_backward, dropout_forward, linear_backward, linear_forward
from ..ops.dropout import DropoutCache
from ..ops.linear import LinearCache, as_rows
from . import lora
from .config import scaling
from .counting import linear_flops, linear_kept

START_SIZE = 0.02  # standard deviation of A and B at the start, as in PEFT
NAMES = ("lora_A", "lora_E", "lora_B")


class AdaLoRACache(NamedTuple):
    base: LinearCache  # of x Wᵀ + b
    x: np.ndarray | None  # (..., in) before dropout, read by dA
    u: np.ndarray | None  # (..., r), x̃ Aᵀ, read by dE and by dB
    adapter: dict  # its arrays
    scale: float
    dropout: DropoutCache
    wanted: tuple[str, ...]


def shapes(n_out, n_in, r):
    """Shapes of one layer's arrays: LoRA's, and lora_E (r,) between them; see `lora.shapes`."""
    A, B = lora.shapes(n_out, n_in, r).values()
    return {"lora_A": A, "lora_E": (r,), "lora_B": B}


def init(weight, config, rng):
    """A and B normal, E zero, so that ΔW = 0; parameters as in `lora.init`."""
    drawn = {name: rng.normal(0.0, START_SIZE, shape) for name, shape in shapes(*weight.shape, config.r).items()}
    drawn["lora_E"] = np.zeros(config.r)
    return {name: array.astype(weight.dtype) for name, array in drawn.items()}


def forward(x, weight, bias, adapter, config, wanted=("x", *NAMES), mask=None):
    """The adapted layer's output; parameters as in `lora.forward`.

    Returns
    -------
    y : array (..., out)
    cache : AdaLoRACache
    """
    scale = scaling(config)
    y, base = linear_forward(x, weight, bias, [n for n in ("x", "weight", "bias") if n in wanted])  # (..., out)
    dropped, dropout = dropout_forward(x, mask)  # (..., in)
    u, _ = linear_forward(dropped, adapter["lora_A"], None, ())  # (..., r)
    y += linear_forward((scale * adapter["lora_E"]) * u, adapter["lora_B"], None, ())[0]
    cache = AdaLoRACache(
        base=base,
        x=x if "lora_A" in wanted else None,
        u=u if "lora_E" in wanted or "lora_B" in wanted else None,
        adapter=adapter,
        scale=scale,
        dropout=dropout,
        wanted=tuple(wanted),
    )
    return y, cache


def backward(dy, cache):
    """Gradients of the adapted layer.

    With u = x̃ Aᵀ, w = s E ⊙ u and y = x Wᵀ + b + w Bᵀ:

        dB = dyᵀ w                        (out, r)
        dw = dy B                         (..., r)
        dE = s Σ_n dw ⊙ u                 (r,)
        du = s E ⊙ dw                     (..., r)
        dA = duᵀ x̃                        (r, in)
        dx = dy W + (du A) ⊙ mask         (..., in)

    Parameters
    ----------
    dy : array (..., out)
    cache : AdaLoRACache

    Returns
    -------
    dx : array (..., in) or None
    grads : dict with the wanted ones of weight, bias, lora_A, lora_E, lora_B
    """
    wanted, scaled_E = cache.wanted, cache.scale * cache.adapter["lora_E"]  # (r,)
    # y = x Wᵀ + b + w Bᵀ
    through_base = linear_backward(dy, cache.base)
    grads, dx = {"weight": through_base.dweight, "bias": through_base.dbias}, through_base.dx
    w = scaled_E * cache.u if "lora_B" in wanted else None  # (..., r)
    dw_wanted = any(name in wanted for name in ("x", "lora_A", "lora_E"))
    asked = ("x",) * dw_wanted + ("weight",) * ("lora_B" in wanted)
    through_w = linear_backward(dy, LinearCache(w, cache.adapter["lora_B"], asked))
    grads["lora_B"] = through_w.dweight
    # w = s E ⊙ u
    if "lora_E" in wanted:
        grads["lora_E"] = cache.scale * np.sum(as_rows(through_w.dx) * as_rows(cache.u), axis=0)  # (r,)
    if "x" in wanted or "lora_A" in wanted:
        du = scaled_E * through_w.dx  # (..., r)
        # u = x̃ Aᵀ
        dropped = None if cache.x is None else dropout_forward(cache.x, cache.dropout.mask)[0]
        asked = ("x",) * ("x" in wanted) + ("weight",) * ("lora_A" in wanted)
        through_u = linear_backward(du, LinearCache(dropped, cache.adapter["lora_A"], asked))
        grads["lora_A"] = through_u.dweight
        if "x" in wanted:
            dx = dx + dropout_backward(through_u.dx, cache.dropout).dx
    return dx, {name: grads[name] for name in grads if name in wanted}


def orthogonality(adapter):
    """How far one layer's factors are from orthonormal, and the gradients of that (equation 4).

        R = ‖Bᵀ B − I‖² + ‖A Aᵀ − I‖²        Frobenius norms
        dB = 4 B (Bᵀ B − I),   dA = 4 (A Aᵀ − I) A

    as d‖M‖² = 2 tr(Mᵀ dM), and d(Bᵀ B) = dBᵀ B + Bᵀ dB, whose two terms give the same.

    Parameters
    ----------
    adapter : dict with lora_A (r, in) and lora_B (out, r)

    Returns
    -------
    R : float
    grads : dict with lora_A and lora_B
    """
    A, B = adapter["lora_A"], adapter["lora_B"]
    of_A, of_B = A @ A.T - np.eye(len(A), dtype=A.dtype), B.T @ B - np.eye(len(A), dtype=A.dtype)  # (r, r)
    return float(np.sum(of_A**2) + np.sum(of_B**2)), {"lora_A": 4.0 * (of_A @ A), "lora_B": 4.0 * (B @ of_B)}


def delta(weight, adapter, config):
    """ΔW = s B diag(E) A, (out, in)."""
    return scaling(config) * (adapter["lora_B"] @ (adapter["lora_E"][:, None] * adapter["lora_A"]))


def flops(name, rows, shape, config, wanted, masked=False):
    """FLOPs of one layer's step by term: x Wᵀ, u = x Aᵀ and w Bᵀ; see `lora.flops`."""
    n_out, n_in = shape
    dw = ("x",) * any(n in wanted for n in ("x", "lora_A", "lora_E"))
    down = ("x",) * ("x" in wanted) + ("weight",) * ("lora_A" in wanted)
    return {
        **linear_flops(name, rows, shape, wanted),
        **linear_flops(f"{name}.lora_A", rows, (config.r, n_in), down),
        **linear_flops(f"{name}.lora_B", rows, (n_out, config.r), dw + ("weight",) * ("lora_B" in wanted)),
    }


def kept(name, x, rows, shape, config, wanted, array):
    """Bytes that the cache holds: x for dW and dA, u for dE and dB; see `lora.kept`."""
    held = linear_kept(x, wanted) | linear_kept(x, ("weight",) * ("lora_A" in wanted))
    return held | (array(f"{name}.lora_A", rows, config.r) if "lora_E" in wanted or "lora_B" in wanted else {})
