"""Notebooks as files: execute one from a clean kernel, and say where its stored outputs do not agree with a re-run.

What may differ is named by tags on a cell: "training" for numbers that a training run ends with, which depend on the
order of float32 sums; "varies" for times and the like, of which only the words are compared; "interactive" for a cell
whose output is a slider, which is not stored, for a stored one cannot be moved.
"""

import copy
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..formats import write_text

TIMEOUT = 300  # seconds for one cell; the lessons take a minute as a whole
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
TRAINING_RTOL = 0.05
SMALL_FACTOR = 100.0  # between two rounding errors, such as 3e-11 and 4e-12: their size depends on the machine


def read_notebook(path):
    """A notebook file as nbformat's object.

    Raises
    ------
    ValueError
        If the file is no notebook.
    """
    import nbformat

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"notebook: there is no file {path}")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"notebook: {path} is not a Jupyter notebook ({type(error).__name__})") from None


def write_notebook(path, notebook):
    """Write a notebook, whole or not at all."""
    import nbformat

    write_text(path, nbformat.writes(notebook) + "\n")


def execute(path, notebook=None, allow_errors=False):
    """Run a notebook from a clean kernel.

    Parameters
    ----------
    path : of the notebook; the kernel's working directory is its folder
    notebook : what to run in its place, there; None: the file itself
    allow_errors : bool, go on after a cell that raises, as graders do

    Returns
    -------
    A new notebook, with outputs

    Raises
    ------
    ValueError
        If a cell raises, and that is not allowed, or takes longer than TIMEOUT; naming the cell.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    notebook = read_notebook(path) if notebook is None else copy.deepcopy(notebook)
    folder = str(Path(path).resolve().parent)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        allow_errors=allow_errors,
        resources={"metadata": {"path": folder}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no word on how kernel and client talk
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        raise ValueError(f"notebook: {path} stopped: {error}") from None
    return stored(notebook)


def stored(notebook):
    """A notebook as it is kept: no outputs of interactive cells, no metadata of one machine."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "interactive" in tags(cell):
                cell.outputs = [output for output in cell.outputs if output.get("name") == "stderr"]
            cell.outputs = merged_streams(cell.outputs)
            for output in cell.outputs:
                output.get("metadata", {}).clear()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def merged_streams(outputs):
    """Neighbouring pieces of one stream as one: how a kernel cuts what is printed depends on its haste."""
    merged = []
    for output in outputs:
        if merged and output.output_type == "stream" and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def tags(cell):
    return cell.metadata.get("tags", [])


# ---------------------------------------------------------------- agreement


def disagreements(notebook, again):
    """Where the outputs of two runs of one notebook differ; figures are compared by their number alone.

    Parameters
    ----------
    notebook : with its stored outputs
    again : the same, run once more

    Returns
    -------
    list of str, each naming a cell; also for anything that was written to stderr
    """
    found = []
    for number, (cell, other) in enumerate(zip(notebook.cells, again.cells)):
        if cell.cell_type != "code":
            continue
        for output in other.outputs:
            if output.get("name") == "stderr":
                found.append(f"cell {number}: writes to stderr: {output.text.strip()[:200]!r}")
        if "interactive" in tags(cell):
            continue
        kinds, kinds_again = ([kind(output) for output in c.outputs] for c in (cell, other))
        if kinds != kinds_again:
            found.append(f"cell {number}: stored {', '.join(kinds) or 'nothing'}; now {', '.join(kinds_again)}")
            continue
        for one, two in zip(cell.outputs, other.outputs):
            said = differs(text(one), text(two), tags(cell))
            if said:
                found.append(f"cell {number}: {said}")
    return found


def kind(output):
    if output.output_type == "stream":
        return output.name
    return "figure" if "image/png" in output.get("data", {}) else output.output_type


def text(output):
    """The text of an output; a figure has none."""
    if output.output_type == "stream":
        return output.text
    if kind(output) == "figure":
        return ""
    return output.get("data", {}).get("text/plain", output.get("evalue", ""))


def differs(stored_text, again_text, cell_tags=()):
    """A sentence on the first difference of two texts, or None; numbers are compared as numbers."""
    words, words_again = (" ".join(NUMBER.sub("#", t).split()) for t in (stored_text, again_text))
    if words != words_again:
        return f"stored {excerpt(words, words_again)}; now {excerpt(words_again, words)}"
    if "varies" in cell_tags:
        return None
    rtol = TRAINING_RTOL if "training" in cell_tags else 0.0
    for one, two in zip(NUMBER.findall(stored_text), NUMBER.findall(again_text)):
        if not same_number(one, two, rtol):
            return f"stored {one}; now {two}"
    return None


def same_number(one, two, rtol):
    """Whether two printed numbers agree to a unit of their last digit, or within a relative tolerance."""
    a, b = (float(n.replace(",", "")) for n in (one, two))
    if a == b:
        return True
    if "e-" in one.lower() and "e-" in two.lower() and a * b > 0:
        return 1 / SMALL_FACTOR <= a / b <= SMALL_FACTOR
    unit = max(last_digit(one), last_digit(two)) if "." in one + two or rtol else 0.0
    return abs(a - b) <= unit * 1.001 + rtol * max(abs(a), abs(b))


def last_digit(number):
    """The unit of a printed number's last digit: 0.01 of "3.25"."""
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def excerpt(text, other, length=60):
    """The part of a text where it leaves the other."""
    start = next((i for i, (a, b) in enumerate(zip(text, other)) if a != b), min(len(text), len(other)))
    return repr(text[max(0, start - 20) : start + length])


# ---------------------------------------------------------------- several


def run_all(paths, check=False, jobs=2, report=print):
    """Execute notebooks and store their outputs, or check that the stored ones agree.

    Parameters
    ----------
    paths : list of paths
    check : bool, compare and write nothing
    jobs : int, kernels side by side
    report : function of a line of text, called for each notebook as it is done

    Returns
    -------
    list of str, what is wrong, each with the notebook's name in front
    """
    from time import perf_counter

    def one(path):
        started = perf_counter()
        try:
            before = read_notebook(path)
            after = execute(path, before)
            wrong = disagreements(before if check else after, after)
            if not check and not wrong:
                write_notebook(path, after)
        except ValueError as error:
            wrong = [str(error)]
        report(f"{Path(path).name}: {perf_counter() - started:.0f} s{'; ' if wrong else ''}{'; '.join(wrong)}")
        return [f"{path}: {sentence}" for sentence in wrong]

    with ThreadPoolExecutor(jobs) as pool:
        return [sentence for wrong in pool.map(one, paths) for sentence in wrong]
