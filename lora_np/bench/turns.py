"""The yardstick: lora_np and its peers do the same work in turns, each in a process of its own (`worker.py`)."""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from textwrap import shorten
from threading import Timer

from ..checked import one_of, whole_number
from ..formats import read_tensors
from ..training import available_cores, process_environment
from .agreement import Outcome, compare
from .case import DEFAULT_WORKS, RUNGS, WORKS, rung_numbers
from .report import format_row, make_row
from .sides import OURS, PEERS, check_peer, program_of

TURN = 0.2  # seconds that a turn lasts after its first step, which is not timed; at least one step
PAUSE = 0.03  # seconds between turns, in which waiting threads of the last side go to sleep
PATIENCE = 600.0  # seconds for a command; a C++ compiler takes minutes for SmolLM2, and may never be ready

# Variables that change how fast a library is. They stay as the user has set them, and are reported with the numbers.
SWITCHES = ("OPENBLAS_", "MKL_", "OMP_", "GOMP_", "KMP_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH", "XLA_", "JAX_", "NPY_")
SWITCHES += ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
# Those that pin a library to other kernels than it would choose for the processor. One that is set for NumPy would slow
# lora_np and not its peers, so by default no side gets any of them.
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "MKL_DEBUG_CPU_TYPE")
PINS += ("MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def bench(
    rungs=RUNGS, works=DEFAULT_WORKS, peers=(), threads=None, rounds=5, seed=0, as_set=False, report=lambda line: None
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
    as_set : bool, keep the variables in PINS; by default every side runs with the kernels that its libraries choose
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
                versions.setdefault(side, {}).update(numbers)
    environment = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(SWITCHES)}
    pinned = [name for name in environment if name in PINS and not as_set]
    setting = {
        "machine": processor_name(),
        "cores": cores,
        "threads": threads,
        "rounds": rounds,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "versions": versions,
        "environment": environment,
        "not_passed_on": {name: environment.pop(name) for name in pinned},
    }
    return rows, setting


def measure(rung, work, peers, threads, rounds, seed, as_set):
    """Check the sides against one another, then let them take turns: a Row, and the sides' versions.

    Each kind of work has processes of its own: what one leaves in the allocator changes the next one's time, by up to
    a factor of two for a forward pass.
    """
    names = [OURS, *(peer for peer in peers if peer not in PEERS or work in PEERS[peer].works), "peak"]
    outcomes, seconds, peaks, notes, agreement = {}, {}, {}, {}, {}
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
            notes |= {name: f"disagrees: {judged.problem}" for name, judged in agreement.items() if judged.problem}
            ready = {name: processes[name] for name in outcomes if name not in notes}
            seconds, peaks = take_turns(ready, rounds, notes)
    row = make_row(rung, work, seconds, agreement, notes, peaks)
    return row, {name: outcome.versions for name, outcome in outcomes.items() if name != "peak"}


def prepare(process, rung, work, seed):
    """Have a side make the case and check it: an Outcome."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "arrays.safetensors")
        process.ask("make", rung=rung_numbers(rung), work=work, seed=seed)
        checked = process.ask("check", file=file)
        arrays, _ = read_tensors(file)
    return Outcome(checked["loss"], arrays, checked["losses"], process.ask("versions")["versions"])


def take_turns(processes, rounds, notes):
    """Median seconds of a step in each round, and the peak of memory in bytes, each by side.

    A side that fails is left out, and `notes` gets the reason. Every second round goes backwards, so that no side
    always follows the same other one. `processes` is a dict, side -> Process.
    """
    seconds, peaks = {name: [] for name in processes}, {}
    for r in range(rounds):
        for name in list(seconds)[:: -1 if r % 2 else 1]:
            try:
                answer = processes[name].ask("turn", seconds=TURN)
                seconds[name].append(median(answer["seconds"]))
                peaks[name] = answer.get("peak_bytes")  # which older checkouts do not report
            except WorkerError as error:
                notes[name] = f"failed in round {r + 1}: {error}"
                del seconds[name]
            time.sleep(PAUSE)
    return seconds, peaks


def processor_name():
    """The processor's name as the system gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---------------------------------------------------------------- one side's process


def side_environment(side, threads, as_set):
    """The environment of a side's process: for another library the user's, for lora_np that of its own workers."""
    _, folder = program_of(side)
    inherited = {name: value for name, value in os.environ.items() if as_set or name not in PINS}
    added = {"HF_HUB_OFFLINE": "1"} if side in PEERS and PEERS[side].packages else process_environment(threads)
    search_path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**inherited, **added, "PYTHONPATH": os.pathsep.join(filter(None, search_path))}


class WorkerError(Exception):
    """A worker answered with an error, died, or took too long. The message says which."""


class Process(subprocess.Popen):
    """A worker process of one side, as a context that stops it.

    Parameters
    ----------
    side : str, a key of SIDES, or NAME=DIR for another checkout
    threads : int
    as_set : bool, leave PINS in its environment
    """

    def __init__(self, side, threads, as_set=False):
        self.side, self.log = side, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        name, folder = program_of(side)
        super().__init__(
            [sys.executable, "-m", "lora_np.bench.worker", "--side", name, "--threads", str(threads)],
            cwd=folder,  # `python -m` looks there first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=side_environment(side, threads, as_set),
            start_new_session=True,  # so that `kill` also ends the compilers that it has started
            encoding="utf-8",
        )

    def ask(self, do, timeout=PATIENCE, **arguments):
        """Send a command, see `worker.py`, and return the answer within `timeout` seconds.

        Raises
        ------
        WorkerError
            If the answer is an error. After a death or a time-out the process is stopped.
        """
        start, line = time.monotonic(), ""
        timer = Timer(timeout, self.kill)  # the death of the process ends the wait for its answer
        timer.start()
        try:
            self.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.stdin.flush()
            line = self.stdout.readline()
        except OSError:  # a dead process does not read its command
            pass
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            code = self.wait()
            if time.monotonic() - start >= timeout:
                raise WorkerError(f"{do} took longer than {timeout:.0f} s")
            self.log.seek(0)
            said = [f"the process ended with code {code}", *self.log.read().strip().splitlines()[-1:]]
            raise WorkerError(shorten(": ".join(said), 240, placeholder="…"))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(shorten(answer["error"], 200, placeholder="…"))
        return answer

    def __exit__(self, *exception):
        """End the process and all that it has started. It holds nothing worth saving."""
        self.kill()
        with suppress(OSError):  # a dead process may not have read its last command
            super().__exit__(*exception)
        self.log.close()

    def kill(self):
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        super().kill()
