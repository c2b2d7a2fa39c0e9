"""Draw random numbers that are the same on every machine and with every version of NumPy, for the reference cases.

NumPy guarantees the raw output of a bit generator, but not the distributions drawn from it. Therefore, this module
computes all random numbers from the raw output. All floats are float32 values in float64 arrays, so that a case has
exactly the same inputs in both precisions.
"""

import zlib

import numpy as np


def bits_of(name):
    """Create a bit generator for a case, seeded with the case's name."""
    return np.random.PCG64(zlib.crc32(name.encode()))


def uniform(bits, shape, low=-1.0, high=1.0):
    """Draw uniform values in [low, high), as float32 values in a float64 array."""
    share = (bits.random_raw(shape) >> np.uint64(40)) * 2.0**-24  # in [0, 1)
    return as_float32(low + (high - low) * share)


def bell(bits, shape, scale=1.0):
    """Draw sums of three uniform values, with mean 0 and standard deviation `scale`; all are within ±3 · scale."""
    return as_float32(scale * sum(uniform(bits, shape) for _ in range(3)))


def whole(bits, shape, n):
    """Draw integers from 0 to n − 1 as int64."""
    return (bits.random_raw(shape) % np.uint64(n)).astype(np.int64)


def keep_mask(bits, shape, p):
    """Draw a uint8 array: 1 where dropout with probability p keeps an entry, else 0."""
    return (uniform(bits, shape, 0.0, 1.0) >= p).astype(np.uint8)


def mask(bits, shape, p):
    """Draw a dropout mask, whose entries are 0 or 1/(1 − p), rounded to float32."""
    return as_float32(keep_mask(bits, shape, p) / (1.0 - p))


def as_float32(array):
    """Round to float32; return the rounded values in float64."""
    return np.asarray(array, dtype=np.float64).astype(np.float32).astype(np.float64)
