"""Read and write notebook files, run a notebook in a new kernel, and store its outputs."""

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
FOLDED = {"hide-input": "source_hidden", "hide-output": "outputs_hidden"}  # tag -> JupyterLab's setting
WIDGET = "application/vnd.jupyter.widget-view+json"  # a slider, which needs a running kernel
SCRIPT = "application/javascript"  # of `lesson.setup`
ANSWER = "The answer:\n"
REMEDIES = {  # suffix of a file that is not a notebook -> what is wrong, and what to do
    ".py": "is a Python file, without the cells that grading needs; ask the student for the notebook (.ipynb)",
    ".zip": "is an archive; unpack it in its place",
}
TIMEOUT = 300  # seconds for one cell; a whole lesson takes about a minute


def read_notebook(path):
    """Read a notebook file as an nbformat notebook.

    Raises
    ------
    ValueError
        If the file is not a notebook.
    """
    import nbformat

    try:
        path = existing_file(path)
    except OSError:
        raise ValueError(f"notebook: there is no file {path}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbformat warns about duplicate cell ids
            notebook = nbformat.read(path, as_version=4)
            nbformat.writes(notebook)  # raises if a cell or an output lacks a field, even if `read` accepted it
            if not all(isinstance(cell.get("source"), str) for cell in notebook.cells):
                raise TypeError
            return notebook
    except Exception as error:  # nbformat raises many types of exceptions
        fault = REMEDIES.get(Path(path).suffix, f"is not a Jupyter notebook ({type(error).__name__})")
        raise ValueError(f"notebook: {path} {fault}") from None


def notebook_text(notebook):
    """Return the text of a notebook's file; raise UnicodeEncodeError for lone surrogates, which UTF-8 cannot encode."""
    import nbformat

    text = nbformat.writes(notebook) + "\n"
    text.encode("utf-8")
    return text


def write_notebook(path, notebook):
    """Write a notebook file atomically."""
    write_text(path, notebook_text(notebook))


def execute(path, notebook=None):
    """Run a notebook in a new kernel.

    Parameters
    ----------
    path : the notebook's file; its folder is the kernel's working directory
    notebook : the notebook to run instead of the file, or None

    Returns
    -------
    a new notebook with outputs

    Raises
    ------
    ValueError
        If a cell raises, ends the kernel or takes longer than TIMEOUT, or if a claim does not hold.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal

    notebook = read_notebook(path) if notebook is None else copy.deepcopy(notebook)
    resources = {"metadata": {"path": str(Path(path).resolve().parent)}}
    client = NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources, record_timing=False)
    try:
        # DEVNULL suppresses the kernel's own messages; a cell's stderr is an output.
        client.execute(stderr=DEVNULL, env=with_this_package())
    except (CellControlSignal, RuntimeError) as error:  # RuntimeError if a kernel dies or does not start
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without the colours of a terminal
        raise ValueError(f"notebook: {path} stopped: {plain}") from None
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if NO_LONGER in text(output):
                raise ValueError(f"notebook: {path}: a claim does not hold: {text(output)}")
    return stored(notebook)


def with_this_package():
    """Return environment variables that let a kernel find this package, even if it is not installed."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def stored(notebook):
    """Prepare a notebook for storage: hide tagged inputs and outputs; drop widgets, scripts and varying metadata."""
    from nbformat.v4 import new_output

    for cell in notebook.cells:
        if folded := {name: True for tag, name in FOLDED.items() if tag in tags(cell)}:
            cell.metadata["jupyter"] = folded
        if cell.cell_type == "code":
            if "hide-output" in tags(cell) and cell.outputs:  # JupyterLab shows the first line of folded outputs
                cell.outputs.insert(0, new_output("stream", name="stdout", text=ANSWER))
            cell.outputs = merged_streams(o for o in cell.outputs if SCRIPT not in o.get("data", {}))
            for output in cell.outputs:
                output.get("metadata", {}).clear()
                output.get("data", {}).pop(WIDGET, None)
    notebook.metadata = METADATA
    return notebook


def merged_streams(outputs):
    """Merge adjacent outputs of the same stream, because a kernel splits printed text at arbitrary points."""
    merged = []
    for output in outputs:
        if merged and output.output_type == "stream" and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


# ---------------------------------------------------------------- several notebooks


def run_all(paths, check=False, jobs=2, report=print):
    """Execute notebooks, and either store their outputs or compare them with the stored ones.

    Parameters
    ----------
    paths : list of paths
    check : bool, whether to compare the outputs and write nothing, instead of storing them
    jobs : int, number of kernels in parallel
    report : function that is called with a line of text for each finished notebook

    Returns
    -------
    list of str: the problems, each of which starts with the notebook's path
    """

    def one(path):
        started = perf_counter()
        try:
            before = read_notebook(path)
            after = execute(path, before)
            wrong = disagreements(before if check else after, after)
            if not check and not wrong:
                write_notebook(path, after)
        except Exception as error:  # nbformat accepts some files that are not valid notebooks
            wrong = [str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"]
        report(f"{Path(path).name}: {perf_counter() - started:.0f} s{'; ' if wrong else ''}{'; '.join(wrong)}")
        return [f"{path}: {sentence}" for sentence in wrong]

    with ThreadPoolExecutor(jobs) as pool:
        return [sentence for wrong in pool.map(one, paths) for sentence in wrong]
