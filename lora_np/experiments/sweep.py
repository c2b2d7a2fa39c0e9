"""Many independent runs, side by side: in processes here, on a Dask cluster, or in any other Executor.

Anything with the interface of `concurrent.futures.Executor` can carry out a sweep. A run is a function of its settings
alone, so neither the place where it is carried out nor the runs beside it change a result: on machines of the same kind
the numbers are equal to the last digit. Between kinds, BLAS adds up in another order, the last digits may differ, and
training enlarges the difference.

Workers that are started elsewhere, by Dask or MPI, need this version of lora_np with its extra `experiments`. So does
Dask's scheduler, which unpacks each run on its way. They also need the environment of `training.process_environment`,
set before they start: one thread for matrix products and, with glibc, freed memory kept (`print(process_environment())`
shows it). Give each worker one run at a time, as in `dask worker ADDRESS --nworkers auto --nthreads 1`: the limit on
BLAS threads holds for a whole process.

Under MPI, `mpiexec -n 9 python -m mpi4py.futures job.py` has eight workers, where job.py says

    from mpi4py.futures import MPIPoolExecutor
    from lora_np.experiments.laboratory import experiment

    if __name__ == "__main__":
        with MPIPoolExecutor() as executor:
            experiment("main_job", seeds=5, executor=executor)
"""

import os
import signal
import threading
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from typing import Any, NamedTuple

from ..training import available_cores, process_environment

CONNECT_SECONDS = 10  # a scheduler that has not answered by then is not there
TRIES = 3  # a run whose process has died this many times counts as failed


class Ended(NamedTuple):
    """A run that ended, one way or the other."""

    run: Any
    result: Any  # None if it failed
    error: str | None = None  # in one line; None if it did not fail


# ---------------------------------------------------------------- where runs are carried out


@contextmanager
def open_executor(jobs=None, dask=None):
    """An Executor for as long as the context lasts.

    Parameters
    ----------
    jobs : int, processes on this machine; None: one a core
    dask : str, address of a Dask scheduler to use instead, such as "tcp://10.0.0.1:8786"; None: none

    Raises
    ------
    ValueError
        If both are given, the package distributed is missing, or no scheduler answers at the address.
    """
    if dask is not None:
        if jobs is not None:
            raise ValueError(f"jobs: got {jobs} together with dask={dask!r}, whose workers are started elsewhere")
        with connect(dask) as client:
            yield client.get_executor(pure=False)  # pure: equal calls would share one answer, and one failure
        return
    executor = LocalProcesses(worker_count(jobs))
    added = {name: value for name, value in process_environment().items() if name not in os.environ}
    os.environ.update(added)  # new processes inherit it
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
        get_address_host_port(address)  # a client that was made with a malformed address complains to its end
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"dask: no scheduler answered at {address!r} ({describe(error)})") from None


def worker_count(jobs=None):
    """How many processes to use: `jobs`, or by default one for each core that this process may run on."""
    if jobs is None:
        return available_cores()
    if jobs < 1:
        raise ValueError(f"jobs: got {jobs}, expected at least 1")
    return jobs


class LocalProcesses(ThreadPoolExecutor):
    """Threads that each carry out their calls in a ProcessPoolExecutor of a single process.

    When a process is killed, ProcessPoolExecutor fails every call that it was given. Here that is one call, which is
    begun again in a new process, up to TRIES times in all. The other calls are not affected. A function must be
    defined in a module, so that the process can import it.

    Parameters
    ----------
    jobs : int, processes side by side; each is started when there is work for it
    """

    def __init__(self, jobs):
        super().__init__(jobs)
        self._context = get_context("spawn")  # fresh interpreters, which read the environment that is set here
        self._far_end, self._lifeline = self._context.Pipe(duplex=False)
        self._mine, self._pools = threading.local(), []  # .pool: that of this thread; all of them

    def submit(self, function, /, *arguments, **named):
        return super().submit(self._call, function, *arguments, **named)

    def stop(self):
        """End all processes at once, and the threads that manage them, which must not meet the interpreter's end."""
        self._lifeline.close()
        self.shutdown(cancel_futures=True)
        for pool in self._pools:
            pool.shutdown()

    def _call(self, function, /, *arguments, **named):
        """One call, in the thread that waits for it."""
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
    """Start a worker: it ends at once when its parent closes the other end of a pipe, or is gone."""

    def wait():
        far_end.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too, but its parent ends it
    threading.Thread(target=wait, daemon=True).start()


# ---------------------------------------------------------------- carrying them out


def sweep(function, runs, executor=None):
    """Carry out runs and yield each as it ends.

    A run that fails is yielded with its error, and the others go on. What happens to the run of a worker that is killed
    depends on the executor: `open_executor`'s processes and Dask carry it out again and give it up after some tries;
    ProcessPoolExecutor fails it and all that were not finished. Dask also blames the runs that only waited behind the
    one that killed their worker. So those that it gave up are carried out once more at the end, one at a time.

    Each process imports the script that started it. A script therefore calls this under `if __name__ == "__main__":`.

    Parameters
    ----------
    function : a module-level function of one run
    runs : list; put the long ones first
    executor : concurrent.futures.Executor; None: one process a core on this machine

    Yields
    ------
    Ended
    """
    if not runs:
        return
    with open_executor() if executor is None else nullcontext(executor) as executor:
        rounds, futures = [runs], {}
        try:
            for together in rounds:  # all runs, and then each suspect alone
                for run in together:
                    try:
                        futures[executor.submit(attempt, function, run)] = run
                    except BrokenExecutor as error:  # over an earlier run
                        yield Ended(run, None, describe(error))
                for future in as_completed(futures):
                    ended = end(futures.pop(future), future)
                    del future  # or Dask would carry it out again when the worker that holds its result dies
                    if together is runs and ended.error is not None and ended.error.startswith("KilledWorker:"):
                        rounds.append([ended.run])
                    else:
                        yield ended
        finally:
            for future in futures:
                future.cancel()


def attempt(function, run):
    """In the worker: the result and None, or None and the error in one line, because not every error can be packed."""
    try:
        return function(run), None
    except Exception as error:
        return None, describe(error)


def end(run, future):
    try:
        return Ended(run, *future.result())
    except CancelledError:
        return Ended(run, None, "cancelled: the connection to its worker or its scheduler was lost")
    except Exception as error:
        return Ended(run, None, describe(error))


def describe(error):
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
