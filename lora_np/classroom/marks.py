"""Write the results of a class of students: marks, written answers, an overview, and files for Moodle and Canvas."""

import math
import re
from collections import Counter
from os.path import commonpath, realpath
from pathlib import Path
from typing import NamedTuple

from ..checked import shown
from ..experiments.drawing import OTHERS, as_png
from ..formats import check_file, check_folder, write_text
from ..formats.atomic import write_atomically
from ..tasks.pictures import new_figure
from .gradebooks import as_written, canvas_table, comments_of, moodle_table, rows_of, table
from .grading import Graded, set_of
from .notebooks import notebook_text, read_notebook
from .release import mark as marks_of
from .release import notebook_of
from .sets import read_sets

FILES = ("marks.csv", "words.csv", "words.md", "class.md", "class.png", "moodle.csv", "canvas.csv")
WORDS = ("student", "name", "item", "out_of", "points", "remark")  # of words.csv; the teacher fills in the last two
# Patterns of folder and file names in downloads from Moodle and Canvas; these names contain the student's id.
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file")
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_.+")


class Student(NamedTuple):
    id: str
    name: str = ""


def student_of(path, paths):
    """Return the Student who handed in a notebook.

    The id and the name are those that Moodle or Canvas put in a folder or file name. If there are none, the id is the
    folder's or the file's name.

    Parameters
    ----------
    path : the notebook
    paths : list of all notebooks, whose common parent folders are ignored
    """
    place = Path(realpath(path))
    for part in (*reversed(place.parts[:-1]), place.stem):
        if found := MOODLE.fullmatch(part) or CANVAS.fullmatch(part):
            return Student(found["id"], found["name"])
    common = Path(commonpath([Path(realpath(other)).parent for other in paths]))
    folders = place.relative_to(common).parts[:-1]
    return Student(folders[0] if folders else place.stem)


def place_of_feedback(folder, path, paths):
    """Return a report's path in `folder`: the notebook's path below the notebooks' common folder, with suffix .txt."""
    common = commonpath([Path(realpath(path)).parent for path in paths])
    return Path(folder) / Path(realpath(path)).relative_to(common).with_suffix(".txt")


def check_places(folder, paths):
    """Raise ValueError unless all results can be written to a folder without overwriting a notebook."""
    check_folder(folder, "out")
    others = [path for path in paths if Path(path).suffix != ".ipynb"]
    feedback = [place_of_feedback(folder, path, paths) for path in paths]
    for place in (*(Path(folder) / name for name in FILES), *feedback):
        check_file(place, "out", others)


# ---------------------------------------------------------------- one notebook


def report(graded, words=None):
    """Format a student's marks and feedback as text.

    Parameters
    ----------
    graded : Graded
    words : the teacher's (points, remark) for the written answer, or None
    """
    score = graded.score + (words[0] if words else 0.0)
    points = graded.points + (graded.to_read if words else 0.0)
    still = f", and up to {graded.to_read:g} for answers graded by the teacher" if graded.to_read and not words else ""
    lines = [f"{Path(graded.notebook).name}: {score:g} of {points:g} points{still}"]
    for one in graded.marks:
        unit = "points" if one.points != 1 else "point"
        if one.by_hand and words:
            lines.append(f"{one.item}: {words[0]:g} of {one.points:g} {unit}\n{one.said}\n{words[1]}".rstrip())
        elif one.by_hand:
            lines.append(f"{one.item}: to be graded by the teacher, {one.points:g} {unit}\n{one.said}")
        elif one.said.startswith(f"{one.item}: "):
            lines.append(one.said)
        else:
            lines.append(f"{one.item}: {one.score:g} of {one.points:g} {unit}\n  {one.said}")
    return "\n".join(lines)


def as_dict(graded):
    fields = ("score", "points", "said", "by_hand")
    items = {one.item: {field: getattr(one, field) for field in fields} for one in graded.marks}
    sums = {"score": graded.score, "points": graded.points, "to_read": graded.to_read}
    return {"exercise": graded.exercise, **sums, "items": items}


# ---------------------------------------------------------------- a class


def write_class(folder, outcomes, words=None, moodle=None, canvas=None, assignment=None):
    """Write the results of a class of students to a folder.

    Parameters
    ----------
    folder : the folder to write
    outcomes : dict, path -> Graded, or a ValueError with the reason why the file cannot be graded
    words : file with points for written answers; by default `words.csv` in the folder
    moodle, canvas : Moodle's grading worksheet and Canvas's gradebook, as downloaded; the marks are written to copies
    assignment : name of the column in Canvas's gradebook; None if there is only one

    Raises
    ------
    ValueError
        If a file does not have the expected format, or cannot be written; all other files are written.
    """
    folder, paths = Path(folder), list(outcomes)
    entries = read_words(folder, words)
    students = {path: student_of(path, paths) for path in paths}
    counted, refused = counted_of(outcomes, students)
    rows = rows_of_class(students, counted, refused, entries)
    feedback, places = {}, {}  # files whose names differ only in their suffix share a place
    for path in paths:
        points = entries.get((students[path].id, counted[path].marks[-1].item)) if path in counted else None
        feedback[path] = report(counted[path], points) if path in counted else f"{Path(path).name}: {refused[path]}"
        places.setdefault(place_of_feedback(folder, path, paths), []).append(feedback[path])
    tables = {
        "marks.csv": lambda: marks_table(rows),
        "words.csv": lambda: words_table(counted, students, entries),
        "words.md": lambda: words_text(counted, students),
        "class.md": lambda: class_text(counted, refused),
        "class.png": lambda: as_png(draw_class, list(counted.values())),
        "moodle.csv": lambda: moodle_table(moodle, rows, comments_of(feedback, students)),
        "canvas.csv": lambda: canvas_table(canvas, rows, assignment),
    }
    unwanted = {"class.png": not counted, "moodle.csv": not moodle, "canvas.csv": not canvas}
    texts = {folder / name: make for name, make in tables.items() if not unwanted.get(name)}
    texts |= {place: lambda of=of_place: "\n\n".join(of) + "\n" for place, of_place in places.items()}
    failed = []
    for place, make in texts.items():
        try:  # marks are written, whatever else fails
            place.parent.mkdir(parents=True, exist_ok=True)
            content = make()
            write_atomically(place, content if isinstance(content, bytes) else content.encode())
        except (OSError, ValueError, RuntimeError) as error:
            failed.append(f"{place.name} was not written: {error}")
    if failed:
        raise ValueError("; ".join(failed))


def counted_of(outcomes, students):
    """Decide which notebook counts: the first of a student for each set.

    Returns
    -------
    counted : dict, path -> Graded
    refused : dict, path -> the reason why a notebook does not count
    """
    counted, refused, firsts = {}, {}, {}
    for path, one in outcomes.items():
        if not isinstance(one, Graded):
            refused[path] = f"not gradable: {str(one).replace(str(path), Path(path).name)}"
            continue
        first = firsts.setdefault((students[path].id, one.exercise), path)
        if first == path:
            counted[path] = one
        else:
            refused[path] = f"not counted, because {Path(first).name} counts for {one.exercise}"
    return counted, refused


def rows_of_class(students, counted, refused, words):
    """Return a dict, id -> row. A row maps items to scores (or None), "name", "score", "points" and "notes"."""
    rows = {}
    for path, student in students.items():
        row = rows.setdefault(student.id, {"name": student.name, "score": 0.0, "points": 0.0, "notes": []})
        if path in refused:
            row["notes"].append(f"{Path(path).name}: {refused[path]}")
        for mark in counted[path].marks if path in counted else ():
            given, _ = words.get((student.id, mark.item), (None, ""))
            row[mark.item] = given if mark.by_hand else mark.score
            row["score"] += row[mark.item] or 0.0
            row["points"] += mark.points
    return rows


def marks_table(rows):
    """Format the marks as a CSV table, with a row for each student and a column for each item of the submitted sets."""
    sets = [[*(exercise.name for exercise in of.exercises), of.question_id] for of in read_sets().values()]
    items = [item for of_set in sets for item in of_set if any(item in row for row in rows.values())]
    lines = [["student", "name", *items, "score", "points", "notes"]]
    for student, row in sorted(rows.items()):
        numbers = [row.get(item) for item in (*items, "score", "points")]
        lines.append([student, row["name"], *("" if n is None else f"{n:g}" for n in numbers), "; ".join(row["notes"])])
    return table(lines)


# ---------------------------------------------------------------- written answers


def read_words(folder, path=None):
    """Read a teacher's entries, by default from `words.csv`; return a dict, (student, item) -> (points, remark)."""
    if path is None and not (path := Path(folder) / "words.csv").exists():
        return {}
    (heads, *rows), _ = rows_of(path, "words")
    if missing := set(WORDS) - {"name"} - set(heads):  # earlier versions wrote no names
        raise ValueError(f"words: {path} has no column {' or '.join(sorted(missing))}; expected {', '.join(WORDS)}")
    entries = {}
    for number, row in enumerate(rows, 2):
        entry = dict(zip(heads, map(as_written, row)))
        points = entry.get("points", "").strip().replace(",", ".")
        if not points:
            continue
        try:
            value, most = float(points), float(entry["out_of"])
        except (ValueError, KeyError):
            value, most = math.nan, 0.0
        if not 0.0 <= value <= most:
            raise ValueError(f"words: {path}, line {number}: got {points!r} points, expected 0 to {most:g}")
        entries[entry["student"], entry["item"]] = value, entry.get("remark", "")
    return entries


def words_table(counted, students, entries):
    """Return the text of `words.csv`, in which the teacher fills in points and remarks."""
    rows = []
    for path, mark in written(counted):
        points, remark = entries.get((students[path].id, mark.item), ("", ""))
        filled = f"{points:g}" if points != "" else ""
        rows.append([*students[path], mark.item, f"{mark.points:g}", filled, remark])
    return table([list(WORDS), *sorted(rows)])


def words_text(counted, students):
    """Return the text of `words.md`: the written answers, by question, with the marking scheme."""
    lines, last = [], None
    for path, mark in sorted(written(counted), key=lambda one: (counted[one[0]].exercise, students[one[0]])):
        name = counted[path].exercise
        if name != last:
            of, last = read_sets()[name], name
            lines += [f"# {name}", "", of.question, "## Worked answer and marking scheme", "", of.answer]
        quoted = "\n".join(f"> {line}" for line in mark.said.splitlines())  # so that it has no headings of its own
        lines += [f"## {shown(' '.join(students[path]).strip())}", "", quoted, ""]
    return "\n".join(lines)


def written(counted):
    """List (path, Mark) of all written answers."""
    return [(path, mark) for path, one in counted.items() for mark in one.marks if mark.by_hand]


# ---------------------------------------------------------------- an overview of the class


def class_text(graded, refused):
    """Format an overview as Markdown: how many students got full marks for each item, and the common mistakes."""
    lines = ["# Overview of the class", ""]
    lines += [f"- {shown(str(path))}: {reason}" for path, reason in refused.items()] + [""] * bool(refused)
    for name in sorted({one.exercise for one in graded.values()}):
        of_set = [one for one in graded.values() if one.exercise == name]
        heads = "| item | students with full marks | mean score | most common mistakes |", "|---|---:|---:|---|"
        lines += [f"## {name}: {len(of_set)} notebooks", "", *heads]
        for item, marks in marks_by_item(of_set).items():
            common = Counter(mistake for mark in marks for mistake in mark.mistakes).most_common(3)
            said = "; ".join(f"{mistake} ({n})" for mistake, n in common).replace("|", "\\|").replace("\n", " ")
            share = sum(mark.score for mark in marks) / sum(mark.points for mark in marks)
            lines.append(f"| {item} | {sum(m.score == m.points for m in marks)} | {100 * share:.0f} % | {said} |")
        lines.append("")
    return "\n".join(lines)


def marks_by_item(of_set):
    return {
        first.item: [mark for one in of_set for mark in one.marks if mark.item == first.item]
        for first in of_set[0].marks
        if not first.by_hand
    }


def draw_class(all_graded):
    """Plot, for each item, how many students got all, some or none of its points."""
    marks = {}
    for name in sorted({one.exercise for one in all_graded}):
        marks |= marks_by_item([one for one in all_graded if one.exercise == name])
    figure = new_figure(8.0, 1.2 + 0.35 * len(marks))
    axes = figure.subplots()
    left = [0] * len(marks)
    kinds = {"all points": lambda m: m.score == m.points, "some": lambda m: 0 < m.score < m.points}
    kinds["none"] = lambda m: m.score == 0
    for (label, holds), colour in zip(kinds.items(), (OTHERS[1], OTHERS[2], OTHERS[0])):
        numbers = [sum(map(holds, of_item)) for of_item in marks.values()]
        axes.barh(list(marks), numbers, left=left, color=colour, label=label)
        left = [a + b for a, b in zip(left, numbers)]
    axes.invert_yaxis()
    axes.set_xlabel("students")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return figure


# ---------------------------------------------------------------- nbgrader


def collect(course, paths):
    """Copy notebooks to the paths that nbgrader expects; return a dict, path -> new path or error."""
    check_folder(course, "course")
    places = {}
    for path in paths:
        try:
            notebook = read_notebook(path)
            name = set_of(notebook, path).name
            place = Path(course) / "submitted" / student_of(path, paths).id / name / f"{name}.ipynb"
            if place in places.values():
                raise ValueError(f"notebooks: {path} is a second notebook for {name} from the same student")
            check_file(place, "course", paths)
            place.parent.mkdir(parents=True, exist_ok=True)
            ids = [marks_of(cell).get("grade_id") for cell in notebook.cells]
            if "setup" not in ids:  # nbgrader adds only cells that it grades
                notebook.cells.insert(0, next(filter(marks_of, notebook_of(read_sets()[name], "student").cells)))
            seen = set()
            for cell in notebook.cells:  # nbgrader fails if two cells have the same id
                if (id := marks_of(cell).get("grade_id")) in seen:
                    del cell.metadata["nbgrader"]
                seen |= {id} - {None}
            write_text(place, notebook_text(notebook))
            places[path] = place
        except ValueError as error:
            places[path] = error
    return places
