"""Mean softmax cross-entropy over the targets that are not ignored, optionally with class weights."""

from typing import NamedTuple

import numpy as np

from .blocks import blocks

IGNORE_INDEX = -100  # the target of a position that the loss ignores, as in PyTorch


class CrossEntropyGrads(NamedTuple):
    """The gradient, which is also the cache. The forward pass computes it and the loss from the same exponentials."""

    dlogits: np.ndarray | None  # (..., K), None if not wanted


def cross_entropy_forward(logits, targets, ignore_index=IGNORE_INDEX, wanted=("logits",), weights=None):
    """Mean of −log softmax(logits)[target] over the targets that are not `ignore_index`.

    With a weight w_k for each class k, the loss is the weighted mean Σ_n w_{t_n} loss_n / Σ_n w_{t_n}, as in PyTorch.
    Equal weights change nothing; with w_k = N / (K N_k), where N_k of the N targets are in class k, all classes
    contribute equally.

    log p_t = (x_t − max) − log Σ_j exp(x_j − max). Subtracting the maximum prevents overflow for large logits, and
    computing log p_t without p_t itself avoids log 0 for tiny probabilities.

    Parameters
    ----------
    logits : array (..., K)
    targets : int array (...,) with values in 0 … K−1, or ignore_index
    ignore_index : int
    wanted : ("logits",), or () if no gradient is needed
    weights : array (K,), positive; None means that all are 1

    Returns
    -------
    loss : scalar of the logits' dtype, in nats per target that is not ignored
    cache : CrossEntropyGrads, for dloss = 1

    Raises
    ------
    ValueError
        If a target is outside 0 … K−1, all targets are ignored (so their mean is undefined), or the weights are not K
        positive numbers.
    """
    K = logits.shape[-1]
    real = targets != ignore_index  # (...,)
    outside = real & ((targets < 0) | (targets >= K))
    if outside.any():
        raise ValueError(f"targets: got {targets[outside].flat[0]}, expected 0 to {K - 1}, or {ignore_index} (ignored)")
    if not real.any():
        raise ValueError(f"targets: all are {ignore_index} (ignored); expected at least one that is not")
    if weights is not None:
        weights = np.asarray(weights, logits.dtype)
        if weights.shape != (K,) or not np.isfinite(weights).all() or weights.min() <= 0:
            raise ValueError(f"weights: got {weights}, expected a positive number for each of the {K} classes")
    counts = target_weights(targets, weights, ignore_index)  # (...,)
    weight = (counts / counts.sum()).astype(logits.dtype)[..., None]  # (..., 1), each row's weight in the mean
    picked = np.where(real, targets, 0)[..., None]  # (..., 1)
    target_logits = np.take_along_axis(logits, picked, axis=-1)  # (..., 1)
    losses = np.empty_like(target_logits, order="C")  # (..., 1)
    dlogits = np.empty_like(logits, order="C") if "logits" in wanted else None  # (..., K)
    gradients = [dlogits] if dlogits is not None else []
    for x, x_t, w, loss, *dx in blocks(logits, target_logits, weight, losses, *gradients):
        largest = x.max(axis=-1, keepdims=True)
        exp = np.subtract(x, largest, out=dx[0] if dx else None)
        np.exp(exp, out=exp)
        exp_sum = np.einsum("...k->...", exp)[..., None]  # at least 1
        loss[...] = np.log(exp_sum) - (x_t - largest)
        if dx:
            exp *= w / exp_sum  # dx as in cross_entropy_backward, except at the targets
        del exp  # if no gradient is wanted, the next piece reuses its memory
    if dlogits is not None:
        at_target = np.take_along_axis(dlogits, picked, axis=-1) - weight
        np.put_along_axis(dlogits, picked, at_target, axis=-1)
    mean = losses[real].mean() if weights is None else np.average(losses[real, 0], weights=counts[real])
    return mean, CrossEntropyGrads(dlogits)


def target_weights(targets, weights=None, ignore_index=IGNORE_INDEX):
    """The weight of each target in the mean, (...,): 0 if the target is ignored, otherwise 1 or its class's weight."""
    real = targets != ignore_index
    return real if weights is None else np.where(real, weights[np.where(real, targets, 0)], 0)


def cross_entropy_backward(dloss, cache):
    """Gradient of the mean cross-entropy.

    One row's loss is log Σ_j exp(x_j) − x_t, so its derivative with respect to x_i is softmax(x)_i − δ_it. In the mean
    over N targets, this derivative is divided by N; in the weighted mean, it is multiplied by the target's weight and
    divided by the sum of the weights. Gradients of ignored rows are zero.

        dx = dloss · (p − onehot(t)) / N        or  dloss · (p − onehot(t)) w_t / Σ w_t

    Parameters
    ----------
    dloss : float, the upstream gradient: 1.0 if the loss is the final output
    cache : CrossEntropyGrads

    Returns
    -------
    CrossEntropyGrads; if dloss is 1.0, this is the cache, whose array must not be modified
    """
    if cache.dlogits is None or dloss == 1.0:
        return cache
    # loss = mean(log Σ exp(x) − x_t)
    return CrossEntropyGrads(cache.dlogits * float(dloss))
