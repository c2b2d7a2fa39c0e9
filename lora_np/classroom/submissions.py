"""Run a student's notebook to its end, whatever its cells do: raise, loop for ever, print no end, end the kernel."""

import copy
import threading
from glob import glob
from pathlib import Path

from .agreement import text
from .notebooks import client_of, run, stored

CELL_SECONDS = 60  # then a cell is interrupted
GRACE_SECONDS = 5  # in which it has to stop; then its kernel is killed
MOST_PRINTED = 2_000_000  # characters; what prints more is killed, too
LEFT_OUT = "lora_np_left_out"  # in a cell's metadata: why all the others were run without it


def find_submissions(paths):
    """The notebooks that are meant by paths of files, of folders (all notebooks in them), or by patterns.

    Parameters
    ----------
    paths : list of str; a pattern such as `handed_in/*.ipynb` is for shells that do not expand it themselves

    Returns
    -------
    list of str, each once; a path that is not there stays in it

    Raises
    ------
    ValueError
        If a folder holds no notebook.
    """
    found = []
    for path in paths:
        place = Path(path)
        if place.is_dir():
            inside = [p for p in sorted(place.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
            if not inside:
                raise ValueError(f"notebooks: the folder {path} holds no notebook (*.ipynb)")
            found += inside
        elif any(sign in str(path) for sign in "*?[") and not place.exists():
            found += sorted(glob(str(path), recursive=True)) or [path]
        else:
            found.append(path)
    return list(dict.fromkeys(map(str, found)))


def run_submission(path, notebook):
    """Run a notebook from a clean kernel, all cells, also after one that raises.

    A cell that ends its kernel, does not stop when it is interrupted, or prints without end is left out, and all is run
    again without it, so that it costs what depends on it and nothing else.

    Parameters
    ----------
    path : whose folder is the kernel's working directory
    notebook : what is run; it stays as it is

    Returns
    -------
    A new notebook with outputs; a cell that was left out says why in its metadata, under LEFT_OUT
    """
    left_out = {}
    while True:
        trial = copy.deepcopy(notebook)
        for number, why in left_out.items():
            trial.cells[number].metadata[LEFT_OUT] = why
            trial.cells[number].source = ""
        culprit, why = one_run(path, trial)
        if culprit is None:
            return stored(trial)
        left_out[culprit] = why


def one_run(path, notebook):
    """Run a notebook as far as its kernel lives.

    Returns
    -------
    culprit : int, the cell in which the kernel has died, or None
    why : str
    """
    from nbclient.exceptions import DeadKernelError

    client = client_of(path, notebook, timeout=CELL_SECONDS, interrupt_on_timeout=True, allow_errors=True)
    now = {"cell": 0, "printed": 0, "why": "it ends the kernel", "watch": None}

    def kill(why):
        process = client.km.provisioner.process
        if process is not None:  # it has not ended by itself meanwhile
            now["why"] = why
            process.kill()

    def begin(cell, cell_index):
        stop()
        why = f"it runs for more than {CELL_SECONDS} s, and does not stop when it is interrupted"
        now.update(cell=cell_index, printed=0, watch=threading.Timer(CELL_SECONDS + GRACE_SECONDS, kill, [why]))
        now["watch"].daemon = True
        now["watch"].start()

    def stop():
        if now["watch"] is not None:
            now["watch"].cancel()

    def keep(outputs, message, *rest, put=client.output):
        if message["msg_type"] == "stream":
            now["printed"] += len(message["content"]["text"])
            if now["printed"] > MOST_PRINTED:
                return kill("it prints without end")
        return put(outputs, message, *rest)

    client.on_cell_execute, client.output = begin, keep
    try:
        run(client)
    except DeadKernelError:
        return now["cell"], now["why"]
    finally:
        stop()
    return None, ""


def error_of(cell):
    """The first error that a cell has put out, in words, or None."""
    if cell is None:
        return None
    if LEFT_OUT in cell.metadata:
        return f"{cell.metadata[LEFT_OUT]}; all else was run without it"
    errors = [output for output in cell.get("outputs", ()) if output.output_type == "error"]
    if not errors:
        return None
    if errors[0].ename == "KeyboardInterrupt":
        return f"it was stopped after {CELL_SECONDS} s: is there a loop that does not end?"
    return f"it raises {errors[0].ename}: {errors[0].evalue}".removesuffix(": ")


def score_of(cell):
    """The number that is a cell's value, or None."""
    results = [text(output) for output in (cell or {}).get("outputs", ()) if output.output_type == "execute_result"]
    try:
        return float(results[-1])
    except (IndexError, ValueError):
        return None


def printed(cell):
    return "".join(output.text for output in (cell or {}).get("outputs", ()) if output.get("name") == "stdout").rstrip()
