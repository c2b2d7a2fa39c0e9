"""Run submissions in a separate process, because they may raise, loop forever or exit.

The process receives inputs, but no worked solutions, and returns outputs. In a sandbox (bubblewrap), it has no network
access, sees no files except Python's and its own, and may write up to 64 MB. It cannot start other processes, and its
memory and time are limited.
"""

import json
import os
import platform
import queue
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from glob import glob
from pathlib import Path

from ..training import process_environment
from .examine import Failed
from .runner import decode, encode

STEP_SECONDS = 60  # time limit for a cell or a function call
START_SECONDS = 30
MOST_BYTES = 64_000_000  # largest size of one answer
MEMORY = 4_000_000_000  # bytes of address space
FILES = 64_000_000  # bytes of files that the process may write
PACKAGE = Path(__file__).resolve().parents[1]
RUNNER = PACKAGE / "classroom" / "runner.py"


class Stopped(Exception):
    """Raised, with the reason, if the process ends or is stopped during a step."""


def find_submissions(paths):
    """List the notebooks at the given paths, which may be files, folders or glob patterns.

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
            inside = [p for p in sorted(place.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
            if not inside:
                raise ValueError(f"notebooks: the folder {path} contains no notebook (*.ipynb)")
            notebooks += inside
        elif any(sign in str(path) for sign in "*?[") and not place.exists():
            notebooks += sorted(glob(str(path), recursive=True)) or [path]
        else:
            notebooks.append(path)
    return list(dict.fromkeys(map(str, notebooks)))


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
        paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            list(map(str, command)),
            cwd=None if sandbox else folder,
            env=process_environment() | {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": paths},
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
            If the process ends, takes longer than `seconds`, or sends an invalid answer.
        """
        seconds = STEP_SECONDS if seconds is None else seconds
        while True:
            try:
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                raise Stopped(f"it was stopped after {seconds:g} s (is there an infinite loop?)") from None
            except OSError:
                line = None
            if line is None:
                raise Stopped("it ends the Python process, or needs more memory than is available")
            try:
                answer = json.loads(line)
                if "function" not in answer:
                    return answer
                message = result_of(functions, answer)
            except (ValueError, TypeError, KeyError, RecursionError):
                raise Stopped("its return value cannot be read") from None

    def call(self, exercise, measure=False):
        """Return a function, inputs -> the student's result (or the call's peak memory), and the inputs afterwards."""

        def call(inputs):
            functions = {}
            message = {"call": exercise.name, "inputs": encode(inputs, functions), "measure": measure}
            answer = self.ask(message, functions)
            if answer.get("error"):
                raise Failed(str(answer["error"]))
            try:
                inputs_after = decode(answer["inputs"], functions.get)
                return (answer["peak"] if measure else decode(answer["returned"])), inputs_after
            except Exception:  # depends on the student's answer
                raise Failed("its return value cannot be read") from None

        return call

    def peak(self):
        """Return a sandboxed process's peak memory in bytes since the last `forget_peak`, or None if it is unknown."""
        if not self.sandbox:
            return None
        with suppress(OSError, StopIteration, ValueError):
            lines = (self._innermost() / "status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        return None

    def forget_peak(self):
        with suppress(OSError):
            (self._innermost() / "clear_refs").write_text("5")

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
    shown = {"/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", sys.prefix, sys.base_prefix}
    shown |= {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)}
    hidden = [path for path in (PACKAGE, PACKAGE.parent / "notebooks", PACKAGE.parent / "tests") if path.exists()]
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(FILES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path in sorted(shown):  # after /tmp, because a Python environment may be there
        command += ["--ro-bind-try", path, path]
    for path in hidden:  # if the environment is inside the clone, or the package inside the environment
        if any(Path(path).is_relative_to(place) for place in shown):
            command += ["--tmpfs", path]
    command += ["--ro-bind", RUNNER, runner, "--seccomp", seccomp]
    for name, value in (process_environment() | {"MPLBACKEND": "Agg", "HOME": "/tmp", "PATH": "/usr/bin"}).items():
        command += ["--setenv", name, value]
    limits = [f"--as={MEMORY}", f"--fsize={FILES}", f"--cpu={20 * STEP_SECONDS}", "--core=0"]
    return [*command, "prlimit", *limits, sys.executable, "-s", runner, "--without-lora-np"]


# Machine -> its number in a system call filter, and the numbers of clone, clone3, and (if they exist) fork and vfork.
SYSTEM_CALLS = {"x86_64": (0xC000003E, 56, 435, (57, 58)), "aarch64": (0xC00000B7, 220, 435, ())}
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, KILL, NOT_PERMITTED, NOT_IMPLEMENTED = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
THREAD = 0x00010000  # flag of `clone` for a thread instead of a process


def without_processes():
    """Return a file with a seccomp filter that lets a program start threads, but not processes."""
    machine, clone, clone3, forks = SYSTEM_CALLS[platform.machine()]
    steps = [  # (operation, number, where to continue if true, where if false)
        (LOAD, 4),  # the architecture for which the call is made
        (EQUAL, machine, "next", "kill"),
        (LOAD, 0),  # the call's number
        (AT_LEAST, 0x40000000, "kill", "next"),  # x32 calls
        (EQUAL, clone3, "absent", "next"),  # the C library then uses `clone`
        *((EQUAL, call, "deny", "next") for call in forks),
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
