"""CSV tables: the results of a class, Moodle's grading worksheet and Canvas's gradebook."""

import csv
import io
import re
from html import escape

from ..data.texts import existing_file

FORMULA = re.compile(r"[=+\-@\t\r](?!\d*$)")  # the start of text that a spreadsheet program would evaluate


def table(rows):
    """Return the text of a CSV file, with a byte order mark so that spreadsheet programs read it as UTF-8.

    Text from students that a spreadsheet program would evaluate as a formula gets an apostrophe in front.
    """
    return "\ufeff" + csv_text([[f"'{cell}" if FORMULA.match(cell) else cell for cell in row] for row in rows])


def as_written(cell):
    """Return a cell's text without the apostrophe that `table` puts in front."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell, 1) else cell


def csv_text(rows, delimiter=","):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


def rows_of(path, name):
    """Read the rows of a CSV file, starting with the header; short rows are padded with empty strings.

    The delimiter (a comma, a semicolon or a tab) is the one that is most frequent in the header. Returns it, too.
    """
    try:
        text = existing_file(path).read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ValueError(f"{name}: {path} is not a CSV file in UTF-8") from None
    if not rows:
        raise ValueError(f"{name}: {path} is empty")
    return [row + [""] * (len(rows[0]) - len(row)) for row in rows], delimiter


HEADINGS = (  # of Moodle's grading worksheet, in English and in German
    ("Identifier", "Grade", "Maximum Grade", "Feedback comments"),
    ("ID", "Bewertung", "Bestwertung", "Feedback als Kommentar"),
)


def check_tables(moodle=None, canvas=None, assignment=None):
    """Raise ValueError unless Moodle's and Canvas's tables can be filled in."""
    if moodle:
        moodle_table(moodle, {}, {})
    if canvas:
        canvas_table(canvas, {}, assignment)


def comments_of(feedback, students):
    """Return each student's feedback as HTML, as a dict, id -> text."""
    texts = {}
    for path, text in feedback.items():
        texts.setdefault(students[path].id, []).append(escape(text).replace("\n", "<br>"))
    return {student: "<br><br>".join(of_student) for student, of_student in texts.items()}


def moodle_table(path, rows, comments):
    """Fill in the grades, scaled to the maximum grade, and the feedback of Moodle's grading worksheet."""
    (heads, *lines), delimiter = rows_of(path, "moodle")
    columns = next((names for names in HEADINGS if {*names[:2]} <= {*heads}), None)
    if columns is None:
        raise ValueError(f"moodle: {path} lacks the column Identifier or Grade, expected Moodle's grading worksheet")
    who, grade, maximum, feedback = (heads.index(name) if name in heads else None for name in columns)
    for number, line in enumerate(lines, 2):
        most = line[maximum].replace(",", ".").strip() if maximum is not None else ""
        if not re.fullmatch(r"(?=.*[1-9])\d{1,9}(\.\d*)?|", most):
            raise ValueError(
                f"moodle: {path}, row {number}: got the maximum grade {most!r}, expected a positive number"
            )
        student = re.sub(r"\D", "", line[who])
        row = rows.get(student)
        if row and row["points"]:
            most = float(most or row["points"])
            points = f"{row['score'] * most / row['points']:.2f}"
            line[grade] = points if columns is HEADINGS[0] else points.replace(".", ",")
        if feedback is not None and student in comments:
            line[feedback] = comments[student]
    return csv_text([heads, *lines], delimiter)


def canvas_table(path, rows, assignment=None):
    """Enter the scores in one assignment's column of Canvas's gradebook."""
    (heads, *lines), delimiter = rows_of(path, "canvas")
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
    return csv_text([[line[n] for n in keep] for line in (heads, *lines)], delimiter)
