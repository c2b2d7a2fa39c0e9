"""Grade submitted notebooks without nbgrader: execute each, and read off what its checks gave.

As in nbgrader, the cells that grade and the one that imports are taken from the source, whatever the submission has
made of them, and put back where they are missing; all others are the student's. The code runs on this machine with all
the rights of whoever starts it.
"""

import copy
from pathlib import Path
from typing import NamedTuple

from .agreement import text
from .notebooks import execute, read_notebook
from .release import mark, read_sources


class Mark(NamedTuple):
    """One graded cell of a submission."""

    item: str  # the cell's id
    score: float
    points: float
    said: str  # what the check printed, or why there is nothing
    by_hand: bool = False  # an answer in words, which a teacher has to read


class Graded(NamedTuple):
    notebook: str
    exercise: str  # the name of the source
    marks: tuple[Mark, ...]

    @property
    def score(self):
        return float(sum(one.score for one in self.marks))

    @property
    def points(self):
        """Of all items that a program can grade."""
        return float(sum(one.points for one in self.marks if not one.by_hand))


def grade(path, sources=None):
    """Grade one submission.

    Parameters
    ----------
    path : of the submitted notebook
    sources : dict, name -> notebook, from `read_sources`; None: those of this clone

    Returns
    -------
    Graded

    Raises
    ------
    ValueError
        If the file is no notebook, or of none of the sources.
    """
    submission = read_notebook(path)
    name, original = matching_source(submission, path, read_sources() if sources is None else sources)
    done = execute(path, with_cells_of(submission, original), to_grade=True)
    cells = {mark(cell).get("grade_id"): cell for cell in done.cells}
    marks = [marked(cell, cells) for cell in original.cells if mark(cell).get("grade")]
    return Graded(str(path), name, tuple(marks))


def grade_ids(notebook):
    return {mark(cell).get("grade_id") for cell in notebook.cells if mark(cell).get("grade")} - {None}


def matching_source(submission, path, sources):
    """The source that a submission was made from: the one with the most cells in common."""
    ids = grade_ids(submission)
    name = max(sources, key=lambda name: len(ids & grade_ids(sources[name])))
    if not ids & grade_ids(sources[name]):
        raise ValueError(f"notebook: {path} has no graded cell of any of {', '.join(sources)}")
    return name, sources[name]


def with_cells_of(submission, original):
    """The submission with the original's cells in all places that are not a student's to change.

    A missing cell that grades comes last, where all that the student has defined is there; the one that imports, first.
    """
    locked = {mark(cell)["grade_id"]: cell for cell in original.cells if mark(cell) and not mark(cell).get("solution")}
    made = copy.deepcopy(submission)
    made.cells = [copy.deepcopy(locked.pop(mark(cell).get("grade_id"), cell)) for cell in submission.cells]
    first = [locked.pop("setup")] if "setup" in locked else []
    made.cells = copy.deepcopy(first) + made.cells + copy.deepcopy(list(locked.values()))
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    return made


def marked(original, cells):
    """The mark of a graded cell, from what it put out.

    Parameters
    ----------
    original : the cell in the source
    cells : dict, grade_id -> the executed cell
    """
    id, points = mark(original)["grade_id"], float(mark(original)["points"])
    cell = cells.get(id)
    if original.cell_type != "code":
        return Mark(id, 0.0, points, "the answer is missing" if cell is None else cell.source, by_hand=True)
    error = error_of(cell)
    if error:
        own = error_of(cells.get(id.removeprefix("check_")))  # of the cell with the student's function
        return Mark(id, 0.0, points, f"your cell raises {own}" if own else error)
    said = "".join(output.text for output in cell.outputs if output.get("name") == "stdout").rstrip()
    results = [text(output) for output in cell.outputs if output.output_type == "execute_result"]
    try:
        score = float(results[-1])
    except (IndexError, ValueError):
        return Mark(id, 0.0, points, said or "it was not reached: something before it has ended the kernel")
    return Mark(id, min(max(score, 0.0), points), points, said)


def error_of(cell):
    """The first error that a cell has put out, or None."""
    errors = [output for output in (cell or {}).get("outputs", ()) if output.output_type == "error"]
    return f"{errors[0].ename}: {errors[0].evalue}" if errors else None


def report(graded):
    """Marks and feedback as a text for the student."""
    lines = [f"{Path(graded.notebook).name}: {graded.score:g} of {graded.points:g} points"]
    for one in graded.marks:
        item = one.item.removeprefix("check_")
        if one.by_hand:
            lines.append(f"{item}: to be read by the teacher, {one.points:g} points\n{one.said}")
        else:
            lines.append(one.said if one.said.startswith(item) else f"{item}: {one.said}")
    return "\n".join(lines)


def as_dict(graded):
    fields = ("score", "points", "said", "by_hand")
    items = {one.item: {field: getattr(one, field) for field in fields} for one in graded.marks}
    return {"exercise": graded.exercise, "score": graded.score, "points": graded.points, "items": items}
