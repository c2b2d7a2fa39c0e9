"""Grade submitted notebooks without nbgrader: execute each, and read off what its checks gave.

As in nbgrader, the cells that grade and the one that imports are taken from the source, whatever the submission has
made of them, and put back where they are missing; all others are the student's. Their code runs in the same kernel as
the checks, with all the rights of whoever starts it: it can do harm, and whoever wants to can forge a mark.
"""

import copy
import csv
import io
from concurrent.futures import ThreadPoolExecutor
from os.path import commonpath, realpath
from pathlib import Path
from typing import NamedTuple

from ..formats import check_file, check_folder, write_text
from .notebooks import read_notebook
from .release import for_students, mark, read_sources
from .submissions import error_of, printed, run_submission, score_of


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

    @property
    def to_read(self):
        """Points of the answers in words, which a teacher gives."""
        return float(sum(one.points for one in self.marks if one.by_hand))


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
    done = run_submission(path, with_cells_of(submission, original))
    cells = {mark(cell).get("grade_id"): cell for cell in done.cells}
    blank = {mark(cell).get("grade_id"): cell for cell in for_students(original).cells}
    marks = [marked(cell, cells, blank) for cell in original.cells if mark(cell).get("grade")]
    return Graded(str(path), name, tuple(marks))


def grade_all(paths, sources=None, jobs=2):
    """Grade several, side by side; one that cannot be graded does not keep the others from it.

    Yields
    ------
    path, Graded or the error that says why not, in the order of the paths, each as soon as it is there
    """

    def one(path):
        try:
            return grade(path, sources)
        except ValueError as error:
            return error
        except Exception as error:  # nbformat reads what has almost the form of a notebook
            return ValueError(f"notebook: {path} cannot be graded ({type(error).__name__}: {error})")

    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(paths, pool.map(one, paths))


def grade_ids(notebook):
    return {mark(cell).get("grade_id") for cell in notebook.cells if mark(cell).get("grade")} - {None}


def matching_source(submission, path, sources):
    """The source that a submission was made from: the one with the most cells in common."""
    ids = grade_ids(submission)
    name = max(sources, key=lambda name: len(ids & grade_ids(sources[name])))
    if not ids & grade_ids(sources[name]):
        raise ValueError(
            f"notebook: {path} has none of the graded cells of the {len(sources)} sets. If the answers were copied to "
            "a new notebook, copy them back into the one that was handed out: it knows its cells by their metadata"
        )
    return name, sources[name]


def with_cells_of(submission, original):
    """The submission with the original's cells in all places that are not a student's to change.

    A missing cell that grades comes last, where all that the student has defined is there; the one that imports, first.
    Of several cells with one id, as copying makes them, the first counts.
    """
    locked = {mark(cell)["grade_id"]: cell for cell in original.cells if mark(cell) and not mark(cell).get("solution")}
    made, seen = copy.deepcopy(submission), set()
    for number, cell in enumerate(made.cells):
        id = mark(cell).get("grade_id")
        if id in seen:
            del cell.metadata["nbgrader"]
        elif id is not None:
            seen.add(id)
            made.cells[number] = copy.deepcopy(locked.get(id, cell))
    missing = [copy.deepcopy(cell) for id, cell in locked.items() if id not in seen]
    first = [cell for cell in missing if mark(cell)["grade_id"] == "setup"]
    made.cells = first + made.cells + [cell for cell in missing if cell not in first]
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    return made


def marked(original, cells, blank):
    """The mark of a graded cell, from what it put out.

    Parameters
    ----------
    original : the cell in the source
    cells : dict, grade_id -> the executed cell
    blank : dict, grade_id -> the cell as it is handed out
    """
    id, points = mark(original)["grade_id"], float(mark(original)["points"])
    cell, item = cells.get(id), name_of(id)
    if original.cell_type != "code":
        return Mark(id, 0.0, points, answer_of(cell, blank[id]), by_hand=True)
    own = error_of(cells.get(item))  # of the cell with the student's function
    error = error_of(cell)
    if error:
        unknown = "NameError" in error and item in error and not own
        advice = " (has your function another name?)" if unknown else ""
        return Mark(id, 0.0, points, f"your cell: {own}" if own else error + advice)
    said, score = printed(cell), score_of(cell)
    if score is None:
        return Mark(id, 0.0, points, said or "its check put out no score")
    start = max(said.rfind(f"\n{item}: ") + 1, 0)  # what comes before, the student's function has printed
    return Mark(id, min(max(score, 0.0), points), points, said[start:])


def name_of(id):
    return id.removeprefix("check_")


def answer_of(cell, blank):
    """What a student wrote in words, without what stood there before."""
    if cell is None:
        return "the answer is missing"
    given = set(blank.source.split("\n"))
    answer = "\n".join(line for line in cell.source.split("\n") if line not in given).strip()
    return answer or "not answered"


# ---------------------------------------------------------------- what is handed back


def report(graded):
    """Marks and feedback as a text for the student."""
    words = f", and up to {graded.to_read:g} for what the teacher reads" if graded.to_read else ""
    lines = [f"{graded.notebook}: {graded.score:g} of {graded.points:g} points{words}"]
    for one in graded.marks:
        item, unit = name_of(one.item), "points" if one.points != 1 else "point"
        if one.by_hand:
            lines.append(f"{item}: to be read by the teacher, {one.points:g} {unit}\n{one.said}")
        elif one.said.startswith(f"{item}: "):
            lines.append(one.said)
        else:
            lines.append(f"{item}: {one.score:g} of {one.points:g} {unit}\n  {one.said}")
    return "\n".join(lines)


def as_dict(graded):
    fields = ("score", "points", "said", "by_hand")
    items = {one.item: {field: getattr(one, field) for field in fields} for one in graded.marks}
    sums = {"score": graded.score, "points": graded.points, "to_read": graded.to_read}
    return {"exercise": graded.exercise, **sums, "items": items}


def place_of_feedback(folder, path, paths):
    """Where the report of one notebook is written; see `write_feedback`."""
    common = commonpath([Path(realpath(path)).parent for path in paths])
    return Path(folder) / Path(realpath(path)).relative_to(common).with_suffix(".txt")


def check_places(folder, paths):
    """Raise ValueError unless the reports and the marks can be written to a folder, and over none of the notebooks."""
    check_folder(folder, "out")
    others = [path for path in paths if Path(path).suffix != ".ipynb"]
    for place in (Path(folder) / "marks.csv", *(place_of_feedback(folder, path, paths) for path in paths)):
        check_file(place, "out", others)


def write_feedback(folder, path, one, paths):
    """Write the report of one notebook as a text under the notebook's name.

    Notebooks of several folders, one for each student as a rule, have their texts in folders of the same names.

    Parameters
    ----------
    folder : where to
    path : of the notebook
    one : Graded, or the error that says why not
    paths : list of the paths of all notebooks, of which the folders that they have in common are left out
    """
    place = place_of_feedback(folder, path, paths)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, (report(one) if isinstance(one, Graded) else f"{path}: not graded\n{one}") + "\n")


def write_marks(folder, found):
    """Write `marks.csv`, a row for each notebook.

    Parameters
    ----------
    folder : where to
    found : dict, path -> Graded, or the error that says why not
    """
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["notebook", "exercise", "score", "points", "points_in_words", "not_graded"])
    for path, one in found.items():
        if isinstance(one, Graded):
            rows.writerow([path, one.exercise, f"{one.score:g}", f"{one.points:g}", f"{one.to_read:g}", ""])
        else:
            rows.writerow([path, "", "", "", "", str(one)])
    write_text(Path(folder) / "marks.csv", file.getvalue())
