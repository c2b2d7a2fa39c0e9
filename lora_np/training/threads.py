"""How many threads the matrix products use."""

from contextlib import nullcontext


def blas_threads(n):
    """A context in which each matrix product runs on n threads.

    Work that is already split over processes or shards wants 1: many threads that each split their
    own products only wait for one another. Without the package threadpoolctl nothing is changed.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(n)
