"""A language model's head and loss as one operation, computed in chunks of rows.

With a vocabulary of 49,152 tokens, the logits of 2,000 positions take 400 MB, and so does their gradient. Here, logits
are computed, used and freed one chunk of positions at a time. Positions whose target is ignored are skipped.
"""

from typing import NamedTuple

import numpy as np

from .cross_entropy import IGNORE_INDEX, cross_entropy_backward, cross_entropy_forward
from .linear import dense_if_small, linear_backward, linear_forward

CHUNK = 2**24  # the maximum number of logits in memory: 64 MB in float32


class LinearCrossEntropyGrads(NamedTuple):
    """The gradients, computed by the forward pass while a chunk's logits are in memory; they also serve as a cache."""

    dx: np.ndarray | None  # (..., C)
    dweight: np.ndarray | None  # (V, C)


def linear_cross_entropy_forward(x, weight, targets, ignore_index=IGNORE_INDEX, wanted=("x", "weight"), chunk=CHUNK):
    """Mean of −log softmax(x Wᵀ)[target] over the targets other than `ignore_index`.

    This is the loss of `cross_entropy_forward` for the logits x Wᵀ. The mean over N rows is the weighted sum of the
    chunks' means, where the weight of a chunk of n rows is n/N. The gradient is the same weighted sum of the chunks'
    gradients.

    Parameters
    ----------
    x : array (..., C), the input of the head
    weight : array (V, C), or an object that NumPy converts to one
    targets : int array (...,) with values in 0 … V−1, or ignore_index
    ignore_index : int
    wanted : names of the operands whose gradients the backward pass will return
    chunk : int, the maximum number of logits in memory

    Returns
    -------
    loss : scalar of x's dtype, in nats per target that is not ignored
    cache : LinearCrossEntropyGrads, for dloss = 1

    Raises
    ------
    ValueError
        See `cross_entropy_forward`.
    """
    weight = dense_if_small(weight)  # converted once, not for each chunk
    rows = x.reshape(-1, x.shape[-1])  # (N, C)
    real = np.flatnonzero(targets != ignore_index)  # (n,)
    dx = np.zeros_like(rows) if "x" in wanted else None
    loss, dweight, step = 0.0, None, max(1, chunk // weight.shape[0])
    for start in range(0, max(1, len(real)), step):
        piece = real[start : start + step]
        share = len(piece) / max(1, len(real))
        logits, of_head = linear_forward(rows[piece], weight, wanted=wanted)  # (n, V)
        piece_loss, of_loss = cross_entropy_forward(
            logits, targets.reshape(-1)[piece], ignore_index, ("logits",) if wanted else ()
        )
        loss += share * piece_loss
        if wanted:
            grads = linear_backward(cross_entropy_backward(share, of_loss).dlogits, of_head)
            if dx is not None:
                dx[piece] = grads.dx
            if grads.dweight is not None:
                dweight = grads.dweight if dweight is None else np.add(dweight, grads.dweight, out=dweight)
    return loss, LinearCrossEntropyGrads(None if dx is None else dx.reshape(x.shape), dweight)


def linear_cross_entropy_backward(dloss, cache):
    """Gradients of the mean cross-entropy of x Wᵀ, derived in `ops/cross_entropy.py` and `ops/linear.py`.

    Parameters
    ----------
    dloss : float, the upstream gradient: 1.0 if the loss is the final output
    cache : LinearCrossEntropyGrads

    Returns
    -------
    LinearCrossEntropyGrads, with None for each operand that was not wanted; if dloss is 1.0, this is the cache, whose
    arrays must not be modified
    """
    if dloss == 1.0:
        return cache
    return LinearCrossEntropyGrads(*(None if grad is None else grad * float(dloss) for grad in cache))
