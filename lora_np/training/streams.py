"""Independent random streams from one seed."""

import numpy as np

from ..checked import seed_number

PURPOSES = ("shuffle", "masks", "weights", "head", "adapter", "sample")


def stream(seed, purpose, *index):
    """Return the random generator for one purpose and one epoch or step.

    The purpose and the index form the spawn key of NumPy's SeedSequence, so all streams are independent. (With a plain
    list, default_rng([seed, 5]) and default_rng([seed, 5, 0]) would be equal, because the list is padded with zeros.)

    Parameters
    ----------
    seed : int ≥ 0
    purpose : "shuffle" (index: epoch), "masks" (index: step, shard), "weights", "head" or "adapter" for initial
        values (no index), or "sample" for sampling data (any index)
    index : ints

    Returns
    -------
    numpy.random.Generator
    """
    key = (PURPOSES.index(purpose), *index)
    return np.random.default_rng(np.random.SeedSequence(seed_number("seed", seed), spawn_key=key))
