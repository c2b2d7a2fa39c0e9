"""Write the results of a class of students: marks, written answers, an overview, and files for Moodle and Canvas."""

import csv
import io
import math
import re
from collections import Counter
from os.path import commonpath, realpath
from pathlib import Path

from ..checked import shown
from ..data.texts import existing_file
from ..experiments.drawing import OTHERS, as_png
from ..formats import check_file, check_folder, write_text
from ..formats.atomic import write_atomically
from ..tasks.pictures import new_figure
from .grading import Graded, set_of
from .notebooks import notebook_text, read_notebook
from .sets import read_sets

FILES = ("marks.csv", "words.csv", "words.md", "class.md", "class.png", "moodle.csv", "canvas.csv")
WORDS = ("student", "item", "out_of", "points", "remark")  # columns of words.csv; the teacher fills in the last two
# Patterns of folder and file names in downloads from Moodle and Canvas; these names contain the student's id.
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file")
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_.+")
FORMULA = re.compile(r"[=+\-@\t\r](?!\d*$)")  # the start of text that a spreadsheet program would evaluate


def student_of(path, paths):
    """Return the student's id if Moodle or Canvas put it in a folder or file name, else the folder's or file's name.

    Parameters
    ----------
    path : the notebook
    paths : list of all notebooks, whose common parent folders are ignored
    """
    place = Path(realpath(path))
    for part in (*reversed(place.parts[:-1]), place.stem):
        if found := MOODLE.fullmatch(part) or CANVAS.fullmatch(part):
            return found["id"]
    common = Path(commonpath([Path(realpath(other)).parent for other in paths]))
    folders = place.relative_to(common).parts[:-1]
    return folders[0] if folders else place.stem


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
    outcomes : dict, path -> Graded, or a ValueError with the reason why the notebook cannot be graded
    words : file with points for written answers; by default `words.csv` in the folder
    moodle, canvas : Moodle's grading worksheet and Canvas's gradebook, as downloaded; the marks are written to copies
    assignment : name of the column in Canvas's gradebook; None if there is only one

    Raises
    ------
    ValueError
        If a file does not have the expected format.
    """
    folder, paths = Path(folder), list(outcomes)
    entries = read_words(folder, words)
    students = {path: student_of(path, paths) for path in paths}
    graded = {path: one for path, one in outcomes.items() if isinstance(one, Graded)}
    rows = rows_of_class(outcomes, students, entries)
    texts = {folder / "marks.csv": marks_table(rows), folder / "class.md": class_text(graded)}
    texts[folder / "words.csv"], texts[folder / "words.md"] = words_files(graded, students, entries)
    texts |= {folder / name: text for name, text in course_tables(rows, moodle, canvas, assignment).items()}
    for path, one in outcomes.items():
        points = entries.get((students[path], graded[path].marks[-1].item)) if path in graded else None
        text = report(one, points) if path in graded else f"{Path(path).name}: not graded\n{one}"
        texts[place_of_feedback(folder, path, paths)] = text + "\n"
    for place, text in texts.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, text)
    if graded:
        write_atomically(folder / "class.png", as_png(draw_class, list(graded.values())))


def table(rows):
    """Return the text of a CSV file, with a byte order mark so that spreadsheet programs read it as UTF-8.

    Text from students that a spreadsheet program would evaluate as a formula gets an apostrophe in front.
    """
    return "\ufeff" + csv_text([[f"'{cell}" if FORMULA.match(cell) else cell for cell in row] for row in rows])


def csv_text(rows):
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


def rows_of(path, name):
    """Read the rows of a CSV file, starting with the header; short rows are padded with empty strings."""
    try:
        text = existing_file(path).read_text(encoding="utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ValueError(f"{name}: {path} is not a CSV file in UTF-8") from None
    if not rows:
        raise ValueError(f"{name}: {path} is empty")
    return [row + [""] * (len(rows[0]) - len(row)) for row in rows]


def rows_of_class(outcomes, students, words):
    """Return a dict, student -> row. A row maps items to scores (or None), and also has "score", "points" and "notes".

    Only a student's first notebook of each set counts.
    """
    rows = {}
    for path, one in outcomes.items():
        row = rows.setdefault(students[path], {"score": 0.0, "points": 0.0, "notes": []})
        if not isinstance(one, Graded):
            row["notes"].append(f"{Path(path).name} is not graded: {str(one).replace(str(path), Path(path).name)}")
        elif any(mark.item in row for mark in one.marks):
            row["notes"].append(f"several notebooks for {one.exercise}: {Path(path).name} is not counted")
        else:
            for mark in one.marks:
                given, _ = words.get((students[path], mark.item), (None, ""))
                row[mark.item] = given if mark.by_hand else mark.score
                row["score"] += row[mark.item] or 0.0
                row["points"] += mark.points
    return rows


def marks_table(rows):
    """Format the marks as a CSV table, with a row for each student and a column for each item of the submitted sets."""
    sets = [[*(exercise.name for exercise in of.exercises), of.question_id] for of in read_sets().values()]
    items = [item for of_set in sets for item in of_set if any(item in row for row in rows.values())]
    lines = [["student", *items, "score", "points", "notes"]]
    for student, row in sorted(rows.items()):
        numbers = [row.get(item) for item in (*items, "score", "points")]
        lines.append([student, *("" if n is None else f"{n:g}" for n in numbers), "; ".join(row["notes"])])
    return table(lines)


# ---------------------------------------------------------------- written answers


def read_words(folder, path=None):
    """Read a teacher's entries, by default from `words.csv`; return a dict, (student, item) -> (points, remark)."""
    if path is None and not (path := Path(folder) / "words.csv").exists():
        return {}
    heads, *rows = rows_of(path, "words")
    if not set(WORDS) <= set(heads):
        raise ValueError(f"words: {path} has the columns {', '.join(heads)}, expected {', '.join(WORDS)}")
    entries = {}
    for number, row in enumerate(rows, 2):
        entry = dict(zip(heads, (cell[1:] if FORMULA.match(cell[1:]) and cell[0] == "'" else cell for cell in row)))
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


def words_files(graded, students, entries):
    """Return the texts of `words.csv`, which the teacher fills in, and of `words.md`, with the written answers."""
    rows, answers = [list(WORDS)], {}
    for path, one in graded.items():
        for mark in one.marks:
            if mark.by_hand:
                points, remark = entries.get((students[path], mark.item), ("", ""))
                filled = f"{points:g}" if points != "" else ""
                rows.append([students[path], mark.item, f"{mark.points:g}", filled, remark])
                answers.setdefault(one.exercise, []).append((students[path], mark.said))
    lines = []
    for name, of_class in answers.items():
        of = read_sets()[name]
        lines += [f"# {name}", "", of.question, "", "## Worked answer and marking scheme", "", of.answer, ""]
        for student, answer in sorted(of_class):
            quoted = "\n".join(f"> {line}" for line in answer.splitlines())  # so that it has no headings of its own
            lines += [f"## {shown(student)}", "", quoted, ""]
    return table([rows[0], *sorted(rows[1:])]), "\n".join(lines)


# ---------------------------------------------------------------- an overview of the class


def class_text(graded):
    """Format an overview as Markdown: how many students got full marks for each item, and the common mistakes."""
    lines = ["# Overview of the class", ""]
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


# ---------------------------------------------------------------- Moodle and Canvas


def course_tables(rows, moodle=None, canvas=None, assignment=None):
    """Copy the marks in `rows` (see `rows_of_class`) to Moodle's and Canvas's tables; return a dict, name -> text."""
    tables = {"moodle.csv": moodle_table(moodle, rows)} if moodle else {}
    return tables | ({"canvas.csv": canvas_table(canvas, rows, assignment)} if canvas else {})


def moodle_table(path, rows):
    """Fill in the Grade column of Moodle's grading worksheet; scores are scaled to the maximum grade."""
    heads, *lines = rows_of(path, "moodle")
    if "Identifier" not in heads or "Grade" not in heads:
        raise ValueError(f"moodle: {path} lacks the column Identifier or Grade, expected Moodle's grading worksheet")
    for number, line in enumerate(lines, 2):
        entry = dict(zip(heads, line))
        most = entry.get("Maximum Grade", "").replace(",", ".").strip()
        if not re.fullmatch(r"(?=.*[1-9])\d{1,9}(\.\d*)?|", most):
            raise ValueError(
                f"moodle: {path}, row {number}: got the maximum grade {most!r}, expected a positive number"
            )
        row = rows.get(re.sub(r"\D", "", entry["Identifier"]))
        if row and row["points"]:
            most = float(most or row["points"])
            line[heads.index("Grade")] = f"{row['score'] * most / row['points']:.2f}"
    return csv_text([heads, *lines])


def canvas_table(path, rows, assignment=None):
    """Enter the scores in one assignment's column of Canvas's gradebook."""
    heads, *lines = rows_of(path, "canvas")
    known = {"Student", "ID", "SIS User ID", "SIS Login ID", "Integration ID", "Section", "Root Account"}
    columns = [head for head in heads if re.search(r"\(\d+\)$", head)] if "ID" in heads else []
    wanted = [head for head in columns if assignment in (None, head, re.sub(r" \(\d+\)$", "", head))]
    if len(wanted) != 1 or not {"Student", "ID"} <= set(heads):
        expected = f"one of {', '.join(columns) or 'the assignments'}"
        raise ValueError(f"assignment: got {assignment!r}, expected {expected}, as in Canvas's gradebook {path}")
    keep = [n for n, head in enumerate(heads) if head in known or head == wanted[0]]
    who, column = heads.index("ID"), heads.index(wanted[0])
    for line in lines:
        if (student := line[who].strip()) in rows:
            line[column] = f"{rows[student]['score']:g}"
    return csv_text([[line[n] for n in keep] for line in (heads, *lines)])


# ---------------------------------------------------------------- nbgrader


def collect(course, paths):
    """Copy notebooks to the paths that nbgrader expects; return a dict, path -> new path or error."""
    check_folder(course, "course")
    places = {}
    for path in paths:
        try:
            notebook = read_notebook(path)
            name = set_of(notebook, path).name
            place = Path(course) / "submitted" / student_of(path, paths) / name / f"{name}.ipynb"
            if place in places.values():
                raise ValueError(f"notebooks: {path} is a second notebook for {name} from the same student")
            check_file(place, "course", paths)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, notebook_text(notebook))
            places[path] = place
        except ValueError as error:
            places[path] = error
    return places
