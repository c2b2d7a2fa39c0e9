"""Notebooks as files: read and write them, execute one from a clean kernel, store its outputs."""

import copy
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import DEVNULL
from time import perf_counter

from ..data.texts import existing_file
from ..formats import write_text
from .agreement import NO_LONGER, disagreements, tags, text

METADATA = {  # of every notebook
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = {"hide-input": "source_hidden", "hide-output": "outputs_hidden"}  # a tag, and what JupyterLab calls it
WIDGET = "application/vnd.jupyter.widget-view+json"  # a slider, which needs a running kernel
ANSWER = "The answer:\n"
TIMEOUT = 300  # seconds for one cell; the lessons take a minute as a whole


def read_notebook(path):
    """A notebook file as nbformat's object.

    Raises
    ------
    ValueError
        If the file is no notebook.
    """
    import nbformat

    try:
        path = existing_file(path)
    except OSError:
        raise ValueError(f"notebook: there is no file {path}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cells that share an id
            return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"notebook: {path} is not a Jupyter notebook ({type(error).__name__})") from None


def notebook_text(notebook):
    """What a notebook's file holds; UnicodeEncodeError for half a surrogate pair, which JSON can have and UTF-8 not."""
    import nbformat

    text = nbformat.writes(notebook) + "\n"
    text.encode("utf-8")
    return text


def write_notebook(path, notebook):
    """Write a notebook, whole or not at all."""
    write_text(path, notebook_text(notebook))


def execute(path, notebook=None):
    """Run a notebook from a clean kernel.

    Parameters
    ----------
    path : of the notebook; the kernel's working directory is its folder
    notebook : what to run in its place, there; None: the file itself

    Returns
    -------
    A new notebook, with outputs

    Raises
    ------
    ValueError
        If a cell raises, ends the kernel, or takes longer than TIMEOUT.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal

    notebook = read_notebook(path) if notebook is None else copy.deepcopy(notebook)
    resources = {"metadata": {"path": str(Path(path).resolve().parent)}}
    client = NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources, record_timing=False)
    try:
        # What goes to DEVNULL is the kernel's own, on how it starts and ends; a cell's stderr is an output.
        client.execute(stderr=DEVNULL, env=with_this_package())
    except (CellControlSignal, RuntimeError) as error:  # also of a kernel that dies, or does not start
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without the colours of a terminal
        raise ValueError(f"notebook: {path} stopped: {plain}") from None
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if NO_LONGER in text(output):
                raise ValueError(f"notebook: {path}, a claim: {text(output)}")
    return stored(notebook)


def with_this_package():
    """The environment of a kernel that finds this package, wherever the notebook is, installed or not."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def stored(notebook):
    """A notebook as it is kept: cells folded as their tags say, no live sliders, no metadata of one machine."""
    from nbformat.v4 import new_output

    for cell in notebook.cells:
        if folded := {name: True for tag, name in FOLDED.items() if tag in tags(cell)}:
            cell.metadata["jupyter"] = folded
        if cell.cell_type == "code":
            if "hide-output" in tags(cell) and cell.outputs:  # JupyterLab shows the first line of what is folded
                cell.outputs.insert(0, new_output("stream", name="stdout", text=ANSWER))
            cell.outputs = merged_streams(cell.outputs)
            for output in cell.outputs:
                output.get("metadata", {}).clear()
                output.get("data", {}).pop(WIDGET, None)
    notebook.metadata = METADATA
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

    def one(path):
        started = perf_counter()
        try:
            before = read_notebook(path)
            after = execute(path, before)
            wrong = disagreements(before if check else after, after)
            if not check and not wrong:
                write_notebook(path, after)
        except Exception as error:  # nbformat reads what has almost the form of a notebook
            wrong = [str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"]
        report(f"{Path(path).name}: {perf_counter() - started:.0f} s{'; ' if wrong else ''}{'; '.join(wrong)}")
        return [f"{path}: {sentence}" for sentence in wrong]

    with ThreadPoolExecutor(jobs) as pool:
        return [sentence for wrong in pool.map(one, paths) for sentence in wrong]
