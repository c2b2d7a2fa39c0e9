"""The parent's end of a worker: it starts the process, sends it commands, and survives its death."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from threading import Timer

from ..training import process_environment
from .sides import OURS, checkout_of

# Variables that pin a library to other kernels than it would choose for the processor. One that is set for NumPy
# would slow lora_np and not its peers, so by default no side gets any of them.
PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NPY_DISABLE_CPU_FEATURES", "MKL_DEBUG_CPU_TYPE")
PINS += ("MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def side_environment(side, threads, as_set):
    """The environment variables of a side's process: for a peer the user's, for lora_np those of its own workers."""
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
    """A worker process of one side, as a context that stops it.

    Parameters
    ----------
    side : str, see `sides.make_side`, or NAME=DIR for another checkout
    threads : int
    as_set : bool, leave PINS in its environment
    """

    def __init__(self, side, threads, as_set=False):
        self.side, self.log = side, tempfile.TemporaryFile()
        name = OURS if checkout_of(side) else side
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "lora_np.bench.worker", "--side", name, "--threads", str(threads)],
            cwd=code_folder(side),  # `python -m` looks there first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=side_environment(side, threads, as_set),
            start_new_session=True,  # so that `kill` also ends the compilers that it has started
            encoding="utf-8",
        )

    def ask(self, do, timeout=None, **arguments):
        """Send a command, see `worker.py`, and return the answer within `timeout` seconds; None waits without limit.

        Raises
        ------
        WorkerError
            If the answer is an error. After a death or a time-out the process is stopped.
        """
        start, line = time.monotonic(), ""
        timer = Timer(timeout, self.kill)  # the death of the process ends the wait for its answer
        timer.start()
        try:
            self.popen.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.popen.stdin.flush()
            line = self.popen.stdout.readline()
        except OSError:  # a dead process does not read its command
            pass
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            code = self.popen.wait()
            if timeout is not None and time.monotonic() - start >= timeout:
                raise WorkerError(f"{do} took longer than {timeout:.0f} s")
            raise WorkerError(f"the process ended with code {code}{self.last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(shorten(answer["error"], 200, placeholder="…"))
        return answer

    def last_words(self):
        """The last line that the process wrote to its error output, after a colon."""
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return f": {shorten(lines[-1], 200, placeholder='…')}" if lines else ""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        """End the process and all that it has started. It holds nothing worth saving."""
        self.kill()
        with suppress(OSError):  # a dead process may not have read its last command
            self.popen.__exit__(*exception)
        self.log.close()

    def kill(self):
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.kill()
