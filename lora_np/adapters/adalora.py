"""AdaLoRA's layer: an update in the form of a singular value decomposition (Zhang et al. 2023, section 3.1).

    y = x Wᵀ + b + s ((x Aᵀ) ⊙ E) Bᵀ        ΔW = s B diag(E) A,   A (r, in),  E (r,),  B (out, r),  s = α/r

(In the paper, B, E and A are called P, Λ and Q.) E plays the role of the singular values. Setting an entry of E to zero
removes its direction until training makes the entry nonzero again; `adalora_allocation.py` decides which entries are
zero during training. If B's columns and A's rows are orthonormal, the singular values of ΔW are exactly |s E|. A
penalty in the loss encourages orthonormal columns and rows (equation 4); see `orthogonality`.
"""

from typing import NamedTuple

import numpy as np

from ..ops.linear import LinearCache, linear_backward, linear_forward
from ..ops.low_rank import LowRankCache, low_rank_backward, low_rank_forward
from ..ops.wanted import add, operands_wanted, present
from . import lora
from .config import scaling

START_SIZE = 0.02  # initial standard deviation of A and B, as in PEFT
NAMES = ("lora_A", "lora_E", "lora_B")

OPERANDS = {"x": "x", "lora_A": "A", "lora_E": "e", "lora_B": "B"}  # of the low-rank product


class AdaLoRACache(NamedTuple):
    base: LinearCache  # of x Wᵀ + b
    update: LowRankCache  # of the low-rank product; e = s E is not cached but recomputed
    s: float
    E: np.ndarray  # (r,)


def shapes(n_out, n_in, r):
    """Shapes of one layer's arrays: LoRA's two arrays, and lora_E (r,); see `lora.shapes`."""
    A, B = lora.shapes(n_out, n_in, r).values()
    return {"lora_A": A, "lora_E": (r,), "lora_B": B}


def init(weight, config, rng):
    """Draw A and B from a normal distribution and set E to zero, so ΔW = 0; parameters as in `lora.init`."""
    drawn = {name: rng.normal(0.0, START_SIZE, shape) for name, shape in shapes(*weight.shape, config.r).items()}
    drawn["lora_E"] = np.zeros(config.r)
    return {name: array.astype(weight.dtype) for name, array in drawn.items()}


def forward(x, weight, bias, adapter, config, wanted=("x", *NAMES), mask=None):
    """Return the adapted layer's output (..., out) and its AdaLoRACache; parameters as in `lora.forward`."""
    A, E, B, s = adapter["lora_A"], adapter["lora_E"], adapter["lora_B"], scaling(config)
    y, base = linear_forward(x, weight, bias, wanted)  # x Wᵀ + b  (..., out)
    z, update = low_rank_forward(x, A, s * E, B, operands_wanted(wanted, OPERANDS), mask)  # (..., out)
    y += z
    return y, AdaLoRACache(base, update._replace(e=None), s, E)


def backward(dy, cache):
    """Gradients of the adapted layer: those of `ops/low_rank.py` with e = s E, so dE = s de.

    Parameters and results as in `lora.backward`; grads may also contain lora_E (r,).
    """
    base, update, s, E = cache
    # y = x Wᵀ + b + ((x Aᵀ) ⊙ e) Bᵀ, e = s E
    dx_base, dW, db = linear_backward(dy, base)
    dx_update, dA, de, dB = low_rank_backward(dy, update._replace(e=s * E))
    dE = None if de is None else s * de  # (r,)
    return add(dx_base, dx_update), present({"weight": dW, "bias": db, "lora_B": dB, "lora_E": dE, "lora_A": dA})


def orthogonality(adapter):
    """The orthogonality penalty for one layer's factors, and its gradients (equation 4).

        R = ‖Bᵀ B − I‖² + ‖A Aᵀ − I‖²        Frobenius norms
        dB = 4 B (Bᵀ B − I),   dA = 4 (A Aᵀ − I) A

    because d‖M‖² = 2 tr(Mᵀ dM), and both terms of d(Bᵀ B) = dBᵀ B + Bᵀ dB contribute equally.

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
