"""Run a backend in a process that reads commands as lines of JSON and answers each with a line of JSON.

    {"do": "versions"}                                       -> {"versions": {...}}
    {"do": "make", "rung": [...], "work": "full", "seed": 0} -> {}
    {"do": "check", "file": "x.safetensors"}                 -> {"loss": ..., "losses": [...]}
    {"do": "turn", "seconds": 0.2}                           -> {"seconds": [...], "peak_bytes": ...}

`check` runs the backend's check and writes the resulting arrays (gradients, logits or tokens) to the given file. If
the work trains parameters, `check` then runs three training steps.
`turn` is one backend's part of a round: one untimed step, which fills the caches, followed by timed steps (at least
one) for the given number of seconds. "peak_bytes" is the process's peak memory since `check` wrote its file. If a
command fails, the answer is {"error": "..."}.

These commands and the option --side must not change, because the benchmark also starts older checkouts' workers.
"""

import argparse
import ctypes
import json
import os
import platform
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..formats import write_tensors
from . import llama_cpp
from .backends import BACKENDS
from .case import Rung, make_case

FIRST_STEPS = 3
PACKAGES = ("numpy", "torch", "peft", "transformers", "jax", "jaxlib")


def main():
    """Answer commands until the parent process closes the pipe or ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    answers = answers_only()
    if hasattr(os, "sched_setaffinity"):  # use one core per thread, the only limit that every library obeys
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    worker = Worker(arguments.side, arguments.threads)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # a library may raise any error; the parent process decides what to do
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def answers_only():
    """Reserve standard output for answers and return it; the output of libraries is redirected to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


class Worker:
    """This process's backend, with a method for each command."""

    def __init__(self, name, threads):
        self.make_backend, self.threads, self.backend = BACKENDS[name], threads, None

    def versions(self):
        """Return the versions of Python, the loaded packages, BLAS, and llama.cpp."""
        numbers = {"python": platform.python_version()}
        numbers |= {package: version(package) for package in PACKAGES if package in sys.modules}
        with suppress(ImportError):
            from threadpoolctl import threadpool_info

            libraries = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
            numbers |= {p["internal_api"]: f"{p['version']} {p.get('architecture', '')}".strip() for p in libraries}
        if self.backend and self.backend.process:
            numbers |= llama_cpp.answer(self.backend.process, {"do": "versions"})
        return {"versions": numbers}

    def make(self, rung, work, seed):
        """Make the case and the backend for it."""
        case = make_case(Rung(*rung), work, seed)
        self.backend = self.make_backend(case, self.threads)
        self.pid = self.backend.process.pid if self.backend.process else "self"
        self.first_steps = FIRST_STEPS if case.trained else 0
        return {}

    def check(self, file):
        """Run the backend's check and write its arrays to a file; return its loss and the losses of the first steps."""
        loss, arrays = self.backend.check()
        write_tensors(file, {name: np.array(array) for name, array in arrays.items()})
        del arrays  # frees memory for the steps
        forget_peak(self.pid)
        return {"loss": loss, "losses": [self.backend.step() for _ in range(self.first_steps)]}

    def turn(self, seconds):
        """Run steps for the given number of seconds, and time each."""
        self.backend.step()
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            started = time.perf_counter()
            self.backend.step()
            times.append(time.perf_counter() - started)
        return {"seconds": times, "peak_bytes": peak_bytes(self.pid)}


def forget_peak(pid="self"):
    """Return freed memory to the system and reset a process's peak memory, on Linux with glibc.

    The peak memory measured after this call covers only the steps, not the preparation of the case.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")


def peak_bytes(pid="self"):
    """Return the peak memory of a process in bytes, or None if the system does not report it."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


if __name__ == "__main__":
    main()
