"""QA-LoRA on one linear layer: an update that merges into 4-bit weights without changing their codes (Xu et al. 2023).

    y = x Wᵀ + b + s L (p Aᵀ) Bᵀ        A (r, L),  B (out, r),  s = α/r
    p_j = mean of the g inputs of block j        L = in/g blocks

Because of the pooling, the adapter treats all inputs of a block alike, so ΔW has one value for each output and block:
row i has the value s (L/g) (B A)_ij at all g inputs of block j. The rank of ΔW is at most min(r, L). llama.cpp's Q4_1
stores a block of 32 weights as d q + m. The update changes only m, and `merge_in_format` adds it to m (section 3.3 of
the paper, which uses GPTQ's zero points instead of m).

g is the largest power of two, at most 32, that divides `in`. As in PEFT, the mean is multiplied by the number of blocks
L. The paper's algorithm 1 multiplies it by g instead, which turns it into a sum; this is equivalent to a different α.
The factor changes the effective learning rate. A is initialised for L inputs, not for `in`, so the same change in B
changes the weights L/√g times as much as in LoRA (3.2 times for in = 576). With the paper's factor g, the same change
in B changes the weights √g times as much as in LoRA (5.7 times for g = 32).
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..compress import BLOCK
from ..ops.dropout import DropoutCache, dropout_backward, dropout_forward
from ..ops.linear import LinearCache, linear_backward, linear_forward
from ..ops.low_rank import LowRankCache, low_rank_backward, low_rank_forward
from ..ops.wanted import add, operands_wanted, present
from . import lora
from .config import scaling


class QALoRACache(NamedTuple):
    base: LinearCache  # of x Wᵀ + b
    update: LowRankCache  # of s L (p Aᵀ) Bᵀ; contains p, which is g times smaller than x
    dropout: DropoutCache  # of x̃ = x ⊙ mask, before the pooling
    g: int  # number of inputs in a block


def shapes(n_out, n_in, r):
    """Shapes of one layer's arrays: lora_A (r, L), lora_B (out, r); see `lora.shapes`."""
    return lora.shapes(n_out, n_in // math.gcd(n_in, BLOCK), r)


def init(weight, config, rng):
    """LoRA's A and B for a layer with L inputs, as in PEFT, so A ~ U(±1/√L) and ΔW = 0; see `lora.init`."""
    A, _ = shapes(*weight.shape, config.r).values()
    return lora.init(np.empty((weight.shape[0], A[1]), weight.dtype), config, rng)


def pool(x, g):
    """The mean of each block of g inputs: (..., in) -> (..., L)."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // g, g).mean(axis=-1)


def pool_backward(dp, g):
    """The gradient of `pool`'s input, (..., L) -> (..., in): dp/g, because each input has weight 1/g in the mean p."""
    shares = np.ones(g, dp.dtype) / g
    return (dp[..., None] * shares).reshape(*dp.shape[:-1], dp.shape[-1] * g)


def forward(x, weight, bias, adapter, config, wanted=("x", "lora_A", "lora_B"), mask=None):
    """Return the adapted layer's output (..., out) and its QALoRACache; parameters as in `lora.forward`.

    As in PEFT, the mask is applied to the inputs before they are pooled.
    """
    A, B = adapter["lora_A"], adapter["lora_B"]
    L = A.shape[1]
    g = x.shape[-1] // L
    y, base = linear_forward(x, weight, bias, wanted)  # x Wᵀ + b  (..., out)
    dropped, dropout = dropout_forward(x, mask)  # x̃  (..., in)
    p = pool(dropped, g)  # (..., L)
    z, update = low_rank_forward(p, A, scaling(config) * L, B, operands_wanted(wanted, lora.OPERANDS))  # (..., out)
    y += z
    return y, QALoRACache(base, update, dropout, g)


def backward(dy, cache):
    """Gradients of the adapted layer: those of LoRA for the pooled inputs p, passed back through the pooling to x.
    With u = p Aᵀ:

        dB = s L dyᵀ u                    (out, r)
        du = s L dy B                     (..., r)
        dA = duᵀ p                        (r, L)
        dp = du A                         (..., L)
        dx̃ = dp_j / g in block j          (..., in)
        dx = dy W + dx̃ ⊙ mask             (..., in)

    Parameters and results as in `lora.backward`.
    """
    # y = x Wᵀ + b + s L (p Aᵀ) Bᵀ
    dx_base, dW, db = linear_backward(dy, cache.base)
    dp, dA, _, dB = low_rank_backward(dy, cache.update)
    # p = pool(x ⊙ mask)
    dx_update = None if dp is None else dropout_backward(pool_backward(dp, cache.g), cache.dropout).dx
    return add(dx_base, dx_update), present({"weight": dW, "bias": db, "lora_B": dB, "lora_A": dA})


def delta(weight, adapter, config):
    """ΔW, (out, in): each column of s (L/g) B A repeated g times, so it is exactly constant in each block."""
    L = adapter["lora_A"].shape[1]
    g = weight.shape[1] // L
    return np.repeat(scaling(config) * L / g * (adapter["lora_B"] @ adapter["lora_A"]), g, axis=1)


def as_lora(params, adapter):
    """Convert a QA-LoRA adapter to a LoRA adapter with the same update, for programs that only support LoRA.

    s (L/g) B A with each column repeated g times is s B A′, where A′ (r, in) is (L/g) A with each column repeated g
    times. Adapters of other kinds are returned unchanged.
    """
    if adapter.config.kind != "qalora":
        return adapter
    weights = dict(adapter.weights)
    for name in [name for name in weights if name.endswith(".lora_A")]:
        n_in, L = params[name.replace("lora_A", "weight")].shape[1], weights[name].shape[1]
        weights[name] = np.repeat(weights[name] * (L * L / n_in), n_in // L, axis=1)
    return adapter._replace(config=replace(adapter.config, kind="lora"), weights=weights)
