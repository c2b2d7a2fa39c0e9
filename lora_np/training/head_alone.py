"""Train a classification head alone: the frozen model's vectors never change, so they are computed once."""

import numpy as np

from ..adapters.adapter import HEAD, HEAD_BIAS
from ..model import Objective, forward
from ..ops import cross_entropy_backward, cross_entropy_forward, linear_backward, linear_forward, target_weights
from .progress import with_bar
from .threads import blas_threads, shard_threads


def head_inputs(params, batches, config, adapter=None, threads=1, progress=None):
    """Compute the vectors that the head reads, (N, C), and their targets (N,), in the order of the rows 0 to N − 1.

    Each row must be in exactly one batch. `threads` batches are processed in parallel; this does not affect the result.
    `progress` is the label of a progress bar, or None for no bar.
    """

    def vectors(batch):
        return forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, head=False)[0]

    batches = list(batches)
    with blas_threads(1), shard_threads(threads) as run:
        vectors = np.concatenate([h for h, _ in zip(run(vectors, batches), with_bar(batches, progress))])
    order = np.argsort(np.concatenate([batch.rows for batch in batches]))
    return vectors[order], np.concatenate([batch.targets for batch in batches])[order]


def head_objective(vectors, class_weights=None):
    """Return the objective for `train` (see `model_objective`): the loss of a head and the gradients of its arrays."""

    def objective(trainable, batch, rng):
        logits, head = linear_forward(vectors[batch.rows], trainable[HEAD], trainable.get(HEAD_BIAS))
        loss, cache = cross_entropy_forward(logits, batch.targets, weights=class_weights)
        grads = linear_backward(cross_entropy_backward(1.0, cache).dlogits, head)
        by_name = {HEAD: grads.dweight, HEAD_BIAS: grads.dbias}
        n_targets = target_weights(batch.targets, class_weights).sum().item()
        return Objective(float(loss), n_targets, {name: by_name[name] for name in trainable})

    return objective


def evaluate_head(trainable, vectors, targets, class_weights=None):
    """The results of `evaluate` for a head, from the vectors and targets of `head_inputs`."""
    logits, _ = linear_forward(vectors, trainable[HEAD], trainable.get(HEAD_BIAS), wanted=())
    loss, _ = cross_entropy_forward(logits, targets, wanted=(), weights=class_weights)
    return {"loss": float(loss), "accuracy": float(np.mean(logits.argmax(axis=1) == targets))}
