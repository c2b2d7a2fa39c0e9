"""From the one source of each exercise set: the student's notebook, the worked solution and a course for nbgrader.

A source is a notebook with nbgrader's marks: a solution stands between `### BEGIN SOLUTION` and `### END SOLUTION`,
and each cell that is a student's to fill, or that grades, carries an id in its metadata. nbgrader clears solutions in
the same way; here it works without nbgrader installed, and a test holds the two to each other.
"""

import copy
from pathlib import Path
from typing import NamedTuple

from ..formats import check_file, check_folder, write_text
from .notebooks import notebook_text, read_notebook

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "exercises"  # of a clone; they are not in the wheel
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = {"code": ("# YOUR CODE HERE", "raise NotImplementedError()"), "markdown": ("YOUR ANSWER HERE",)}
CONFIG = """# Made by `python -m lora_np classroom release`. Of nbgrader; what can stand here is in its documentation.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "lora_np"
c.ExecutePreprocessor.timeout = 120
# The marks of the sources; the cells' solutions are cut out between them.
c.ClearSolutions.begin_solution_delimeter = "BEGIN SOLUTION"
c.ClearSolutions.end_solution_delimeter = "END SOLUTION"
# A cell that grades and has been deleted is put back.
c.OverwriteCells.add_missing_cells = True
"""
READ_ME = """# Exercises

These notebooks need Python and the package `lora_np`. Either put this folder into the clone of lora_np that you were
given, at any depth, or install the package from it:

    pip install -r PATH_OF_THE_CLONE/requirements.txt
    pip install PATH_OF_THE_CLONE

Then `python -m jupyter lab` in this folder. The lessons that the exercises belong to are in the clone's folder
`notebooks`. Hand in the notebook under the name that it has, or one that your teacher asks for: its cells are known by
their metadata, so write your answers into the cells that are there.
"""


class Released(NamedTuple):
    written: tuple[Path, ...]
    sets: tuple[str, ...]


def release(folder, source=None, nbgrader=False, force=False):
    """Write what a class needs.

    Parameters
    ----------
    folder : where to: `student/`, with a README, and `solutions/`, or, with `nbgrader`, a course of nbgrader's
    source : folder of the sources; None: those of this clone
    nbgrader : bool, write `nbgrader_config.py` and `source/SET/SET.ipynb` in place of the two folders
    force : bool, write over notebooks that are there

    Returns
    -------
    Released

    Raises
    ------
    ValueError
        If there are no sources, a mark is wrong, or a file is there already.
    """
    folder, notebooks = Path(folder), read_sources(source)
    check_folder(folder, "folder")
    texts = {}
    for name, notebook in notebooks.items():
        try:
            if nbgrader:
                texts[folder / "source" / name / f"{name}.ipynb"] = notebook_text(notebook)
            else:
                texts[folder / "student" / f"{name}.ipynb"] = notebook_text(for_students(notebook, name))
                texts[folder / "solutions" / f"{name}.ipynb"] = notebook_text(solved(notebook))
        # nbformat reads what has almost the form of a notebook.
        except (AttributeError, KeyError, TypeError, UnicodeEncodeError) as error:
            raise ValueError(f"source: {name} is not a whole notebook ({type(error).__name__}: {error})") from None
    texts |= {folder / "nbgrader_config.py": CONFIG} if nbgrader else {folder / "student" / "README.md": READ_ME}
    for path in texts:
        check_file(path, "folder", sources=[SOURCES if source is None else source])
    there = [path for path in texts if path.exists()]
    if there and not force:
        raise ValueError(f"folder: {there[0]} is there already; give another folder, or --force to write over it")
    for path, text in texts.items():
        write_text(path, text)
    return Released(tuple(texts), tuple(notebooks))


def find_sources(source=None):
    """The source notebooks of a folder, in order."""
    folder = SOURCES if source is None else Path(source)
    if not folder.is_dir():
        how = "exercises lie in a clone, not in an installed package: `python -m lora_np` in the clone's folder"
        where = f" ({how})" if source is None else ""
        raise ValueError(f"source: there is no folder {folder}{where}; expected a folder of exercise notebooks")
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"source: {folder} holds no notebooks")
    return paths


def read_sources(source=None):
    """The source notebooks of a folder by their names; see `find_sources`."""
    return {path.stem: read_notebook(path) for path in find_sources(source)}


def mark(cell):
    """nbgrader's metadata of a cell; empty where there is none."""
    return cell.metadata.get("nbgrader", {})


def for_students(notebook, name=""):
    """The notebook with its solutions cut out and without outputs."""
    made = copy.deepcopy(notebook)
    for number, cell in enumerate(made.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if mark(cell):  # as nbgrader locks them: in Jupyter's page they cannot be deleted by accident
            cell.metadata["deletable"] = False
            if not mark(cell).get("solution"):
                cell.metadata["editable"] = False
        if mark(cell).get("solution"):
            cell.source = without_solution(cell.source, cell.cell_type, f"{name}, cell {number}")
        elif BEGIN in cell.source or END in cell.source:
            raise ValueError(f"source: {name}, cell {number} has a solution, and its metadata do not say so")
    return made


def without_solution(source, cell_type, where):
    """A cell's text with a stub in the place of each marked solution."""
    kept, inside = [], False
    for line in source.split("\n"):
        if BEGIN in line:
            if inside:
                raise ValueError(f"source: {where} begins a solution inside a solution")
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + stub for stub in STUB[cell_type]]
            inside = True
        elif END in line:
            if not inside:
                raise ValueError(f"source: {where} ends a solution that has not begun")
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"source: {where} begins a solution and does not end it")
    if kept == source.split("\n"):
        raise ValueError(f"source: {where} is marked as a solution and has none between {BEGIN} and {END}")
    return "\n".join(kept)


def solved(notebook):
    """The worked solution: the source without its marks."""
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        cell.source = "\n".join(line for line in cell.source.split("\n") if BEGIN not in line and END not in line)
    return made
