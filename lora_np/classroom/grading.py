"""Grade submitted notebooks without nbgrader: execute each, and read off what its checks gave.

As in nbgrader, the cells that grade are taken from the source, whatever the submission has made of them; all others
are the student's. The code runs on this machine with all the rights of whoever starts it.
"""

import copy
from pathlib import Path
from typing import NamedTuple

from .agreement import text
from .notebooks import execute, read_notebook
from .release import find_sources, mark


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


def grade(path, source=None):
    """Grade one submission.

    Parameters
    ----------
    path : of the submitted notebook
    source : folder of the sources; None: those of this clone

    Returns
    -------
    Graded

    Raises
    ------
    ValueError
        If the file is no notebook, or of none of the sources.
    """
    submission = read_notebook(path)
    name, original = matching_source(submission, path, source)
    done = execute(path, with_cells_of(submission, original), allow_errors=True)
    cells = {mark(cell).get("grade_id"): cell for cell in done.cells}
    marks = [marked(cell, cells.get(mark(cell)["grade_id"])) for cell in original.cells if mark(cell).get("grade")]
    return Graded(str(path), name, tuple(marks))


def grade_ids(notebook):
    return {mark(cell)["grade_id"] for cell in notebook.cells if mark(cell).get("grade")}


def matching_source(submission, path, source):
    """The source that a submission was made from: the one with the most cells in common."""
    ids = grade_ids(submission)
    sources = {p.stem: read_notebook(p) for p in find_sources(source)}
    name = max(sources, key=lambda name: len(ids & grade_ids(sources[name])))
    if not ids & grade_ids(sources[name]):
        raise ValueError(f"notebook: {path} has no graded cell of any of {', '.join(sources)}")
    return name, sources[name]


def with_cells_of(submission, original):
    """The submission with the original's text in all cells that are not a student's to change."""
    locked = {mark(c)["grade_id"]: c for c in original.cells if mark(c) and not mark(c).get("solution")}
    made = copy.deepcopy(submission)
    for cell in made.cells:
        if mark(cell).get("grade_id") in locked:
            cell.source = locked[mark(cell)["grade_id"]].source
    return made


def marked(original, cell):
    """The mark of a graded cell, from what it put out."""
    id, points = mark(original)["grade_id"], float(mark(original)["points"])
    if original.cell_type != "code":
        words = "" if cell is None else cell.source
        return Mark(id, 0.0, points, words, by_hand=True)
    if cell is None:
        return Mark(id, 0.0, points, "the cell is missing")
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors:
        return Mark(id, 0.0, points, f"{errors[0].ename}: {errors[0].evalue}")
    said = "".join(output.text for output in cell.outputs if output.get("name") == "stdout").rstrip()
    results = [text(output) for output in cell.outputs if output.output_type == "execute_result"]
    try:
        score = float(results[-1])
    except (IndexError, ValueError):
        return Mark(id, 0.0, points, said or "the cell has put out no score")
    return Mark(id, min(max(score, 0.0), points), points, said)


def report(graded):
    """Marks and feedback as a text for the student."""
    lines = [f"{Path(graded.notebook).name}: {graded.score:g} of {graded.points:g} points"]
    for one in graded.marks:
        item = one.item.removeprefix("check_")
        if one.by_hand:
            lines.append(f"{item}: to be read by the teacher, {one.points:g} points")
        else:
            lines.append(one.said if one.said.startswith(item) else f"{item}: {one.said}")
    return "\n".join(lines)


def as_dict(graded):
    fields = ("score", "points", "said", "by_hand")
    items = {one.item: {field: getattr(one, field) for field in fields} for one in graded.marks}
    return {"exercise": graded.exercise, "score": graded.score, "points": graded.points, "items": items}
