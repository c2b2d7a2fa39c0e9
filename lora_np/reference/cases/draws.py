"""Random numbers for the reference cases, the same on every machine and with every version of NumPy.

NumPy guarantees the raw output of a bit generator, but not the distributions drawn from it. So all numbers are computed
from raw output here. They are float32 values in float64 arrays, so that a case's inputs are exactly the same in both
precisions.
"""

import zlib

import numpy as np


def bits_of(name):
    """A bit generator for one case, from its name."""
    return np.random.PCG64(zlib.crc32(name.encode()))


def uniform(bits, shape, low=-1.0, high=1.0):
    """Uniform in [low, high): float32 values as float64."""
    share = (bits.random_raw(shape) >> np.uint64(40)) * 2.0**-24  # [0, 1)
    return as_float32(low + (high - low) * share)


def bell(bits, shape, scale=1.0):
    """Mean 0 and standard deviation `scale`: the sum of three uniforms, each of variance 1/3; within ±3 scale."""
    return as_float32(scale * sum(uniform(bits, shape) for _ in range(3)))


def whole(bits, shape, n):
    """Integers from 0 to n − 1, int64."""
    return (bits.random_raw(shape) % np.uint64(n)).astype(np.int64)


def keep_mask(bits, shape, p):
    """1 where dropout with probability p keeps an entry, else 0, uint8."""
    return (uniform(bits, shape, 0.0, 1.0) >= p).astype(np.uint8)


def mask(bits, shape, p):
    """A dropout mask: 0, or 1/(1 − p) as a float32 value."""
    return as_float32(keep_mask(bits, shape, p) / (1.0 - p))


def as_float32(array):
    """The nearest float32 values, as float64."""
    return np.asarray(array, dtype=np.float64).astype(np.float32).astype(np.float64)
