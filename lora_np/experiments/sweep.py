"""Many independent runs, side by side: in processes here, on a Dask cluster, or in any other Executor.

Anything with the interface of `concurrent.futures.Executor` carries out a sweep. A run is a function of its
settings alone, so where it is carried out, and beside which others, changes no result: on machines of the
same kind the numbers are equal to the last digit. Between kinds, BLAS adds up in another order and the last
digits may differ, which training then enlarges.

Workers that are started elsewhere, by Dask or MPI, need this version of lora_np with its extra `experiments`
(and so does Dask's scheduler, which unpacks each run on its way), and the environment of
`training.process_environment` set before they start: one thread for matrix products, and with glibc freed
memory kept (`print(process_environment())` shows it). Give them one run at a time, as in
`dask worker ADDRESS --nworkers auto --nthreads 1`: the limit on BLAS threads holds for a whole process.

Under MPI, `mpiexec -n 9 python -m mpi4py.futures job.py` has eight workers, where job.py says

    from mpi4py.futures import MPIPoolExecutor
    from lora_np.experiments.main_job import main_job

    if __name__ == "__main__":
        with MPIPoolExecutor() as executor:
            main_job(seeds=5, executor=executor)
"""

from concurrent.futures import BrokenExecutor, CancelledError, Future, as_completed
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, NamedTuple

from .finished import add_finished, read_finished, run_key
from .processes import LocalProcesses, describe, worker_count

CONNECT_SECONDS = 10  # a scheduler that has not answered by then is not there


class Ended(NamedTuple):
    """A run that ended, one way or the other."""

    run: Any
    result: Any  # None if it failed
    error: str | None = None  # in one line; None if it did not fail
    earlier: bool = False  # the result was kept from an earlier start of the sweep


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
    if dask is None:
        executor = LocalProcesses(worker_count(jobs))
        try:
            yield executor
        finally:
            executor.stop()
        return
    if jobs is not None:
        raise ValueError(f"jobs: got {jobs} together with dask={dask!r}, whose workers are started elsewhere")
    with connect(dask) as client:
        yield client.get_executor(pure=False)  # pure: equal calls would share one answer, and one failure


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


def sweep(function, runs, executor=None, kept=None):
    """Carry out runs and yield each as it ends.

    A run that fails is yielded with its error, and the others go on. What becomes of the run of a worker
    that is killed is the executor's affair: `open_executor`'s processes and Dask carry it out again and
    give it up after some times, ProcessPoolExecutor fails it and all that were not finished.

    As each process imports the script that started it, a script calls this, or `main_job` or `tune`, under
    `if __name__ == "__main__":`.

    Parameters
    ----------
    function : a module-level function of one run
    runs : list; the long ones are best put first
    executor : concurrent.futures.Executor; None: one process a core on this machine
    kept : path of a file that holds the results while the sweep is going, or None. A sweep that was
        stopped goes on with those that are there, see `run_key`. It is for the caller to delete it.

    Yields
    ------
    Ended; those kept from an earlier start come first
    """
    # The keys are taken before the first run starts: of the code that it starts with, whatever is edited meanwhile.
    keys = {} if kept is None else {id(run): run_key(run) for run in runs}
    before = {} if kept is None else read_finished(kept)
    todo = []
    for run in runs:
        if keys.get(id(run)) in before:
            yield Ended(run, before[keys[id(run)]], earlier=True)
        else:
            todo.append(run)
    with open_executor() if executor is None else nullcontext(executor) as executor:
        with closing(carry_out(function, todo, executor)) as endings:
            for ended in endings:
                if kept is not None and ended.error is None:
                    add_finished(kept, keys[id(ended.run)], ended.result)
                yield ended


def report_all(function, runs, executor, kept, report, name, measured):
    """Carry out a sweep to its end, a line for each run as it ends.

    Parameters
    ----------
    function, runs, executor, kept : see `sweep`; the runs are dataclasses
    report : function of a line of text
    name : function, run -> what it is called in its line
    measured : function, result -> what its line says of it

    Returns
    -------
    results : list, of the runs that finished
    failed : list of dicts, the settings of those that failed, with "error", the reason
    resumed : int, how many results an earlier start had left

    Raises
    ------
    ValueError
        If no run finished.
    """
    results, failed, resumed = [], [], 0
    with closing(sweep(function, runs, executor, kept)) as endings:
        for run, result, error, earlier in endings:
            resumed += earlier
            if error is None:
                results.append(result)
            else:
                failed.append(asdict(run) | {"error": error})
            done, said = len(results) + len(failed), f"FAILED: {error}" if error else measured(result)
            report(f"[{done:>2}/{len(runs)}] {name(run)}   {said}")
    if not results:
        raise ValueError(f"none of the {len(runs)} runs finished; the first failed with {failed[0]['error']}")
    return results, failed, resumed


def carry_out(function, runs, executor):
    """Yield an `Ended` for each run as it ends.

    When a worker dies, Dask blames every run that it held, also those that only waited there behind the
    one that killed it. So the runs that Dask gave up are carried out once more at the end, one at a time:
    then each answers for itself.
    """
    futures = {submit(executor, function, run): run for run in runs}
    suspects = []
    try:
        for future in as_completed(futures):
            ended = end(futures.pop(future), future)
            del future  # Dask would carry out again what is held here when the worker that holds it too dies
            if ended.error is not None and ended.error.startswith("KilledWorker:"):
                suspects.append(ended.run)
            else:
                yield ended
        for run in suspects:
            future = submit(executor, function, run)
            futures = {future: run}
            yield end(run, future)
    finally:
        for future in futures:
            future.cancel()


def submit(executor, function, run):
    """The future of one run; a failed one if the executor broke over an earlier run."""
    try:
        return executor.submit(function, run)
    except BrokenExecutor as error:
        future = Future()
        future.set_exception(error)
        return future


def end(run, future):
    try:
        return Ended(run, future.result())
    except CancelledError:
        return Ended(run, None, "cancelled: the connection to its worker or its scheduler was lost")
    except Exception as error:
        return Ended(run, None, describe(error))
