"""Carry out many independent runs in parallel: in local processes, on a Dask cluster, or in any other Executor.

Any object with the interface of `concurrent.futures.Executor` can carry out a sweep. A run's result depends only on its
settings, so neither the executor nor the other runs affect it. README.md explains how to start remote workers.
"""

import os
import signal
import threading
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

from ..checked import whole_number
from .threads import MOST_THREADS, available_cores, process_environment

CONNECT_SECONDS = 10  # the longest time to wait for a scheduler's answer
TRIES = 3  # a run fails after its process has died this many times


class Ended(NamedTuple):
    """A run that has finished or failed."""

    run: Any
    result: Any  # None if it failed
    error: str | None = None  # as one line; None if the run did not fail


# ---------------------------------------------------------------- executors


@contextmanager
def open_executor(workers=None):
    """Open the Executor that carries out a sweep, as a context manager.

    Parameters
    ----------
    workers : int, number of processes on this machine; None: one per core; str, the address of a Dask scheduler, such
        as "tcp://10.0.0.1:8786"; or an open concurrent.futures.Executor, which stays open

    Raises
    ------
    ValueError
        If the number is invalid, if the package `distributed` is missing, or if no scheduler answers at the address.
    """
    if isinstance(workers, str):
        with connect(workers) as client:
            yield client.get_executor(pure=False)  # pure calls with equal arguments would share their result or failure
        return
    if workers is not None and not isinstance(workers, int):
        yield workers
        return
    executor = LocalProcesses(worker_count(workers))
    added = {name: value for name, value in process_environment().items() if name not in os.environ}
    os.environ.update(added)  # for new processes
    try:
        yield executor
    finally:
        for name in added:
            del os.environ[name]
        executor.stop()


def connect(address):
    """Connect to the Dask scheduler at an address, and return a client."""
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port

        get_address_host_port(address)  # a client with a malformed address would log errors until it is closed
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except ModuleNotFoundError as error:
        text = f'dask: the package {error.name} is needed here; install it with: pip install ".[cluster]"'
        raise ValueError(text) from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"dask: no scheduler answered at {address!r} ({describe(error)})") from None


def worker_count(jobs=None):
    """The number of processes: `jobs`, or by default one for each core that this process may run on."""
    return available_cores() if jobs is None else whole_number("jobs", jobs, most=MOST_THREADS)


class LocalProcesses(ThreadPoolExecutor):
    """Threads that each run their calls in a ProcessPoolExecutor with a single process.

    When a process is killed, all calls of its ProcessPoolExecutor fail. LocalProcesses therefore gives each pool only
    one call at a time. A call whose process is killed is repeated in a new process; after TRIES attempts, it fails.
    Functions must be defined in a module, so that the processes can import them.

    Parameters
    ----------
    jobs : int, number of parallel processes; each is started when there is work for it
    """

    def __init__(self, jobs):
        super().__init__(jobs)
        context = get_context("spawn")  # fresh interpreters, which read the environment
        far_end, self._lifeline = context.Pipe(duplex=False)
        self._new_pool = partial(ProcessPoolExecutor, 1, context, live_with_parent, (far_end,))
        self._pools = [None] * jobs  # the idle pools; None: not started yet

    def submit(self, function, /, *arguments):
        return super().submit(self._call, function, *arguments)

    def stop(self):
        """Terminate all processes immediately, then stop the threads that manage them."""
        self._lifeline.close()
        self.shutdown(cancel_futures=True)
        for pool in filter(None, self._pools):
            pool.shutdown()

    def _call(self, function, /, *arguments):
        """Run a call in a process that runs no other call, and wait for the result."""
        for _ in range(TRIES):
            if self._lifeline.closed:
                raise BrokenExecutor("the processes were stopped")
            pool = self._pools.pop() or self._new_pool()  # one for each thread
            try:
                return pool.submit(function, *arguments).result()
            except BrokenExecutor:
                pool.shutdown()
                pool = None
            finally:
                self._pools.append(pool)
        text = f"the process died {TRIES} times; it may have run out of memory, or the script may start work outside "
        raise BrokenExecutor(text + '`if __name__ == "__main__":`; check the error output of the process')


def live_with_parent(far_end):
    """Initialise a worker process so that it exits when its parent exits or closes its end of the pipe."""

    def wait():
        far_end.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C, the parent ends this process
    threading.Thread(target=wait, daemon=True).start()


# ---------------------------------------------------------------- sweeps


def sweep(function, runs, workers=None):
    """Execute runs, and yield each as it finishes.

    A run that fails is yielded with its error, and the others continue. If a worker is killed, the executors of
    `open_executor` repeat its run a few times before they report a failure. If a worker of a plain ProcessPoolExecutor
    is killed, its run and all unfinished runs fail. When a run kills its Dask worker, the runs queued behind it also
    fail; these are repeated at the end, one at a time.

    Each process imports the script that started it, so a script must call `sweep` under `if __name__ == "__main__":`.

    Parameters
    ----------
    function : module-level function, called with a run as its only argument
    runs : list; put the long ones first
    workers : see `open_executor`

    Yields
    ------
    Ended
    """
    if not runs:
        return
    with open_executor(workers) as executor:
        rounds, futures = [runs], {}
        try:
            for together in rounds:  # all runs at once, then those whose Dask worker was killed, one at a time
                for run in together:
                    try:
                        futures[executor.submit(attempt, run, function, run)] = run
                    except BrokenExecutor as error:  # caused by an earlier run
                        yield Ended(run, None, describe(error))
                for future in as_completed(futures):
                    ended = attempt(futures.pop(future), future.result)
                    ended = ended.result or ended  # the worker's Ended, or else an error of the executor
                    del future  # otherwise, Dask would repeat the run if the worker with its result died
                    if together is runs and ended.error is not None and ended.error.startswith("KilledWorker:"):
                        rounds.append([ended.run])
                    else:
                        yield ended
        finally:
            for future in futures:
                future.cancel()


def attempt(run, function, *arguments):
    """Call a function for a run and return an `Ended`; its error is a str, since some exceptions cannot be pickled."""
    try:
        return Ended(run, function(*arguments))
    except CancelledError:
        return Ended(run, None, "cancelled: the connection to its worker or its scheduler was lost")
    except Exception as error:
        return Ended(run, None, describe(error))


def describe(error):
    """Format an exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
