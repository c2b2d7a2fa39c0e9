"""Run submissions in a separate process, because they may raise, loop forever or exit.

The process receives inputs, but no worked solutions, and returns outputs. In a sandbox (bubblewrap), it has no network
access, sees no files except Python's and its own, and may write up to 64 MB. It cannot start other processes or create
namespaces, and its memory, threads and time are limited.
"""

import itertools
import json
import os
import platform
import queue
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import lru_cache
from glob import glob
from pathlib import Path

from ..checked import shown
from ..training import process_environment
from .exercise import Failed
from .notebooks import with_this_package
from .runner import MOST_CHARACTERS, decode, encode

STEP_SECONDS = 60  # time limit for a cell or a function call
START_SECONDS = 30
MOST_BYTES = 4_000_000  # largest size of one answer
MOST_ARGUMENTS = 100_000  # largest size of the arguments for a function that stays in the grading process
MOST_THREADS = 64
HANDED_IN = (".ipynb", ".py", ".zip")  # what students hand in
MEMORY = 4_000_000_000  # bytes of address space
FILES = 64_000_000  # bytes of files that the process may write
PACKAGE = Path(__file__).resolve().parents[1]
BESIDE = "notebooks", "tests"  # folders of a clone
RUNNER = PACKAGE / "classroom" / "runner.py"


class Stopped(Exception):
    """Raised, with the reason, if the process ends or is stopped during a step."""


def find_submissions(paths):
    """List the notebooks at the given paths, which may be files, folders or glob patterns.

    Python files and archives are listed too, unless the same student handed in a notebook, so that they are not missed.

    Parameters
    ----------
    paths : list of str; patterns such as `handed_in/*.ipynb` are expanded, in case the shell does not expand them

    Returns
    -------
    list of str without duplicates; paths of missing files are included

    Raises
    ------
    ValueError
        If a folder has no notebook.
    """
    notebooks = []
    for path in paths:
        place = Path(path)
        if place.is_dir():
            files = [p for p in sorted(place.rglob("*")) if p.suffix in HANDED_IN]
            files = [p for p in files if ".ipynb_checkpoints" not in p.parts]
            if not files:
                raise ValueError(f"notebooks: the folder {path} contains no notebook (*.ipynb)")
            with_notebook = {owner(p, place) for p in files if p.suffix == ".ipynb"}
            notebooks += [p for p in files if p.suffix == ".ipynb" or owner(p, place) not in with_notebook]
        elif any(sign in str(path) for sign in "*?[") and not place.exists():
            notebooks += sorted(glob(str(path), recursive=True)) or [path]
        else:
            notebooks.append(path)
    return list(dict.fromkeys(map(str, notebooks)))


def owner(path, place):
    """Return what one student's files in a folder have in common: a subfolder or, in Canvas's downloads, a name."""
    first, *more = path.relative_to(place).parts
    return first if more else first.partition("_")[0] if re.search(r"_\d+_\d+_", first) else ""


# ---------------------------------------------------------------- the process


class Process:
    """A process that runs `runner.py`.

    Parameters
    ----------
    folder : its working directory, except in a sandbox
    sandbox : bool, whether to run it in a sandbox
    """

    def __init__(self, folder, sandbox=False):
        self.sandbox, self._lines = sandbox, queue.Queue(maxsize=1)  # further answers wait in the pipe
        self._seccomp = without_processes() if sandbox else None
        command = sandboxed(self._seccomp.fileno()) if sandbox else [sys.executable, RUNNER]
        self._process = subprocess.Popen(
            list(map(str, command)),
            cwd=None if sandbox else folder,
            env=process_environment() | with_this_package() | {"MPLBACKEND": "Agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._seccomp.fileno()] if sandbox else [],
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with suppress(OSError, ValueError):
            while line := self._process.stdout.readline(MOST_BYTES):
                self._lines.put(line)
        self._lines.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        while self._reader.is_alive():  # empty the queue, so that the reader thread can end
            with suppress(queue.Empty):
                self._lines.get(timeout=0.1)
        for pipe in (self._process.stdin, self._process.stdout, self._seccomp):
            with suppress(OSError, AttributeError):
                pipe.close()

    def ask(self, message, functions=(), seconds=None):
        """Send a message, make the function calls that the process requests until it answers, and return the answer.

        Raises
        ------
        Stopped
            If the process ends, takes longer than `seconds` for all of this, starts too many threads, or sends an
            invalid answer.
        """
        answered, reasons = threading.Event(), []
        watching = threading.Thread(target=self._watch, args=(answered, seconds or STEP_SECONDS, reasons), daemon=True)
        watching.start()
        try:
            while True:
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
                line = self._lines.get()
                if line is None:
                    raise OSError
                answer = json.loads(line)
                if "function" not in answer:
                    return answer
                too_large = {"error": "its arguments are too large"}
                message = result_of(functions, answer) if len(line) < MOST_ARGUMENTS else too_large
        except OSError:
            answered.set()
            watching.join()
            ended = "it ends the Python process, or needs more memory than is available"
            raise Stopped(*(reasons or [ended])) from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Stopped("its return value cannot be read") from None
        finally:
            answered.set()

    def _watch(self, answered, seconds, reasons):
        """Kill the process if it has not answered in time, or has too many threads; append the reason to a list."""
        ends = time.monotonic() + seconds
        while not answered.wait(0.1):
            if time.monotonic() > ends:
                reasons.append(f"it was stopped after {seconds:g} s (is there an infinite loop?)")
            elif self._status("Threads") > MOST_THREADS:
                reasons.append(f"it was stopped because it started more than {MOST_THREADS} threads")
            if reasons:
                return self._process.kill()

    def call(self, exercise, inputs, measure=False):
        """Call a student's function; return its result, the inputs afterwards and, if measured, the peak memory."""
        functions = {}
        message = {"call": exercise.name, "inputs": encode(inputs, functions), "measure": measure}
        answer = self.ask(message, functions)
        if answer.get("error"):
            raise Failed(shown(str(answer["error"]), MOST_CHARACTERS * 2))
        try:
            return decode(answer["returned"]), decode(answer["inputs"], functions.get), int(answer["peak"])
        except Exception:  # depends on the student's answer
            raise Failed("its return value cannot be read") from None

    def peak(self, reset=False):
        """Return a sandboxed process's peak memory in bytes; `reset` sets it to its present memory first."""
        if not self.sandbox:
            return None
        if reset:
            with suppress(OSError):
                (self._innermost() / "clear_refs").write_text("5")
        return 1024 * self._status("VmHWM")

    def _status(self, name):
        """Return a number from the runner's /proc/PID/status, or 0 if it is unknown."""
        with suppress(OSError, StopIteration, ValueError):
            lines = (self._innermost() / "status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
        return 0

    def _innermost(self):
        """Return the /proc folder of the runner's own process, which is a descendant of the sandbox's process."""
        pid = self._process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = children[0]
        return Path(f"/proc/{pid}")


def result_of(functions, answer):
    """Call the function that the process requests, with the arguments that it sent; return the result as a message."""
    try:
        value = functions[answer["function"]](*map(decode, answer["arguments"]))
    except Exception as error:  # depends on the student's arguments
        return {"error": f"{type(error).__name__}: {error}"}
    return {"value": encode(value)}


# ---------------------------------------------------------------- the sandbox


def check_sandbox():
    """Raise ValueError, with advice, unless the sandbox works on this machine."""
    if not shutil.which("bwrap") or platform.machine() not in SYSTEM_CALLS:
        how = "Install bubblewrap, or grade in a virtual machine"
        raise ValueError(f"sandbox: expected Linux on x86_64 or aarch64 with bubblewrap (bwrap). {how}")
    try:
        with tempfile.TemporaryDirectory() as folder, Process(folder, sandbox=True) as process:
            process.ask({"run": "1"}, seconds=START_SECONDS)
    except Stopped:
        how = "does bubblewrap work, and may users create namespaces here?"
        raise ValueError(f"sandbox: the sandboxed process did not start ({how})") from None


def sandboxed(seccomp):
    """Return the command that starts `runner.py` with access to Python's files only; `seccomp` is a file descriptor."""
    runner = "/tmp/runner.py"
    # Python may have been started as ../venv/bin/python, and that folder does not exist in the sandbox.
    prefixes = {os.path.abspath(path) for path in (sys.prefix, sys.base_prefix)}
    shown = {"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", *prefixes, *map(os.path.realpath, prefixes)}
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", FILES, "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path in sorted(shown):  # after /tmp, because a Python environment may be there
        command += ["--ro-bind-try", path, path]
    for path in copies_in(tuple(sorted(shown))):
        command += ["--tmpfs", path, "--remount-ro", path] if path.is_dir() else ["--ro-bind", os.devnull, path]
    command += ["--ro-bind", RUNNER, runner, "--remount-ro", "/dev", "--remount-ro", "/", "--seccomp", seccomp]
    for name, value in (process_environment() | {"MPLBACKEND": "Agg", "HOME": "/tmp", "PATH": "/usr/bin"}).items():
        command += ["--setenv", name, value]
    limits = [f"--as={MEMORY}", f"--fsize={FILES}", f"--cpu={20 * STEP_SECONDS}", "--core=0"]
    return [*command, "prlimit", *limits, os.path.abspath(sys.executable), "-s", runner, "--without-lora-np"]


@lru_cache(maxsize=1)
def copies_in(folders):
    """List all copies of this package in several folders, and the notebooks and tests beside them.

    A copy may be a clone, an installed package, or a file to install it from.
    """
    copies = {PACKAGE, *(PACKAGE.parent / name for name in BESIDE)}
    for folder, inside, files in itertools.chain.from_iterable(map(os.walk, folders)):
        folder = Path(folder)
        if (folder / "classroom" / "exercises").is_dir():
            is_clone = (folder.parent / "pyproject.toml").is_file()
            copies |= {folder, *(folder.parent / name for name in BESIDE if is_clone)}
            inside.clear()
        copies |= {folder / name for name in files if re.fullmatch(r"lora[_-]np.*\.(whl|gz|zip)", name)}
    return [path for path in sorted(copies) if path.exists() and any(path.is_relative_to(place) for place in folders)]


# Machine -> its number in a system call filter, and the numbers of clone and clone3, and of calls that are denied: fork
# and vfork (if they exist), unshare and setns.
SYSTEM_CALLS = {"x86_64": (0xC000003E, 56, 435, (57, 58, 272, 308)), "aarch64": (0xC00000B7, 220, 435, (97, 268))}
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, KILL, NOT_PERMITTED, NOT_IMPLEMENTED = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
THREAD = 0x00010000  # flag of `clone` for a thread instead of a process


def without_processes():
    """Return a file with a seccomp filter that lets a program start threads, but not processes or namespaces."""
    machine, clone, clone3, denied = SYSTEM_CALLS[platform.machine()]
    steps = [  # (operation, number, where to continue if true, where if false)
        (LOAD, 4),  # the architecture for which the call is made
        (EQUAL, machine, "next", "kill"),
        (LOAD, 0),  # the call's number
        (AT_LEAST, 0x40000000, "kill", "next"),  # x32 calls
        (EQUAL, clone3, "absent", "next"),  # the C library then uses `clone`
        *((EQUAL, call, "deny", "next") for call in denied),
        (EQUAL, clone, "next", "allow"),
        (LOAD, 16),  # the flags
        (ANY_BIT, THREAD, "allow", "deny"),
    ]
    ends = {"allow": ALLOW, "deny": NOT_PERMITTED, "absent": NOT_IMPLEMENTED, "kill": KILL}
    places = {name: len(steps) + k for k, name in enumerate(ends)}
    program = []
    for k, (operation, number, *ways) in enumerate(steps):
        jumps = [places.get(way, k + 1) - k - 1 for way in ways] or [0, 0]
        program.append((operation, *jumps, number))
    program += [(RETURN, 0, 0, result) for result in ends.values()]
    file = tempfile.TemporaryFile()
    file.write(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    file.seek(0)
    return file
