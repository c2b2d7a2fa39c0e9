"""Threads, and the environment of processes that train. The mathematics knows nothing of either.

A batch is split into shards (`split_batch`), and each shard's forward and backward pass runs in its own Python thread.
Each matrix product then uses one BLAS thread: `train` enters `blas_threads(1)`, which holds for the whole process.
NumPy releases the interpreter's lock during long operations, so the shards do run in parallel. So do their softmax and
layer norm, which BLAS's own threads would leave to one core.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache

LARGE = 50_000_000  # parameters
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def blas_threads(n):
    """A context in which each matrix product runs on n threads.

    Work that is already split over processes or shards wants 1; more threads would only wait for one another.
    Without the package threadpoolctl nothing changes, and a warning says so once.
    """
    limits = threadpool_limits()
    return nullcontext() if limits is None else limits(n)


@lru_cache(maxsize=1)
def threadpool_limits():
    """threadpoolctl's context of that name, or None."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        if not any(name in os.environ for name in THREAD_VARIABLES):  # whoever set one has decided
            warnings.warn(
                "the package threadpoolctl is missing, so matrix products use all cores, which is slow for small ones; "
                "install it with: pip install threadpoolctl",
                stacklevel=3,
            )
        return None
    return threadpool_limits


@contextmanager
def shard_threads(n):
    """A context that gives a `map` which works on n items at a time and keeps their order."""
    if n == 1:
        yield map
        return
    with ThreadPoolExecutor(n) as pool:
        yield pool.map


def available_cores():
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worthwhile_threads(params):
    """How many batches to compute at a time: one for a small model, which is quick, and one a core for a large one."""
    return available_cores() if sum(weight.size for weight in params.values()) > LARGE else 1


def process_environment(blas_threads=1):
    """Environment variables for a new process that trains; NumPy's libraries read them when they are loaded.

    With these settings glibc keeps freed memory in the process, in one heap and in large pages. A training step asks
    for the same large arrays again and again, and the system would zero each page anew. Variables that are already
    set keep their values.

    Parameters
    ----------
    blas_threads : int, the most threads that one matrix product may use

    Returns
    -------
    dict, name -> value
    """
    heap = {"hugetlb": 1, "mmap_max": 0, "trim_threshold": 2**34, "arena_max": 1}
    values = dict.fromkeys(THREAD_VARIABLES, str(blas_threads))
    values["GLIBC_TUNABLES"] = ":".join(f"glibc.malloc.{name}={value}" for name, value in heap.items())
    return {name: os.environ.get(name, value) for name, value in values.items()}
