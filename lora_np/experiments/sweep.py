"""Many independent runs, side by side in processes of their own."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

# Read by each worker at its start. One thread for matrix products: with as many workers as cores, more
# would only wait. And memory that is freed stays with the process: a training step asks for the same
# large arrays again and again, and a page that went back to the system is zeroed anew each time.
WORKER_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


@contextmanager
def worker_environment():
    """Set the environment that processes started here inherit, and put it back afterwards."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def worker_count(jobs=None):
    """How many processes to use: as many as asked for, or one a core."""
    if jobs is None:
        return os.cpu_count() or 1
    if jobs < 1:
        raise ValueError(f"jobs: got {jobs}, expected at least 1")
    return jobs


def sweep(function, runs, jobs=None):
    """Carry out runs and yield each with its result as it finishes.

    Parameters
    ----------
    function : a module-level function of one run
    runs : list; the long ones are best put first
    jobs : int, processes, see `worker_count`. Results do not depend on it.

    Yields
    ------
    (run, result)
    """
    if not runs:
        return
    # "spawn" starts each worker as a fresh interpreter, which reads the environment set here.
    context = multiprocessing.get_context("spawn")
    with worker_environment(), ProcessPoolExecutor(min(worker_count(jobs), len(runs)), mp_context=context) as pool:
        futures = {pool.submit(function, run): run for run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
