"""The gradient of a batch as the weighted sum over its shards, one after another or side by side.

A mean over N targets is Σ (n_i / N) · mean_i over shards of n_i targets. Splitting a batch therefore
changes memory and time and, up to rounding, nothing else. The shards are added in their own order,
whichever finishes first, so the result does not depend on the number of threads.
"""

import numpy as np

from ..ops import IGNORE_INDEX
from ..ops.blocks import blocks
from .groups import balanced_groups


def split_batch(batch, n_shards):
    """Cut a batch (a NamedTuple of arrays over rows) into at most n_shards, none of them empty.

    A shard without any real target has nothing to average and is left out.
    """
    rows = np.array_split(np.arange(len(batch.ids)), min(n_shards, len(batch.ids)))
    shards = [type(batch)(*(field[part] for field in batch)) for part in rows]
    return [shard for shard in shards if np.any(shard.targets != IGNORE_INDEX)]


def accumulated_gradients(objective, shards, run=map):
    """Loss and gradients of a whole batch from its shards.

    Parameters
    ----------
    objective : function of (index of the shard, shard) -> Objective (loss, n_targets, grads)
    shards : list of batches
    run : `map`, or a pool's `map` to work in parallel threads; changes the time and no number

    Returns
    -------
    loss : float, the mean over all real targets
    grads : dict of arrays
    """
    if not shards:
        raise ValueError("targets: every one of the batch is ignored; expected a real one")
    parts = list(run(objective, range(len(shards)), shards))
    n_targets = sum(part.n_targets for part in parts)
    shares = [part.n_targets / n_targets for part in parts]
    loss = sum(share * part.loss for share, part in zip(shares, parts))
    if len(parts) == 1:
        return loss, parts[0].grads
    grads = {name: np.empty_like(grad, order="C") for name, grad in parts[0].grads.items()}

    def add_up(names):
        for name in names:
            for total, *terms in blocks(grads[name], *(part.grads[name] for part in parts)):
                np.multiply(shares[0], terms[0], out=total)
                for share, term in zip(shares[1:], terms[1:]):
                    total += share * term

    list(run(add_up, balanced_groups(grads)))
    return loss, grads
