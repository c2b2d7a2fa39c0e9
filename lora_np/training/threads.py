"""Threads, and what a process's libraries read at its start: all that the mathematics knows nothing of.

A batch is cut into shards (`split_batch`), and each shard's forward and backward pass runs in a Python
thread of its own, whose matrix products are to use one BLAS thread: `blas_threads(1)`, which whoever calls
`train` enters, as it holds for the whole process. NumPy releases the interpreter's lock in whatever takes
long, so the shards do run side by side, softmax and layer norm too, which BLAS's own threads would leave to
one core.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext


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


@contextmanager
def shard_threads(n):
    """A context that gives a `map` which works on n items at a time, in the items' order."""
    if n == 1:
        yield map
        return
    with ThreadPoolExecutor(n) as pool:
        yield pool.map


def available_cores():
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_environment(blas_threads=1):
    """Environment variables for a new process that trains; NumPy's libraries read them when they are loaded.

    One BLAS thread a product, see above, unless more are asked for. With glibc, memory that is freed stays
    with the process, in one heap and in large pages: a training step asks for the same large arrays again and
    again, and a page that went back to the system is zeroed anew each time.

    A variable that is set already is left as it is, so that each can be tried out.

    Parameters
    ----------
    blas_threads : int, the most that one product may use

    Returns
    -------
    dict, name -> value
    """
    heap = {"hugetlb": 1, "mmap_max": 0, "trim_threshold": 2**34, "arena_max": 1}
    wanted = {
        "OPENBLAS_NUM_THREADS": str(blas_threads),
        "OMP_NUM_THREADS": str(blas_threads),
        "MKL_NUM_THREADS": str(blas_threads),
        "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in heap.items()),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
