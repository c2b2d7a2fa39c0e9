"""Threads, and environment variables for training processes.

A batch is split into shards (`split_batch`), and each shard's forward and backward pass runs in its own Python thread.
Each matrix product then uses one BLAS thread: `train` enters `blas_threads(1)`, which affects the whole process. NumPy
releases the global interpreter lock during long operations, so the shards run in parallel, including their softmax and
layer norm. With only BLAS threads, softmax and layer norm would use a single core.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache

LARGE = 50_000_000  # a model with more parameters is large
WORTHWHILE = 2**18  # number of elements; for fewer, a thread's overhead exceeds the time that it saves
MOST_GROUPS = 8
MOST_THREADS = 1024
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def blas_threads(n):
    """Return a context manager in which each matrix product uses n threads.

    Use n = 1 if the work is already split across processes or shards, because more threads would compete for the cores.
    If the package threadpoolctl is missing, the context has no effect, and a warning is issued once.
    """
    limits = threadpool_limits()
    return nullcontext() if limits is None else limits(n)


@lru_cache(maxsize=1)
def threadpool_limits():
    """threadpoolctl's `threadpool_limits`, or None if the package is missing."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        if not any(name in os.environ for name in THREAD_VARIABLES):  # such a variable also limits the threads
            fault = "threadpoolctl is missing, so matrix products use all cores, which is slow for small matrices"
            warnings.warn(f"{fault}; install it with: pip install threadpoolctl", stacklevel=3)
        return None
    return threadpool_limits


@contextmanager
def shard_threads(n):
    """Yield a `map` function that processes up to n items at a time and returns the results in order."""
    if n == 1:
        yield map
        return
    with ThreadPoolExecutor(n) as pool:
        yield pool.map


def balanced_groups(arrays):
    """Split the names of a dict of arrays into groups with about the same number of elements.

    Returns
    -------
    list of lists of names; one group for a small dict. The groups do not depend on the number of threads.
    """
    total = sum(array.size for array in arrays.values())
    groups = [[] for _ in range(max(1, min(MOST_GROUPS, total // WORTHWHILE)))]
    sizes = [0] * len(groups)
    for name in sorted(arrays, key=lambda name: -arrays[name].size):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(name)
        sizes[smallest] += arrays[name].size
    return [group for group in groups if group]


def available_cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worthwhile_threads(params):
    """The number of batches to compute in parallel: one for a small model, one per core for a large model."""
    return available_cores() if sum(weight.size for weight in params.values()) > LARGE else 1


def process_environment(blas_threads=1):
    """Return environment variables for a new training process; NumPy's libraries read them when they load.

    With these settings, glibc keeps freed memory in the process, in one heap with huge pages. Without these settings,
    large arrays would get new pages in every training step, which the kernel would first have to fill with zeros.
    Variables that are already set keep their values.

    Parameters
    ----------
    blas_threads : int, the maximum number of threads for one matrix product

    Returns
    -------
    dict, name -> value
    """
    heap = {"hugetlb": 1, "mmap_max": 0, "trim_threshold": 2**34, "arena_max": 1}
    values = dict.fromkeys(THREAD_VARIABLES, str(blas_threads))
    values["GLIBC_TUNABLES"] = ":".join(f"glibc.malloc.{name}={value}" for name, value in heap.items())
    return {name: os.environ.get(name, value) for name, value in values.items()}
