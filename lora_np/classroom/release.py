"""Make notebooks from the exercises: for students, with worked solutions, and as a course for nbgrader.

Answer cells and grading cells have nbgrader's metadata. A test checks that the students' notebooks are the same as
those that nbgrader generates.
"""

import ast
import inspect
import textwrap
from pathlib import Path

from ..formats import check_file, check_folder, write_text
from .check import DRAW_VARIABLE
from .exercise import GRADING
from .notebooks import METADATA, notebook_text
from .sets import read_sets

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = {"code": "    # YOUR CODE HERE\n    raise NotImplementedError()", "markdown": "YOUR ANSWER HERE"}
HOW = """Write each function, run the check below it, and read the report. A check calls your function three times, with
random inputs of different sizes. It tells you which outputs are incorrect and which mistake is likely, and prints the
formula if you ask for it. No two sizes are equal, so a transposed array does not have the expected shape. Arrays are in
float64; do not change the arrays that your function receives."""
SETUP = """import sys
from pathlib import Path

# The package need not be installed: it is enough if this folder is inside a clone, or if one of its parents contains a
# clone named lora_np.
places = [place for folder in Path.cwd().parents for place in (folder, folder / "lora_np")]
sys.path += [str(place) for place in places if (place / "lora_np" / "__init__.py").is_file()]

import numpy as np

from lora_np.classroom import check"""
CONFIG = f"""# Made by `python -m lora_np classroom release`; nbgrader's documentation lists more settings.
import os

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "lora_np"
c.ExecutePreprocessor.timeout = 120
# Restore deleted grading cells.
c.OverwriteCells.add_missing_cells = True
# Grading uses different inputs from the checks in a student's notebook. Choose a new name for each term.
os.environ["{DRAW_VARIABLE}"] = "{GRADING}"
"""
READ_ME = """# Exercises

These notebooks need Python and the package `lora_np`. Either put this folder anywhere inside the clone of lora_np that
your teacher gave you, or install the package from the clone:

    pip install -r PATH_OF_THE_CLONE/requirements.txt
    pip install PATH_OF_THE_CLONE

Then run `python -m jupyter lab` in this folder. The lessons are in the clone's folder `notebooks`. Hand in each
notebook under its original name, or under the name that your teacher asks for. Grading recognises cells by their
metadata, so write your answers in the existing cells.
"""


def release(folder, nbgrader=False, force=False):
    """Write the notebooks for a class.

    Parameters
    ----------
    folder : path of the folder to write, with the subfolders `student/`, including a README, and `solutions/`
    nbgrader : bool, whether to write a course for nbgrader instead: `nbgrader_config.py` and `source/SET/SET.ipynb`
    force : bool, whether to overwrite existing notebooks

    Returns
    -------
    list of Path, the written files

    Raises
    ------
    ValueError
        If a file already exists.
    """
    folder, sets = Path(folder), read_sets()
    check_folder(folder, "folder")
    texts = {folder / "nbgrader_config.py": CONFIG} if nbgrader else {folder / "student" / "README.md": READ_ME}
    for name, of in sets.items():
        if nbgrader:
            texts[folder / "source" / name / f"{name}.ipynb"] = notebook_text(notebook_of(of, "nbgrader"))
        else:
            for form in ("student", "solutions"):
                texts[folder / form / f"{name}.ipynb"] = notebook_text(notebook_of(of, form))
    for path in texts:
        check_file(path, "folder")
    there = [path for path in texts if path.exists()]
    if there and not force:
        raise ValueError(f"folder: {there[0]} already exists; choose another folder, or use --force to overwrite it")
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


# ---------------------------------------------------------------- cells


def notebook_of(of, form):
    """Make the notebook of an ExerciseSet in one of the forms "student", "solutions" or "nbgrader"."""
    from nbformat import v4

    made = v4.new_notebook(cells=list(cells_of(of, form)))
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    made.metadata = METADATA
    return made


def cells_of(of, form):
    number = of.name[:2]
    rows = f"| **You need** | {of.needs} |\n| **Time** | {of.time} |\n"
    points = f"| **Points** | {of.points}, and {of.words} for an answer in words |"
    yield markdown(f"# Exercises {number} · {of.title}\n\n| | |\n|---|---|\n{rows}{points}\n\n{HOW}\n\n{of.text}")
    yield code(SETUP, "setup", form)
    for n, exercise in enumerate(of.exercises, 1):
        unit = "point" if exercise.points == 1 else "points"
        yield markdown(f"## {n}. {exercise.title} ({exercise.points} {unit})\n\n{exercise.text}")
        yield code(solution_in(exercise.solution, form), exercise.name, form, solution=True)
        call = f"check.{exercise.name}({exercise.name}, points={exercise.points})"
        yield code(call, f"check_{exercise.name}", form, points=exercise.points)
        if exercise.after:
            yield markdown(exercise.after.strip())
    n = len(of.exercises) + 1
    for kind, text in of.parts:
        if kind == "markdown":
            yield markdown(text.strip().replace("{n}", str(n)))
            n += text.count("{n}")
        elif kind == "given":
            yield code(text.strip(), None, form)
        else:
            solution = in_form(text.strip(), "", form, STUB["code"].replace("    ", ""))
            yield code(solution, "experiment", form, solution=True)
    title, _, text = of.question.partition("\n")
    yield markdown(f"## {n}. {title.removesuffix('.')} ({of.words} points)\n\n{text.strip()}")
    answer = in_form(of.answer, "", form, STUB["markdown"])
    yield markdown(answer, of.question_id, form, solution=True, points=of.words)
    yield code("check.summary();", "summary", form)


def markdown(text, id=None, form="student", **marks):
    from nbformat import v4

    return v4.new_markdown_cell(text, metadata=metadata("markdown", id, form, **marks))


def code(text, id, form, **marks):
    from nbformat import v4

    return v4.new_code_cell(text, metadata=metadata("code", id, form, **marks))


def metadata(kind, id, form, solution=False, points=None):
    """Return nbgrader's metadata for a cell, with locks that keep students from deleting the cell by accident."""
    if id is None:
        return {}
    marks = {"cell_type": kind, "grade": points is not None, "grade_id": id, "locked": not solution}
    marks |= {"schema_version": 3, "solution": solution, "task": False} | ({} if points is None else {"points": points})
    locks = {"deletable": False} | ({} if solution else {"editable": False})
    return {"nbgrader": marks} | (locks if form == "student" else {})


def solution_in(function, form):
    """Return a worked solution's source, with the body replaced by a stub, between nbgrader's marks, or unchanged."""
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    (docstring, *_) = ast.parse(source).body[0].body
    lines = source.split("\n")
    head, body = "\n".join(lines[: docstring.end_lineno]), "\n".join(lines[docstring.end_lineno :])
    return f"{head}\n{in_form(body, '    ', form, STUB['code'])}"


def in_form(solution, indent, form, stub):
    return {"student": stub, "solutions": solution, "nbgrader": f"{indent}{BEGIN}\n{solution}\n{indent}{END}"}[form]


def mark(cell):
    """Return a cell's nbgrader metadata, or an empty dict if there is none or it is damaged."""
    marks = cell.metadata.get("nbgrader")
    return marks if isinstance(marks, dict) and isinstance(marks.get("grade_id"), str) else {}
