"""The log probabilities of given tokens, computed from the head's input in chunks of rows.

DPO and GRPO depend on the model only through these numbers. Their gradient with respect to each log probability is
known only when all of them are, and it may have either sign. So the forward pass keeps no logits, and the backward pass
computes them again, chunk by chunk. With a vocabulary of 49,152 tokens, the logits of 2,000 positions take 400 MB.
"""

from typing import NamedTuple

import numpy as np

from .cross_entropy import IGNORE_INDEX
from .linear import dense_if_small, linear_backward, linear_forward
from .linear_cross_entropy import CHUNK


class TokenLogProbsCache(NamedTuple):
    x: np.ndarray  # (..., C)
    weight: np.ndarray  # (V, C)
    targets: np.ndarray  # (...,)
    log_sums: np.ndarray  # (...,), log Σ_j exp(logit_j); 0 where the target is ignored
    ignore_index: int
    wanted: tuple[str, ...]
    chunk: int


class TokenLogProbsGrads(NamedTuple):
    dx: np.ndarray | None  # (..., C)
    dweight: np.ndarray | None  # (V, C)


def token_log_probs_forward(x, weight, targets, ignore_index=IGNORE_INDEX, wanted=("x", "weight"), chunk=CHUNK):
    """log softmax(x Wᵀ)[target] for each row, and 0 where the target is `ignore_index`.

    With the logits z = x Wᵀ and their maximum m, log p_t = (z_t − m) − log Σ_j exp(z_j − m).

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
    log_probs : array (...,) of x's dtype, in nats
    cache : TokenLogProbsCache

    Raises
    ------
    ValueError
        If a target is neither in 0 … V−1 nor ignore_index.
    """
    weight = dense_if_small(weight)
    log_probs, log_sums = (np.zeros(targets.shape, x.dtype) for _ in range(2))
    cache = TokenLogProbsCache(x, weight, targets, log_sums, ignore_index, wanted, chunk)
    for rows, picked in chunks(cache):
        logits, _ = linear_forward(x.reshape(-1, x.shape[-1])[rows], weight, wanted=())  # (n, V)
        of_target = logits[np.arange(len(rows)), picked]  # (n,)
        largest = logits.max(axis=-1)
        logits -= largest[:, None]
        log_sum = largest + np.log(np.exp(logits, out=logits).sum(axis=-1))
        log_sums.reshape(-1)[rows], log_probs.reshape(-1)[rows] = log_sum, of_target - log_sum
    return log_probs, cache


def token_log_probs_backward(dlog_probs, cache):
    """Gradients of Σ_n dlog_probs_n · log p_n.

    log p_t = z_t − log Σ_j exp(z_j), so its derivative with respect to the logit z_i is δ_it − p_i. With z = x Wᵀ,

        dz = dlog_prob · (onehot(t) − p),     dx = dz W,     dW = Σ dzᵀ x

    Parameters
    ----------
    dlog_probs : array (...,), the upstream gradient; its values at ignored targets do not matter
    cache : TokenLogProbsCache

    Returns
    -------
    TokenLogProbsGrads, with None for each operand that was not wanted
    """
    x, weight, wanted = cache.x, cache.weight, cache.wanted
    dx = np.zeros_like(x) if "x" in wanted else None
    dweight = np.zeros_like(weight) if "weight" in wanted else None
    for rows, picked in chunks(cache):
        logits, of_head = linear_forward(x.reshape(-1, x.shape[-1])[rows], weight, wanted=wanted)  # (n, V)
        dl = dlog_probs.reshape(-1)[rows, None].astype(x.dtype)  # (n, 1)
        logits -= cache.log_sums.reshape(-1)[rows, None]
        dlogits = np.exp(logits, out=logits)  # p, (n, V)
        dlogits *= -dl
        dlogits[np.arange(len(rows)), picked] += dl[:, 0]
        grads = linear_backward(dlogits, of_head)
        if dx is not None:
            dx.reshape(-1, x.shape[-1])[rows] = grads.dx
        if dweight is not None:
            dweight += grads.dweight
    return TokenLogProbsGrads(dx, dweight)


def chunks(cache):
    """Yield the rows whose targets are not ignored, in chunks: their indices (n,) and targets (n,)."""
    targets, V = cache.targets.reshape(-1), len(cache.weight)
    real = np.flatnonzero(targets != cache.ignore_index)
    outside = real[(targets[real] < 0) | (targets[real] >= V)]
    if outside.size:
        expected = f"expected 0 to {V - 1}, or {cache.ignore_index} (ignored)"
        raise ValueError(f"targets: got {targets[outside[0]]}, {expected}")
    step = max(1, cache.chunk // V)
    for rows in np.array_split(real, max(1, -(-len(real) // step))):
        yield rows, targets[rows]
