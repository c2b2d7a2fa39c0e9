"""Run a student's notebook to its end, whatever its cells do: raise, loop for ever, print no end, end the kernel."""

import copy
from collections import Counter
from glob import glob
from pathlib import Path

from .agreement import text
from .notebooks import KernelStoppedError, client_of, kill, run, stored

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

    Raises
    ------
    ValueError
        If no kernel starts.
    """
    client = client_of(path, notebook, timeout=CELL_SECONDS, interrupt_on_timeout=True, allow_errors=True)
    printed = Counter()  # characters, by the cell

    def keep(outputs, message, display_id, cell_index, put=client.output):
        if message["msg_type"] == "stream":
            printed[cell_index] += len(message["content"]["text"])
            if printed[cell_index] > MOST_PRINTED:
                return kill(client)
        return put(outputs, message, display_id, cell_index)

    client.output = keep
    try:
        run(client, CELL_SECONDS + GRACE_SECONDS)
    except KernelStoppedError as stopped:
        if stopped.cell is None:
            raise ValueError(f"notebook: {path} cannot be run: {stopped}") from None
        endless = printed[stopped.cell] > MOST_PRINTED
        return stopped.cell, "it prints without end" if endless else stopped.why
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
