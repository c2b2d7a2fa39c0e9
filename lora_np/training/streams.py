"""Independent streams of random numbers, all from one seed."""

import numpy as np

PURPOSES = ("shuffle", "masks", "weights", "head", "adapter", "sample")


def stream(seed, purpose, *index):
    """A generator for one purpose, and for one epoch or step of it.

    The streams of different purposes and indices are independent: the purpose and the index are the
    spawn key of NumPy's SeedSequence. In a plain list, default_rng([seed, 5]) and
    default_rng([seed, 5, 0]) would be the same stream, because missing words count as zeros.

    Parameters
    ----------
    seed : int ≥ 0
    purpose : "shuffle" (index: epoch), "masks" (index: step, shard), or the first values of "weights",
        a "head" or an "adapter" (no index), or a "sample" of data (any index)
    index : ints

    Returns
    -------
    numpy.random.Generator
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: got {seed!r}, expected a whole number of at least 0")
    key = (PURPOSES.index(purpose), *index)
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=key))
