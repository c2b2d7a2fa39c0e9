"""Time lora_np and its peers, each in a separate process (`worker.py`), on the same work in interleaved rounds."""

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

from ..checked import one_of, seed_number, whole_number
from ..formats import read_tensors
from ..training import available_cores, process_environment
from .agreement import Outcome, compare
from .backends import OURS, PEERS, check_peer, program_of
from .case import DEFAULT_WORKS, RUNGS, WORKS, rung_numbers
from .report import format_row, make_row

TIMED_SECONDS = 0.2  # for timed steps (at least one) per backend and round, after one untimed step
PAUSE = 0.03  # seconds between two backends, in which the first backend's spinning threads go to sleep
TIMEOUT = 600.0  # seconds for a command; compiling the C++ code for SmolLM2 takes minutes and may never finish

# Environment variables that change a library's speed. The user's values are kept and are reported with the results.
SWITCHES = ("OPENBLAS_", "MKL_", "OMP_", "GOMP_", "KMP_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH", "XLA_", "JAX_", "NPY_")
SWITCHES += ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
# Environment variables that make a library use kernels other than those it would choose for the processor. A variable
# for NumPy would slow down lora_np but not its peers, so by default all these variables are removed for every backend.
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "MKL_DEBUG_CPU_TYPE")
PINS += ("MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def bench(rungs=RUNGS, works=DEFAULT_WORKS, peers=(), threads=None, rounds=5, seed=0, as_set=False, report=print):
    """Time lora_np and its peers.

    Parameters
    ----------
    rungs : sequence of Rung
    works : sequence of keys of WORKS
    peers : sequence of str: keys of PEERS, or NAME=DIR for another checkout of lora_np, reported as NAME
    threads : int, number of threads and cores of every backend, or None for all cores
    rounds : int
    seed : int
    as_set : bool, whether to keep the user's values of the variables in PINS, which override the choice of kernels
    report : function that takes a line of text, called after each row

    Returns
    -------
    rows : list of Row
    setting : dict, the conditions of the measurement: machine, threads, rounds, versions

    Raises
    ------
    ValueError
        If a kind of work is unknown, a peer is unknown or not installed, or a number is out of range.
    """
    cores = available_cores()
    threads = whole_number("threads", cores if threads is None else threads, 1, cores, "the cores of this machine")
    whole_number("rounds", rounds)
    seed_number("seed", seed)
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
            for name, numbers in row_versions.items():
                versions.setdefault(name, {}).update(numbers)
    environment = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(SWITCHES)}
    removed = {name: environment.pop(name) for name in PINS if name in environment and not as_set}
    setting = {"machine": processor_name(), "cores": cores, "threads": threads, "rounds": rounds, "seed": seed}
    setting |= {"seconds": time.perf_counter() - started, "versions": versions}
    return rows, setting | {"environment": environment, "not_passed_on": removed}


def measure(rung, work, peers, threads, rounds, seed, as_set):
    """Time all backends on one kind of work and one rung; return the Row and the backends' versions.

    Each kind of work runs in its own processes. In shared processes, one kind of work would leave the memory allocator
    in a state that changes the time of the next kind, by up to a factor of two for a forward pass.
    """
    names = [OURS, *(peer for peer in peers if peer not in PEERS or work in PEERS[peer].works), "peak"]
    outcomes, seconds, peaks, notes, agreement = {}, {}, {}, {}, {}
    # All backends prepare in parallel, because imports and compilation are not timed. The processes are stopped before
    # the pool waits for its threads, so that Ctrl-C does not wait for a compiler.
    with ThreadPoolExecutor(len(names)) as pool, ExitStack() as stack:
        processes = {name: stack.enter_context(Process(name, threads, as_set)) for name in names}
        pending = {name: pool.submit(prepare, process, rung, work, seed) for name, process in processes.items()}
        for name in names:
            try:
                outcomes[name] = pending[name].result()
            except WorkerError as error:
                notes[name] = f"not available: {error}"
        ours = outcomes.get(OURS)
        if ours is not None:  # otherwise there is no reference
            agreement = {name: compare(outcomes[name], ours) for name in outcomes if name not in (OURS, "peak")}
            notes |= {name: f"disagrees: {judged.problem}" for name, judged in agreement.items() if judged.problem}
            ready = {name: processes[name] for name in outcomes if name not in notes}
            seconds, peaks = time_rounds(ready, rounds, notes)
    row = make_row(rung, work, seconds, agreement, notes, peaks)
    return row, {name: outcome.versions for name, outcome in outcomes.items() if name != "peak"}


def prepare(process, rung, work, seed):
    """Create the case in a backend's process, and run the backend's check; return the Outcome."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "arrays.safetensors")
        process.ask("make", rung=rung_numbers(rung), work=work, seed=seed)
        checked = process.ask("check", file=file)
        arrays, _ = read_tensors(file)
    return Outcome(checked["loss"], arrays, checked["losses"], process.ask("versions")["versions"])


def time_rounds(processes, rounds, notes):
    """Time the backends in interleaved rounds; every second round runs in reverse order.

    Parameters
    ----------
    processes : dict, backend -> Process
    rounds : int
    notes : dict, backend -> reason; a reason is added if a backend fails

    Returns
    -------
    seconds : dict, backend -> list of the median time of a step in each round, in seconds; without failed backends
    peaks : dict, backend -> peak memory in bytes, or None if unknown
    """
    seconds, peaks = {name: [] for name in processes}, {}
    for r in range(rounds):
        for name in list(seconds)[:: -1 if r % 2 else 1]:
            try:
                answer = processes[name].ask("turn", seconds=TIMED_SECONDS)
                seconds[name].append(median(answer["seconds"]))
                peaks[name] = answer.get("peak_bytes")  # older checkouts do not report it
            except WorkerError as error:
                notes[name] = f"failed in round {r + 1}: {error}"
                del seconds[name]
            time.sleep(PAUSE)
    return seconds, peaks


def processor_name():
    """Return the processor's name as reported by the system."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---------------------------------------------------------------- a backend's process


def backend_environment(name, threads, as_set):
    """Return a backend's environment variables: the user's and, for lora_np, those of `process_environment`."""
    _, folder = program_of(name)
    inherited = {name: value for name, value in os.environ.items() if as_set or name not in PINS}
    added = {"HF_HUB_OFFLINE": "1"} if name in PEERS and PEERS[name].packages else process_environment(threads)
    search_path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**inherited, **added, "PYTHONPATH": os.pathsep.join(filter(None, search_path))}


class WorkerError(Exception):
    """Raised if a worker answers with an error, dies, or times out; the message says which."""


class Process(subprocess.Popen):
    """A backend's worker process, and a context manager that stops this process on exit.

    Parameters
    ----------
    backend : str, a key of BACKENDS, or NAME=DIR for another checkout
    threads : int
    as_set : bool, whether to keep the user's values of the variables in PINS
    """

    def __init__(self, backend, threads, as_set=False):
        self.backend, self.log = backend, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        name, folder = program_of(backend)
        command = [sys.executable, "-m", "lora_np.bench.worker", "--side", name, "--threads", str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log, "encoding": "utf-8"}
        environment = backend_environment(backend, threads, as_set)
        # `python -m` searches cwd first. `kill` ends the whole session, including compilers that the process started.
        super().__init__(command, cwd=folder, env=environment, start_new_session=True, **pipes)

    def ask(self, do, timeout=TIMEOUT, **arguments):
        """Send one of the commands in `worker.py` and return the answer.

        Raises
        ------
        WorkerError
            If the answer is an error, or if the process dies or is stopped after `timeout` seconds.
        """
        start, line = time.monotonic(), ""
        timer = Timer(timeout, self.kill)  # killing the process ends the wait for an answer
        timer.start()
        try:
            self.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.stdin.flush()
            line = self.stdout.readline()
        except OSError:  # the process is dead
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
        """Kill the process and its children."""
        self.kill()
        with suppress(OSError):  # raised if the process died before it read its last command
            super().__exit__(*exception)
        self.log.close()

    def kill(self):
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        super().kill()
