"""Compute a batch's gradient as the weighted sum of its shards' gradients, sequentially or in parallel.

The mean over N targets is Σ (n_i / N) · mean_i, where shard i has n_i targets. Splitting a batch therefore affects only
memory use, running time and rounding errors. Shards are always summed in the same order, so the result does not depend
on the number of threads.
"""

import numpy as np

from ..ops import IGNORE_INDEX
from ..ops.blocks import blocks
from .threads import balanced_groups


def split_batch(batch, n_shards):
    """Split the rows of a batch (a NamedTuple of arrays) into at most n_shards shards.

    Shards in which all targets are ignored are dropped, because their mean loss is undefined.
    """
    splits = np.array_split(np.arange(len(batch.ids)), n_shards)
    shards = [type(batch)(*(array[rows] for array in batch)) for rows in splits]
    return [shard for shard in shards if np.any(shard.targets != IGNORE_INDEX)]


def mean_over_shards(results, run=map):
    """Combine the losses and gradients of shards into those of the whole batch.

    Parameters
    ----------
    results : list of Objective (loss, n_targets, grads), one for each shard
    run : `map`, or a thread pool's `map` to run in parallel; both give the same result

    Returns
    -------
    loss : float, the mean over all targets that are not ignored
    grads : dict of arrays
    """
    if not results:
        raise ValueError("targets: all in the batch are ignored, expected at least one that is not ignored")
    n_targets = sum(result.n_targets for result in results)
    shares = [result.n_targets / n_targets for result in results]
    loss = sum(share * result.loss for share, result in zip(shares, results))
    if len(results) == 1:
        return loss, results[0].grads
    grads = {name: np.empty_like(grad, order="C") for name, grad in results[0].grads.items()}

    def add_up(names):
        for name in names:
            for total, *terms in blocks(grads[name], *(result.grads[name] for result in results)):
                np.multiply(shares[0], terms[0], out=total)
                for share, term in zip(shares[1:], terms[1:]):
                    total += share * term

    list(run(add_up, balanced_groups(grads)))
    return loss, grads
