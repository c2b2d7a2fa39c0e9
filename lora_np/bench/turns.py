"""The yardstick: lora_np and its peers do the same work in turns, each in a process of its own."""

import os
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median

from ..checked import one_of, whole_number
from ..formats import read_tensors
from ..training import available_cores
from .agreement import Outcome, compare
from .process import PINS, Process, WorkerError
from .report import format_row
from .results import make_row
from .rungs import RUNGS, WORKS
from .sides import OURS, check_peer, works_of

TURN = 0.2  # seconds that a turn lasts after its first step, which is not timed; at least one step
PAUSE = 0.03  # seconds between turns, in which waiting threads of the last side go to sleep
PATIENCE = {"compile": 120.0}  # seconds for each command until a side is ready; a C++ compiler may never be
DEFAULT_PATIENCE = 600.0

# Variables that change how fast a library is. They stay as the user has set them, and are reported with the numbers.
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
    as_set : bool, keep variables that pin a library's kernels (`process.PINS`); by default every side runs without
        them, with the kernels that its libraries choose
    report : function of a line, called after each row

    Returns
    -------
    rows : list of Row
    setting : dict of what they were measured with: machine, threads, rounds, versions

    Raises
    ------
    ValueError
        For an unknown kind of work, a peer that is unknown or not installed, or a number out of range.
    """
    cores = available_cores()
    threads = whole_number("threads", cores if threads is None else threads, 1, cores, "the cores of this machine")
    whole_number("rounds", rounds)
    whole_number("seed", seed, least=0)
    for peer in peers:
        check_peer(peer)
    for work in works:
        one_of("work", work, WORKS)
    started, rows, versions = time.perf_counter(), [], {}
    for rung in rungs:
        for work in works:
            row, row_versions = measure(rung, work, peers, threads, rounds, seed, as_set)
            rows.append(row)
            report(format_row(row))
            for side, numbers in row_versions.items():
                versions[side] = versions.get(side, {}) | numbers
    switches = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(SWITCHES)}
    pinned = set() if as_set else switches.keys() & set(PINS)
    setting = {
        "machine": processor_name(),
        "cores": cores,
        "threads": threads,
        "rounds": rounds,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "versions": versions,
        "environment": {name: value for name, value in switches.items() if name not in pinned},
        "not_passed_on": {name: value for name, value in switches.items() if name in pinned},
    }
    return rows, setting


def measure(rung, work, peers, threads, rounds, seed, as_set):
    """Check the sides against one another, then let them take turns: a Row, and the sides' versions.

    Each kind of work has processes of its own: what one leaves in the allocator changes the next one's time, by up to
    a factor of two for a forward pass.
    """
    names = [OURS, *(peer for peer in peers if work in works_of(peer)), "peak"]
    outcomes, seconds, notes, agreement = {}, {}, {}, {}
    # All sides get ready at once: imports and compilers are not timed. The processes stop before the pool waits for
    # them, so that Ctrl-C does not wait for a compiler.
    with ThreadPoolExecutor(len(names)) as pool, ExitStack() as stack:
        processes = {name: stack.enter_context(Process(name, threads, as_set)) for name in names}
        pending = {name: pool.submit(prepare, process, rung, work, seed) for name, process in processes.items()}
        for name in names:
            try:
                outcomes[name] = pending[name].result()
            except WorkerError as error:
                notes[name] = f"not available: {error}"
        ours = outcomes.get(OURS)
        if ours is not None:  # otherwise there is nothing to compare with
            agreement = {name: compare(outcomes[name], ours) for name in outcomes if name not in (OURS, "peak")}
            notes |= {name: f"disagrees: {found.problem}" for name, found in agreement.items() if found.problem}
            ready = {name: processes[name] for name in outcomes if name not in notes}
            seconds = take_turns(ready, rounds, notes)
    row = make_row(rung, work, seconds, agreement, notes, ours and ours.activation_bytes)
    return row, {name: outcome.versions for name, outcome in outcomes.items() if name != "peak"}


def prepare(process, rung, work, seed):
    """Have a side make the case and check it: an Outcome."""
    ask = partial(process.ask, timeout=PATIENCE.get(process.side, DEFAULT_PATIENCE))
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "arrays.safetensors")
        made = ask("make", rung=list(rung), work=work, seed=seed)
        checked = ask("check", file=file)
        arrays, _ = read_tensors(file)
    versions = ask("versions")["versions"]
    return Outcome(checked["loss"], arrays, checked["losses"], made["activation_bytes"], versions)


def take_turns(processes, rounds, notes):
    """Median seconds of a step in each round, by side; a side that fails is left out.

    Every second round goes backwards, so that no side always follows the same other one.

    Parameters
    ----------
    processes : dict, side -> Process
    rounds : int
    notes : dict, to which the reason for a failure is added
    """
    seconds = {name: [] for name in processes}
    for r in range(rounds):
        for name in list(seconds)[:: -1 if r % 2 else 1]:
            try:
                turn = processes[name].ask("turn", seconds=TURN, timeout=DEFAULT_PATIENCE)["seconds"]
                seconds[name].append(median(turn))
            except WorkerError as error:
                notes[name] = f"failed in round {r + 1}: {error}"
                del seconds[name]
            time.sleep(PAUSE)
    return seconds


def processor_name():
    """The processor's name as the system gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
