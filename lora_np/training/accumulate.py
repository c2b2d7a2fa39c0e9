"""Compute a batch's gradient as the weighted sum of its shards' gradients, sequentially or in parallel.

The mean over N targets is Σ (n_i / N) · mean_i, where shard i has n_i targets. Splitting a batch therefore affects only
memory use, running time and rounding errors. Shards are always summed in the same order, so the result does not depend
on the number of threads.

The backward pass computes the gradients of one block after another. `GradientSum` adds up those of all shards as soon
as they are complete, so that only one block has a gradient for each shard.
"""

import threading

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
    loss, shares = mean_loss(results)
    if len(results) == 1:
        return loss, results[0].grads
    grads = {name: np.empty_like(grad, order="C") for name, grad in results[0].grads.items()}
    return loss, weighted_sum([result.grads for result in results], shares, grads, run)


def mean_loss(results):
    """The mean loss over all targets of a batch, and each shard's share of the targets."""
    n_targets = sum(result.n_targets for result in results)
    shares = [result.n_targets / n_targets for result in results]
    return sum(share * result.loss for share, result in zip(shares, results)), shares


def weighted_sum(parts, shares, out, run=map):
    """Write Σ share · array over several dicts of arrays into the C-contiguous arrays of `out`, and return `out`.

    The arrays of `out` may be those of the first dict.
    """

    def add_up(names):
        for name in names:
            for total, *terms in blocks(out[name], *(part[name] for part in parts)):
                np.multiply(shares[0], terms[0], out=total)
                for share, term in zip(shares[1:], terms[1:]):
                    total += share * term

    list(run(add_up, balanced_groups(out)))
    return out


class GradientSum:
    """Adds up the gradients of a batch's shards, which may be computed in parallel.

    Parameters
    ----------
    n_shards : int
    use : function (dict of arrays), called with the mean gradients of each part of the model
    """

    def __init__(self, n_shards, use):
        self.n_shards, self.use, self.lock = n_shards, use, threading.Lock()
        self.n_parts, self.waiting = [0] * n_shards, {}  # number of parts per shard; part -> {shard: its gradients}
        self.order = {}  # the names in the order in which the backward pass computes their gradients

    def take(self, shard, grads, n_targets, incomplete=()):
        """Remove gradients from a shard's dict. If this part of the other shards' is here already, use their mean.

        Parameters
        ----------
        shard : int
        grads : dict, whose gradients are taken over, except those in `incomplete`
        n_targets : number of the shard's targets, as in `Objective`
        """
        with self.lock:
            self.order |= dict.fromkeys(grads)
            part = {name: grads.pop(name) for name in list(grads) if name not in incomplete}
            parts = self.waiting.setdefault(self.n_parts[shard], {})
            parts[shard] = part, n_targets
            self.n_parts[shard] += 1
            if len(parts) < self.n_shards:
                return
            del self.waiting[self.n_parts[shard] - 1]
        of_shards, counts = zip(*(parts[i] for i in range(self.n_shards)))
        if self.n_shards > 1:
            out = {name: np.require(grad, requirements=["C", "W"]) for name, grad in of_shards[0].items()}
            part = weighted_sum(of_shards, [n / sum(counts) for n in counts], out)
        self.use(part)
