"""Softmax cross-entropy, averaged over the real targets."""

from typing import NamedTuple

import numpy as np

from .blocks import by_blocks

IGNORE_INDEX = -100  # the target of a position that does not count; PyTorch's value


class CrossEntropyCache(NamedTuple):
    exp: np.ndarray  # (..., K), exp(x − max): softmax before its division
    exp_sum: np.ndarray  # (..., 1)
    targets: np.ndarray  # (...,) int
    real: np.ndarray  # (...,) bool, which targets count


class CrossEntropyGrads(NamedTuple):
    dlogits: np.ndarray  # (..., K)


def cross_entropy_forward(logits, targets, ignore_index=IGNORE_INDEX):
    """Mean of −log softmax(logits)[target] over the targets that are not `ignore_index`.

    log p_t = (x_t − max) − log Σ_j exp(x_j − max): written so, neither a huge logit overflows nor
    does a tiny probability become log 0.

    Parameters
    ----------
    logits : array (..., K)
    targets : int array (...,) with values in 0 … K−1, or ignore_index
    ignore_index : int

    Returns
    -------
    loss : scalar of the logits' dtype, in nats per real target
    cache : CrossEntropyCache

    Raises
    ------
    ValueError
        If a target is outside 0 … K−1, or if none is real: the mean of nothing is undefined.
    """
    K = logits.shape[-1]
    real = targets != ignore_index  # (...,)
    outside = real & ((targets < 0) | (targets >= K))
    if outside.any():
        raise ValueError(
            f"targets: {targets[outside].flat[0]} is not one of the {K} classes "
            f"(expected 0 to {K - 1}, or {ignore_index} to ignore)"
        )
    if not real.any():
        raise ValueError(f"targets: every one is {ignore_index} (ignored); expected a real one")
    largest = logits.max(axis=-1, keepdims=True)  # (..., 1)
    picked = np.where(real, targets, 0)[..., None]  # (..., 1)
    target_logits = np.take_along_axis(logits, picked, axis=-1)  # (..., 1)
    exp = by_blocks(lambda x, largest: np.exp(x - largest), logits, largest)  # (..., K)
    exp_sum = np.einsum("...k->...", exp)[..., None]  # (..., 1), at least 1
    losses = np.log(exp_sum) - (target_logits - largest)  # (..., 1)
    return losses[real].mean(), CrossEntropyCache(exp, exp_sum, targets, real)


def cross_entropy_backward(dloss, cache):
    """Gradient of the mean cross-entropy.

    One row's loss is log Σ_j exp(x_j) − x_t, so its derivative is softmax(x)_i − δ_it. The mean over
    N real targets divides by N; an ignored row has no part in it and gets zeros.

        dx = dloss · (p − onehot(t)) / N

    Parameters
    ----------
    dloss : float, the gradient of the loss itself (1.0 at the end of a model)
    cache : CrossEntropyCache

    Returns
    -------
    CrossEntropyGrads
    """
    real = cache.real
    # loss = mean(log Σ exp(x) − x_t)
    weight = (real * (dloss / real.sum())).astype(cache.exp.dtype)[..., None]  # (..., 1)
    dlogits = cache.exp * (weight / cache.exp_sum)  # (..., K)
    picked = np.where(real, cache.targets, 0)[..., None]  # (..., 1)
    at_target = np.take_along_axis(dlogits, picked, axis=-1) - weight
    np.put_along_axis(dlogits, picked, at_target, axis=-1)
    return CrossEntropyGrads(dlogits)
