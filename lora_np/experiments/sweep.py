"""Many independent runs in parallel: in processes here, on a Dask cluster, or in any other Executor.

Anything with the interface of `concurrent.futures.Executor` can carry out a sweep. A run is a function of its settings
alone, so neither the place where it is carried out nor the runs beside it change a result. README.md says how to start
workers on other machines, and when the last digits may differ.
"""

import os
import signal
import threading
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from typing import Any, NamedTuple

from ..checked import whole_number
from ..training import available_cores, process_environment

CONNECT_SECONDS = 10  # how long to wait for a scheduler's answer
TRIES = 3  # a run fails when its process has died this many times


class Ended(NamedTuple):
    """A run that has finished or failed."""

    run: Any
    result: Any  # None if it failed
    error: str | None = None  # as one line; None if it did not fail


# ---------------------------------------------------------------- executors


@contextmanager
def open_executor(jobs=None, dask=None):
    """An Executor, as a context.

    Parameters
    ----------
    jobs : int, processes on this machine; None: one per core
    dask : str, address of a Dask scheduler to use instead, such as "tcp://10.0.0.1:8786"

    Raises
    ------
    ValueError
        If both are set, the package distributed is missing, or no scheduler answers at the address.
    """
    if dask is not None:
        if jobs is not None:
            raise ValueError(f"jobs: got {jobs} together with dask={dask!r}, whose workers are started elsewhere")
        with connect(dask) as client:
            yield client.get_executor(pure=False)  # pure calls would share a result, or a failure, if they are equal
        return
    executor = LocalProcesses(worker_count(jobs))
    added = {name: value for name, value in process_environment().items() if name not in os.environ}
    os.environ.update(added)  # for new processes
    try:
        yield executor
    finally:
        for name in added:
            del os.environ[name]
        executor.stop()


def connect(address):
    """A client of the Dask scheduler at an address."""
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ModuleNotFoundError as error:
        raise ValueError(
            f'dask: the package {error.name} is needed here; install it with: pip install ".[cluster]"'
        ) from None
    try:
        get_address_host_port(address)  # a client with a malformed address would report errors until its end
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"dask: no scheduler answered at {address!r} ({describe(error)})") from None


def worker_count(jobs=None):
    """The number of processes: `jobs`, or by default one for each core that this process may run on."""
    return available_cores() if jobs is None else whole_number("jobs", jobs)


class LocalProcesses(ThreadPoolExecutor):
    """Threads that each run their calls in a ProcessPoolExecutor with a single process.

    When a process is killed, ProcessPoolExecutor fails all its calls. Here this is a single call, which is repeated in
    a new process, up to TRIES times in all. Other calls are not affected. Functions must be defined in a module, so
    that the process can import them.

    Parameters
    ----------
    jobs : int, parallel processes; each is started when there is work for it
    """

    def __init__(self, jobs):
        super().__init__(jobs)
        self._context = get_context("spawn")  # fresh interpreters, which read the environment
        self._far_end, self._lifeline = self._context.Pipe(duplex=False)
        self._mine, self._pools = threading.local(), []  # this thread's `pool`; all pools

    def submit(self, function, /, *arguments, **named):
        return super().submit(self._call, function, *arguments, **named)

    def stop(self):
        """End all processes at once, and the threads that manage them, before the interpreter exits."""
        self._lifeline.close()
        self.shutdown(cancel_futures=True)
        for pool in self._pools:
            pool.shutdown()

    def _call(self, function, /, *arguments, **named):
        """Run one call, in the thread that waits for it."""
        for _ in range(TRIES):
            if self._lifeline.closed:
                raise BrokenExecutor("the processes were stopped")
            if not hasattr(self._mine, "pool"):
                self._mine.pool = ProcessPoolExecutor(1, self._context, live_with_parent, (self._far_end,))
                self._pools.append(self._mine.pool)
            try:
                return self._mine.pool.submit(function, *arguments, **named).result()
            except BrokenExecutor:
                self._mine.pool.shutdown()
                del self._mine.pool
        raise BrokenExecutor(
            f"its process died {TRIES} times; was it killed (out of memory?), or is the reason in its error output "
            '(does the script start its work outside `if __name__ == "__main__":`?)'
        )


def live_with_parent(far_end):
    """Start a worker, which ends at once when its parent ends or closes the other end of a pipe."""

    def wait():
        far_end.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C, the parent ends it
    threading.Thread(target=wait, daemon=True).start()


# ---------------------------------------------------------------- sweeps


def sweep(function, runs, executor=None):
    """Carry out runs and yield each when it ends.

    A run that fails is yielded with its error, and the others go on. If a worker is killed, `open_executor`'s processes
    and Dask repeat its run a few times before they fail it; ProcessPoolExecutor fails it and all unfinished runs. Dask
    also fails runs that were only queued behind the one that killed their worker. So runs that it failed for this
    reason are repeated at the end, one at a time.

    Each process imports the script that started it, so a script must call this under `if __name__ == "__main__":`.

    Parameters
    ----------
    function : a module-level function of one run
    runs : list; put the long ones first
    executor : concurrent.futures.Executor; None: one process per core on this machine

    Yields
    ------
    Ended
    """
    if not runs:
        return
    with open_executor() if executor is None else nullcontext(executor) as executor:
        rounds, futures = [runs], {}
        try:
            for together in rounds:  # all runs, and then each suspect by itself
                for run in together:
                    try:
                        futures[executor.submit(attempt, function, run)] = run
                    except BrokenExecutor as error:  # caused by an earlier run
                        yield Ended(run, None, describe(error))
                for future in as_completed(futures):
                    ended = end(futures.pop(future), future)
                    del future  # or Dask would repeat the run if the worker with its result died
                    if together is runs and ended.error is not None and ended.error.startswith("KilledWorker:"):
                        rounds.append([ended.run])
                    else:
                        yield ended
        finally:
            for future in futures:
                future.cancel()


def attempt(function, run):
    """In the worker: (result, None), or (None, error as one line), because not every error can be pickled."""
    try:
        return function(run), None
    except Exception as error:
        return None, describe(error)


def end(run, future):
    """The Ended of a run whose future is done."""
    try:
        return Ended(run, *future.result())
    except CancelledError:
        return Ended(run, None, "cancelled: the connection to its worker or its scheduler was lost")
    except Exception as error:
        return Ended(run, None, describe(error))


def describe(error):
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
