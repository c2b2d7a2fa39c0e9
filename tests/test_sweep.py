"""Sweeps: the same results from every executor, failures reported, and the rest kept in the store."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_np import cli
from lora_np.experiments import store
from lora_np.experiments.methods import tuned_runs
from lora_np.experiments.runs.classify import ClassifyRun
from lora_np.experiments.runs.planted import PlantedRun
from lora_np.training import sweep as sweeping
from lora_np.training.sweep import TRIES, open_executor, sweep, worker_count

ROOT = Path(__file__).resolve().parents[1]
RUNS = list(tuned_runs(("full", "qv_r1", "head"), (0, 1), passes=3, epochs=1, limit=40, keep=False).values())


class Serial(Executor):
    """One call after the other, here; it may give up the first ones, as if a worker had died with them."""

    def __init__(self, gives_up=0):
        self.gives_up = gives_up

    def submit(self, function, /, *arguments):
        future = Future()
        if getattr(arguments[-1], "deed", "") == "break":
            raise BrokenProcessPool("no process")
        try:
            self.gives_up -= 1
            if self.gives_up >= 0 or getattr(arguments[-1], "deed", "") == "die":
                raise KilledWorker("on 4 different workers")
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


class KilledWorker(Exception):
    pass


@dataclass(frozen=True)
class Task:
    """A run for the workers below: what it does, and where it leaves traces."""

    number: int
    folder: str = ""
    seconds: float = 0.0
    deed: str = ""


def carry_out(task):
    """Leave a trace with the process's id, then do the deed."""
    if task.folder:
        with open(Path(task.folder) / f"{task.number}.begun", "a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(task.seconds)
    if task.deed == "raise":
        raise ArithmeticError(f"no {task.number}\nhere")
    if task.deed == "die" or task.deed == "die once" and len(begun(task.folder)[task.number]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.deed == "leave":
        os._exit(3)
    if task.deed == "odd error":
        raise OddError("a", "b")
    return (lambda: None) if task.deed == "lambda" else {"square": task.number**2, "process": os.getpid()}


class OddError(Exception):
    """Cannot be unpacked: it is packed with one argument and made from two."""

    def __init__(self, one, two):
        super().__init__(one + two)


def begun(folder):
    """number -> the processes in which its run was begun."""
    return {int(path.stem): [int(line) for line in path.read_text().split()] for path in Path(folder).glob("*.begun")}


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return result


def alive(pid):
    """Whether a process is there and not a corpse that nobody has fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def squares(endings):
    return {e.run.number: e.result["square"] for e in endings if e.error is None}


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    settings = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=2, **settings) as cluster:
        yield cluster


@pytest.fixture(params=["jobs", "dask"])
def workers(request):
    """Two processes here, and two of a Dask cluster."""
    return 2 if request.param == "jobs" else request.getfixturevalue("cluster").scheduler_address


@pytest.mark.slow
def test_workers_give_what_one_after_the_other_gives(workers):
    results = {RUNS.index(e.run): e.result for e in sweep(ClassifyRun.carry_out, RUNS, workers)}
    assert results == {i: run.carry_out() for i, run in enumerate(RUNS)}


@pytest.mark.slow
def test_failed_runs_are_reported_and_the_rest_is_kept(workers, tmp_path):
    """Also of a process that is killed once; with processes here, the other runs are not even begun again."""
    deeds = {2: "raise", 3: "die"} | ({5: "lambda", 6: "odd error", 7: "leave"} if workers == 2 else {})
    tasks = [Task(i, str(tmp_path), deed=deeds.get(i, "die once" if i == 1 else "")) for i in range(9)]
    endings = list(sweep(carry_out, tasks, workers))
    assert squares(endings) == {i: i**2 for i in range(9) if i not in deeds}
    errors = {e.run.number: e.error for e in endings if e.error is not None}
    assert set(errors) == set(deeds) and errors[2] == "ArithmeticError: no 2 here"
    tries = {i: len(pids) for i, pids in begun(tmp_path).items()}
    assert tries[1] >= 2 and not any(os.getpid() in pids for pids in begun(tmp_path).values())
    if workers != 2:
        assert errors[3].startswith("KilledWorker: ")
        return
    for number in (3, 7):
        assert f"the process died {TRIES} times; it may have run out of memory" in errors[number]
    assert "pickle" in errors[5] and errors[6] == "OddError: ab"
    assert tries == {i: {1: 2, 3: TRIES, 7: TRIES}.get(i, 1) for i in range(9)}


def test_without_an_executor_the_sweep_opens_its_own_and_puts_all_back():
    before, threads = dict(os.environ), set(threading.enumerate())
    (ended,) = sweep(os.getenv, ["GLIBC_TUNABLES"])
    assert f"trim_threshold={2**34}" in ended.result and ended.error is None
    with open_executor(1):
        assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert dict(os.environ) == before and not set(threading.enumerate()) - threads
    assert list(sweep(carry_out, [])) == []
    assert worker_count(3) == 3 and 1 <= worker_count() <= os.cpu_count()
    with pytest.raises(ValueError, match="jobs: got 0"):
        worker_count(0)


def test_leaving_a_sweep_ends_its_processes(tmp_path):
    with open_executor(2) as executor:
        endings = sweep(carry_out, [Task(0), *(Task(i, str(tmp_path), seconds=60) for i in range(1, 5))], executor)
        assert next(endings).run.number == 0
        (one,), (other,) = (wait_for(lambda n=number: begun(tmp_path).get(n)) for number in (1, 2))
    endings.close()
    assert set(begun(tmp_path)) == {1, 2} and one != other and not alive(one) and not alive(other)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(carry_out, Task(1))


def test_a_broken_pool_fails_what_was_left():
    """What a pool of another kind does not carry out again is reported all the same; it refuses even to take a run."""
    endings = list(sweep(carry_out, [Task(i, deed="break" if i > 1 else "") for i in range(4)], Serial()))
    assert squares(endings) == {0: 0, 1: 1}
    assert [e.error for e in endings if e.error] == ["BrokenProcessPool: no process"] * 2


LONG = [PlantedRun(1, 1, seed, steps=2 if seed < 3 else 10**6) for seed in range(6)]


def long_sweep(folder):
    """Started in a process of its own, to be killed."""
    store.carry_out_all(LONG, folder, 2, lambda line: print("ended", flush=True))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the workers there")
def test_a_killed_sweep_resumes_and_leaves_no_process(tmp_path):
    code = f"from tests.test_sweep import long_sweep; long_sweep({str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert [process.stdout.readline() for _ in range(3)] == ["ended\n"] * 3
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = {pid for path in threads for pid in path.read_text().split()}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(pids) >= 2
    wait_for(lambda: not any(alive(pid) for pid in pids), seconds=5)
    assert [store.kept_numbers(tmp_path, run) is not None for run in LONG] == [True] * 3 + [False] * 3
    assert store.carry_out_all(LONG[:3], tmp_path, Serial(), lambda line: None)[2] == 3


def test_jobs_and_dask_exclude_each_other_and_dask_may_not_be_installed(monkeypatch, capsys, fails):
    dask = "tcp://127.0.0.1:8786"
    assert cli.main(["run", "--jobs", "2", "--dask", dask]) == 2
    assert "not allowed with" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    fails("run", "--dask", dask, says=['pip install ".[cluster]"'])


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere", "", "odd://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there(address, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweeping, "CONNECT_SECONDS", 0.2)
    with pytest.raises(ValueError, match=f"no scheduler answered at '{address}'"), open_executor(address):
        pass


def test_runs_that_shared_a_killed_worker_are_tried_again_alone():
    """An executor that blames all it holds, as Dask may: only the run that fails alone too is reported."""
    tasks = [Task(i, deed="die" if i == 2 else "") for i in range(8)]
    endings = list(sweep(carry_out, tasks, Serial(gives_up=5)))
    assert squares(endings) == {i: i**2 for i in range(8) if i != 2}
    assert [(e.run.number, e.error) for e in endings if e.error] == [(2, "KilledWorker: on 4 different workers")]


@pytest.mark.slow
def test_dask_does_not_carry_out_again_what_a_killed_worker_had_finished(cluster, tmp_path):
    tasks = [Task(i, str(tmp_path), seconds=1.0 if i > 3 else 0.0) for i in range(6)]
    endings = sweep(carry_out, tasks, cluster.scheduler_address)
    first = [next(endings) for _ in range(4)]
    wait_for(lambda: len(cluster.scheduler.tasks) == 2, seconds=5)  # it hears a little later what is let go
    for number in (4, 5):  # one on each worker, so that both are killed
        os.kill(wait_for(lambda n=number: begun(tmp_path).get(n))[0], signal.SIGKILL)
    rest = list(endings)
    assert squares([*first, *rest]) == {i: i**2 for i in range(6)}
    pids = begun(tmp_path)
    assert [len(pids[i]) for i in range(4)] == [1] * 4
    assert len(pids[4]) >= 2 and len(pids[5]) >= 2
