"""The yardstick's own measure: how fast this machine multiplies two large matrices."""

from contextlib import contextmanager

import numpy as np

from ..training import blas_threads
from .case import Side

SIZE = 2048
FLOPS = 2 * SIZE**3


@contextmanager
def make_side(threads):
    """A product of two float32 matrices, 2048 × 2048, in NumPy on so many threads."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in "ab")
    out = np.empty_like(a)

    def step():
        np.matmul(a, b, out=out)
        return 0.0

    with blas_threads(threads):
        yield Side(lambda: (0.0, {}), step)
