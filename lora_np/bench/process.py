"""The parent's hand on a worker: starts it, asks it, and survives its death."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from ..training import process_environment
from .sides import OURS, checkout_of

# Variables that pin a library to kernels other than those that it would choose for the processor. One that is
# set for NumPy's sake alone would slow lora_np and not its peers, so no side sees them.
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "MKL_DEBUG_CPU_TYPE")
PINS += ("MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def pinned():
    """Those that are set, name -> value."""
    return {name: os.environ[name] for name in PINS if name in os.environ}


def side_environment(side, threads, as_set):
    """The environment of a side's process.

    A peer gets the user's, and nothing that could help or hurt it. lora_np gets that of its own workers.

    Parameters
    ----------
    side, threads, as_set : see `Process`

    Returns
    -------
    dict, name -> value
    """
    inherited = {name: value for name, value in os.environ.items() if as_set or name not in PINS}
    is_ours = side in (OURS, "peak") or checkout_of(side)
    added = process_environment(threads) if is_ours else {"HF_HUB_OFFLINE": "1"}
    search_path = [str(code_folder(side)), os.environ.get("PYTHONPATH", "")]
    return {**inherited, **added, "PYTHONPATH": os.pathsep.join(filter(None, search_path))}


def code_folder(side):
    """The folder whose lora_np a side runs: this one, or another checkout's."""
    return (checkout_of(side) or Path(__file__).parents[2]).resolve()


class WorkerError(Exception):
    """A worker answered with an error, died, or took too long. The message says which."""


class Process:
    """A worker process of one side.

    Parameters
    ----------
    side : str, see `sides.make_side`
    threads : int
    as_set : bool, leave PINS in its environment
    """

    def __init__(self, side, threads, as_set=False):
        self.side = side
        self.log = tempfile.TemporaryFile()
        name = OURS if checkout_of(side) else side
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "lora_np.bench.worker", "--side", name, "--threads", str(threads)],
            cwd=code_folder(side),  # `python -m` looks there first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=side_environment(side, threads, as_set),
            start_new_session=True,  # so that it can be stopped together with compilers that it has started
            text=True,
            encoding="utf-8",
        )
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.popen.stdout:
            self.lines.put(line)
        self.lines.put(None)  # the process is gone

    def ask(self, do, timeout=None, **arguments):
        """Send one command and return the answer.

        Parameters
        ----------
        do : str, see the worker's commands
        timeout : float, seconds, or None to wait for as long as it takes

        Raises
        ------
        WorkerError
            After a death or a time-out the process is stopped.
        """
        try:
            self.popen.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.popen.stdin.flush()
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            self.stop()
            raise WorkerError(f"{do} took longer than {timeout:.0f} s") from None
        except OSError:
            line = None
        if line is None:
            code, last = self.popen.wait(), self.last_words()
            self.stop()
            raise WorkerError(f"the process ended with code {code}" + (f": {last}" if last else ""))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(shorten(answer["error"]))
        return answer

    def last_words(self):
        """The last line that the process wrote to its error output."""
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return shorten(lines[-1]) if lines else ""

    def alive(self):
        return self.popen.poll() is None

    def stop(self):
        """End the process, and whatever it has started. It holds nothing that would be worth saving."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.kill()
        self.popen.wait()
        self.reader.join()
        with contextlib.suppress(OSError):  # a command that a dead process has not read
            self.popen.stdin.close()
        self.popen.stdout.close()
        self.log.close()


def shorten(text, most=200):
    """The first line of a library's message, cut where it goes on for too long."""
    first = text.strip().splitlines()[0] if text.strip() else text
    return first if len(first) <= most else first[: most - 1] + "…"
