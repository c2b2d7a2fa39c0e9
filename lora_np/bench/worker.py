"""The process of one side. It reads commands as lines of JSON and answers each with one.

    {"do": "versions"}                                       -> {"versions": {...}}
    {"do": "make", "rung": [...], "work": "full", "seed": 0} -> {}
    {"do": "check", "file": "x.safetensors"}                 -> {"loss": ..., "losses": [...]}
    {"do": "turn", "seconds": 0.2}                           -> {"seconds": [...], "peak_bytes": ...}

`check` writes the side's arrays into the file and then, if a step trains, does three of them. `turn` does one step
without timing it, which fills the caches, and then timed ones for this many seconds, at least one. Its "peak_bytes" are
the largest memory of the process since `check` wrote its file. An error is also an answer: {"error": "..."}.

The yardstick also starts the worker of another checkout of lora_np, so these commands stay as they are.
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
from .case import Rung, make_case
from .sides import SIDES

FIRST_STEPS = 3
PACKAGES = ("numpy", "torch", "peft", "transformers", "jax", "jaxlib")


def main():
    """Answer commands until the parent closes the pipe or is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    answers = answers_only()
    if hasattr(os, "sched_setaffinity"):  # as many cores as threads: the one limit that every library obeys
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    worker = Worker(arguments.side, arguments.threads)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # whatever a library raises: the parent decides what to do about it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def answers_only():
    """The real standard output, for answers alone: what a library prints goes to the error output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


class Worker:
    """The side that this process holds, with a method for each command."""

    def __init__(self, name, threads):
        self.make_side, self.threads, self.side = SIDES[name], threads, None

    def versions(self):
        """Versions of Python, of the packages that this process has loaded, of its BLAS, and of llama.cpp."""
        numbers = {"python": platform.python_version()}
        numbers |= {package: version(package) for package in PACKAGES if package in sys.modules}
        with suppress(ImportError):
            from threadpoolctl import threadpool_info

            libraries = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
            numbers |= {p["internal_api"]: f"{p['version']} {p.get('architecture', '')}".strip() for p in libraries}
        if self.side and self.side.process:
            numbers |= llama_cpp.answer(self.side.process, {"do": "versions"})
        return {"versions": numbers}

    def make(self, rung, work, seed):
        case = make_case(Rung(*rung), work, seed)
        self.side = self.make_side(case, self.threads)
        self.pid = self.side.process.pid if self.side.process else "self"
        self.first_steps = FIRST_STEPS if case.trained else 0
        return {}

    def check(self, file):
        loss, arrays = self.side.check()
        write_tensors(file, {name: np.array(array) for name, array in arrays.items()})
        del arrays  # their memory is for the steps
        forget_peak(self.pid)
        return {"loss": loss, "losses": [self.side.step() for _ in range(self.first_steps)]}

    def turn(self, seconds):
        self.side.step()
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            started = time.perf_counter()
            self.side.step()
            times.append(time.perf_counter() - started)
        return {"seconds": times, "peak_bytes": peak_bytes(self.pid)}


def forget_peak(pid="self"):
    """Give freed memory back and count the peak anew, so that it is the steps' and not that of making the case.

    Linux with glibc can do that.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")


def peak_bytes(pid="self"):
    """The largest memory that a process has had, this one or another, or None where the system does not report it."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


if __name__ == "__main__":
    main()
