"""A user's own file of texts with all its columns: CSV, TSV or JSONL, read and written.

Every error in such a file is reported with its place.
"""

import csv
import difflib
import io
import json
import math
import threading
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ..checked import quoted, shown
from .texts import read_utf8
from .tokenizer import has_surrogate

SUFFIXES = (".csv", ".tsv", ".jsonl")
LONGEST_CELL = 2**31 - 1  # characters; csv's own limit of 131,072 is one for the whole process
CSV_LIMIT = threading.Lock()
QUOTING_HINT = "; if quotes enclose its cells, use --quoting"


class Records(NamedTuple):
    """All rows of a file."""

    path: Path
    columns: list[str]  # in their order; of JSONL, the keys of all objects
    rows: list[dict]  # the values of each row by column: str, or of JSONL any value
    places: list[str]  # of each row, such as "row 2, line 3"


def read_records(path, quoting=False):
    """Read all columns of a file.

    Parameters
    ----------
    path : str or Path, of a ``.csv`` or ``.tsv`` with a header line, or a ``.jsonl`` with an object on each line; in
        UTF-8, with or without a byte-order mark. Blank lines, and empty cells beyond the last column, are skipped
    quoting : bool, whether quotes enclose cells in a ``.tsv``, as they always do in a ``.csv``; else they are text

    Returns
    -------
    Records; a warning says where quotes join several lines to one row

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is another one, it is not a regular file, is not UTF-8 or not well formed, or has no rows. The
        message names the row and line.
    """
    path = Path(path)
    suffix = table_suffix("path", path)
    content = read_utf8(path)
    if suffix == ".jsonl":
        placed = list(json_records(path, content))
    else:
        with CSV_LIMIT:
            limit = csv.field_size_limit(LONGEST_CELL)
            try:
                placed = list(delimited_records(path, content, suffix == ".tsv", quoting or suffix == ".csv"))
            finally:
                csv.field_size_limit(limit)
    if not placed:
        raise ValueError(f"{path} has no rows; expected at least one text")
    places, rows = map(list, zip(*placed))
    columns = dict.fromkeys(column for row in rows for column in row) if suffix == ".jsonl" else rows[0]
    return Records(path, list(columns), rows, places)


def table_suffix(argument, path):
    """The suffix of a table's file, in small letters; ValueError if it is none of SUFFIXES."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{argument}: got {str(path)!r}, expected a file whose name ends in {', '.join(SUFFIXES)}")
    return suffix


def column_of(records, column, argument, empty=False):
    """The values of one column, each a str that is not blank.

    Parameters
    ----------
    records : Records
    column : str
    argument : "text_column" or "label_column", for messages; labels may be numbers and booleans
    empty : bool, whether a missing or blank value is an empty text, and not an error

    Returns
    -------
    list of str, one a row
    """
    rows = list(zip(records.places, records.rows))
    if not (empty and column in records.columns):
        return [cell(records.path, place, values, column, argument) for place, values in rows]
    blank = [values.get(column) is None or not str(values[column]).strip() for _, values in rows]
    return ["" if b else cell(records.path, *row, column, argument) for b, row in zip(blank, rows)]


def format_records(columns, rows, suffix, quoting=False):
    """The text of a file that `read_records` reads as these rows, and Python's csv too.

    Parameters
    ----------
    columns : list of str
    rows : list of dict, as in `Records`; in CSV and TSV a value that is not a str becomes its JSON text, and a missing
        or null one an empty cell
    suffix : ".csv", ".tsv" or ".jsonl"
    quoting : bool, whether to enclose cells of a TSV in quotes where that is needed, as in a CSV

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the file cannot hold a value: a tab or a line break in a TSV without quotes, half a surrogate pair.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
    for number, row in enumerate(rows if suffix == ".jsonl" else [dict(zip(columns, columns)), *rows]):
        if suffix == ".jsonl":
            line = json.dumps(row, ensure_ascii=False)
            file.write((json.dumps(row) if has_surrogate(line) else line) + "\n")
            continue
        cells = [as_cell(row.get(column)) for column in columns]
        line = "\t".join(cells)
        if has_surrogate(line):
            raise ValueError(f"row {number} has half a surrogate pair, which only a .jsonl can hold; write one")
        if suffix == ".csv" or quoting:
            writer.writerow(cells)
        elif line.count("\t") > len(cells) - 1 or "\n" in line or "\r" in line:
            why = "has a tab or a line break in a cell, which a .tsv without quoting cannot hold"
            raise ValueError(f"row {number} {why}; write a .csv or a .jsonl")
        else:
            file.write(line + "\n")
    return file.getvalue()


def as_cell(value):
    """A value as the text of a cell."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def delimited_records(path, content, tabs, quoting):
    """Yield ("row 2, line 3", its values by column) for the rows of a CSV or TSV.

    The reader is strict, because a stray quote would otherwise silently swallow rows. It cannot see two stray quotes,
    so a warning says how many rows span several lines.
    """
    how = {"quoting": csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE, "strict": True}
    reader = csv.reader(io.StringIO(content, newline=""), delimiter="\t" if tabs else ",", **how)
    joined = []  # the lines of rows that span several
    rows = rows_that_are_not_blank(reader, joined)
    try:
        header = without_empty_end(next(rows, []), 0)
        repeated = sorted(name for name, n in Counter(header).items() if n > 1)
        if repeated:
            raise ValueError(f"{path} has more than one column of the name {listed(repeated)}")
        for row, values in enumerate(rows, start=1):
            place = f"row {row}, line {reader.line_num}"
            values = without_empty_end(values, len(header))
            if len(values) != len(header):
                hint = "" if quoting or '"' not in "".join(values) else QUOTING_HINT
                expected = f"expected {len(header)}, as the header has: {listed(header)}"
                raise ValueError(f"{path}, {place}: {len(values)} columns; {expected}{hint}")
            yield place, dict(zip(header, values))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not well formed: {error}") from error
    if joined:
        what = f"rows that span several lines: {len(joined)}, the first lines {joined[0]}"
        warnings.warn(f"{path}: {what}; check that no stray quote joins rows there", stacklevel=2)


def rows_that_are_not_blank(reader, joined):
    """Yield the rows of a csv.reader; append "3 to 5" to `joined` for a row that spans these lines."""
    last = 0
    for cells in reader:
        first, last = last + 1, reader.line_num
        if last > first:
            joined.append(f"{first} to {last}")
        if cells:
            yield cells


def without_empty_end(cells, least):
    """A row without the empty cells that spreadsheets add at its end; `least` cells stay, if it has as many."""
    n = len(cells)
    while n > least and not cells[n - 1].strip():
        n -= 1
    return cells[:n]


def json_records(path, content):
    """Yield ("row 2, line 3", its values by key) for the objects of a JSONL file; blank lines are skipped."""
    lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    for row, (number, line) in enumerate(lines, start=1):
        place = f"row {row}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # also: an integer of thousands of digits, deep nesting
            raise ValueError(f"{path}, {place}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}, {place}: {type(values).__name__}; expected an object {{...}} on each line")
        yield place, values


def cell(path, place, values, column, argument):
    """The value of one column as a str that is not blank."""
    if column not in values:
        near = difflib.get_close_matches(column, list(values), n=1, cutoff=0.5)
        hint = f"; did you mean {quoted(near[0])}?" if near else ""
        if f'"{column}"' in values:
            hint = QUOTING_HINT
        raise ValueError(
            f"{argument} is {column!r}, which {path}, {place} does not have; it has {listed(values)}{hint}"
        )
    value = values[column]
    number = isinstance(value, (bool, int)) or isinstance(value, float) and math.isfinite(value)
    if number and argument == "label_column":
        value = json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"{path}, {place}: {column!r} is {shown(json.dumps(value))}; expected a string")
    if not value.strip():
        raise ValueError(f"{path}, {place}: {column!r} is empty")
    if has_surrogate(value):  # JSON can write what UTF-8 cannot
        raise ValueError(f"{path}, {place}: {column!r} has half a surrogate pair, which is not UTF-8")
    return value


def listed(names):
    """Names from a file, for a message: at most ten, quoted."""
    names = list(names)
    return ", ".join(map(quoted, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
