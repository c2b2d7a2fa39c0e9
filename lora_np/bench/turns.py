"""The yardstick: lora_np and its peers do the same work in turns, each in a process of its own."""

import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..formats import read_tensors
from ..training import available_cores
from .agreement import Found, compare
from .process import PINS, Process, WorkerError, pinned
from .report import format_row
from .results import Row
from .rungs import RUNGS, WORKS, flops
from .sides import OURS, check_peer, works_of

TURN = 0.2  # seconds that a turn lasts after its first step, which is not timed; or one step
PAUSE = 0.03  # seconds between turns, in which waiting threads of the last side go to sleep
PATIENCE = {"compile": 120.0}  # seconds until a side must be ready; C++ compilers can take for ever
DEFAULT_PATIENCE = 600.0

# Variables that change how fast a library is. They are left as the user has them, and told with the numbers.
SWITCHES = ("OPENBLAS_", "MKL_", "OMP_", "GOMP_", "KMP_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH", "XLA_", "JAX_", "NPY_")
SWITCHES += ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def bench(
    rungs=RUNGS, works=tuple(WORKS), peers=(), threads=None, rounds=5, seed=0, as_set=False, report=lambda line: None
):
    """Time lora_np and its peers.

    Parameters
    ----------
    rungs : sequence of Rung
    works : sequence of keys of WORKS
    peers : sequence of keys of PEERS; or NAME=DIR, the lora_np of another checkout under a name of its own
    threads : int, threads and cores of every side; None: all cores
    rounds : int, turns of each side
    seed : int
    as_set : bool, leave variables that pin a library's kernels (`process.PINS`) as they are set; by default
        every side goes without them, with the kernels that its libraries choose
    report : function of a line, called as the rows come in

    Returns
    -------
    rows : list of Row
    setting : dict of what they were measured with: machine, threads, rounds, versions

    Raises
    ------
    ValueError
        For an unknown kind of work or peer, or a number that is too small.
    """
    threads = check_threads(threads)
    if rounds < 1:
        raise ValueError(f"rounds: got {rounds}, expected at least 1")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected at least 0")
    for peer in peers:
        check_peer(peer)
    for work in works:
        if work not in WORKS:
            raise ValueError(f"work: got {work!r}, expected some of {', '.join(WORKS)}")
    started, rows, versions = time.perf_counter(), [], {}
    with Workers(threads, as_set) as workers, progress(len(rungs) * len(works), report) as tell:
        for rung in rungs:
            for work in works:
                row = measure(rung, work, peers, rounds, seed, workers)
                rows.append(row)
                tell(row)
                for side, found in workers.versions().items():
                    versions[side] = versions.get(side, {}) | found
                # Each kind of work in a process of its own: what one leaves in the allocator changes the next
                # one's time, up to a factor of two for a forward pass.
                workers.stop([OURS, *peers])
    setting = {
        "machine": processor_name(),
        "cores": available_cores(),
        "threads": threads,
        "rounds": rounds,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "versions": versions,
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(SWITCHES) and (as_set or name not in PINS)
        },
        "not_passed_on": {} if as_set else pinned(),
    }
    return rows, setting


def measure(rung, work, peers, rounds, seed, workers):
    """Check the sides against one another, then let them take turns."""
    names = [OURS, *(peer for peer in peers if work in works_of(peer))]
    # What is not timed, imports and compilers above all, is done side by side.
    with ThreadPoolExecutor(len(names)) as pool:
        pending = {name: pool.submit(prepare, workers, name, rung, work, seed) for name in names}
        try:
            wait(pending.values())
        except BaseException:  # a reader who has seen enough should not wait for a compiler
            workers.stop(names)
            raise
    ready, notes, agreements = {}, {}, {}
    for name in names:
        try:
            ready[name] = pending[name].result()
        except WorkerError as error:
            notes[name] = f"not available: {error}"
    if OURS not in ready:  # nothing to compare with
        return Row(rung, work, flops(rung, work), {}, {}, notes, None)
    for name in list(ready)[1:]:
        agreements[name] = compare(ready[name].found, ready[OURS].found)
        if agreements[name].problem:
            notes[name] = f"disagrees: {agreements[name].problem}"
            del ready[name]
    processes = {name: side.process for name, side in ready.items()}
    try:
        processes["peak"] = workers.get("peak")
    except WorkerError as error:
        notes["peak"] = f"not available: {error}"
    seconds = take_turns(processes, rounds, notes)
    return Row(rung, work, flops(rung, work), seconds, agreements, notes, ready[OURS].activation_bytes)


class Ready(NamedTuple):
    """A side that has the case in it."""

    process: Process
    found: Found
    activation_bytes: int | None


def prepare(workers, name, rung, work, seed):
    """A side with the case in it, and what its check gave."""
    deadline = time.monotonic() + PATIENCE.get(name, DEFAULT_PATIENCE)
    process = workers.get(name)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "arrays.safetensors")
        made = process.ask("make", rung=list(rung), work=work, seed=seed, timeout=deadline - time.monotonic())
        checked = process.ask("check", file=file, timeout=max(1.0, deadline - time.monotonic()))
        arrays, _ = read_tensors(file)
    return Ready(process, Found(checked["loss"], arrays, checked["losses"]), made["activation_bytes"])


def take_turns(processes, rounds, notes):
    """Median seconds of a step, a round, of each side; a side that fails on the way has none.

    Every second round goes backwards, so that no side always runs in the other's warmth.

    Parameters
    ----------
    processes : dict, side -> Process
    rounds : int
    notes : dict, into which the reason of a failure is written
    """
    seconds = {name: [] for name in processes}
    for r in range(rounds):
        for name in list(seconds) if r % 2 == 0 else list(reversed(seconds)):
            try:
                turn = processes[name].ask("turn", seconds=TURN, timeout=DEFAULT_PATIENCE)["seconds"]
                seconds[name].append(median(turn))
            except WorkerError as error:
                notes[name] = f"failed in round {r + 1}: {error}"
                del seconds[name]
            time.sleep(PAUSE)
    return seconds


class Workers:
    """The worker processes, started when they are first asked for, and again after a death."""

    def __init__(self, threads, as_set):
        self.threads, self.as_set, self.running = threads, as_set, {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop(list(self.running))

    def get(self, name):
        if name not in self.running or not self.running[name].alive():
            self.stop([name])
            self.running[name] = Process(name, self.threads, self.as_set)
            if name == "peak":  # its one case needs no rung
                self.running[name].ask("make", rung=[], work="", seed=0, timeout=DEFAULT_PATIENCE)
        return self.running[name]

    def versions(self):
        found = {}
        for name, process in self.running.items():
            if process.alive():
                with suppress(WorkerError):  # it may die at this very moment
                    found[name] = process.ask("versions", timeout=DEFAULT_PATIENCE)["versions"]
        return found

    def stop(self, names):
        for name in names:
            if name in self.running:
                self.running.pop(name).stop()


# ---------------------------------------------------------------- the machine


def check_threads(threads):
    """The number of threads, all cores where none is given."""
    cores = available_cores()
    if threads is None:
        return cores
    if not 1 <= threads <= cores:
        raise ValueError(f"threads: got {threads}, expected 1 to {cores}, the cores of this machine")
    return threads


def processor_name():
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@contextmanager
def progress(total, report):
    """Yield a function of a finished Row: it reports a line, above a bar where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda row: report(format_row(row))
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="bench", unit="row", leave=False) as bar:

        def tell(row):
            bar.clear()
            report(format_row(row))
            bar.update()

        yield tell
