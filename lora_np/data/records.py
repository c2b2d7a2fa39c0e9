"""Read and write CSV, TSV and JSONL files, whole or in parts; error messages name the row and line."""

import csv
import difflib
import io
import json
import math
import threading
import warnings
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..checked import quoted, shown
from .texts import check_utf8, parsed_json
from .tokenizer import SURROGATE

SUFFIXES = (".csv", ".tsv", ".jsonl")
LONGEST_CELL = 2**31 - 1  # characters; csv's default limit is 131,072
CSV_LIMIT = threading.Lock()  # csv's limit applies to the entire process
QUOTING_HINT = "; if quotes enclose its cells, use --quoting"


class Records(NamedTuple):
    """All rows of a file."""

    path: Path
    columns: list[str]  # in the file's order; for JSONL, the keys of all objects
    rows: list[dict]  # for each row, column -> value: a str or, in JSONL, any JSON value
    places: list[str]  # the place of each row in the file, such as "row 2, line 3"


def read_records(path, quoting=False):
    """Read all rows and columns of a file.

    Parameters
    ----------
    path : str or Path, of a ``.csv`` or ``.tsv`` with a header line, or a ``.jsonl`` with one object per line. The
        file is UTF-8, with or without a byte-order mark. Blank lines and empty cells after the last column are skipped
    quoting : bool, whether a ``.tsv`` uses quotes to enclose cells, as every ``.csv`` does; otherwise quotes are text

    Returns
    -------
    Records; a warning is issued if quotes make rows span several lines

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the suffix is unknown, or the file is not a regular file, is not UTF-8, is malformed or has no rows. The
        message names the row and line.
    """
    for records in record_windows(path, quoting):
        return records
    raise ValueError(f"{path} has no rows; expected at least one")


def record_windows(path, quoting=False, size=None):
    """Yield the rows of a file in windows of at most `size` rows (None: all rows), each as Records.

    The other parameters are those of `read_records`. In JSONL, a window's `columns` are the keys of its own rows. Only
    one window is held in memory at a time.
    """
    path = Path(path)
    suffix = table_suffix("path", path)
    check_utf8(path)
    with path.open(encoding="utf-8-sig", newline="\n" if suffix == ".jsonl" else "") as file:
        if suffix == ".jsonl":
            rows = json_records(path, file)
        else:
            rows = delimited_records(path, file, suffix == ".tsv", quoting or suffix == ".csv")
        while True:
            with CSV_LIMIT:
                limit = csv.field_size_limit(LONGEST_CELL)
                try:
                    placed = list(islice(rows, size))
                finally:
                    csv.field_size_limit(limit)
            if not placed:
                return
            places, of_window = map(list, zip(*placed))
            columns = of_window[0] if suffix != ".jsonl" else dict.fromkeys(name for row in of_window for name in row)
            yield Records(path, list(columns), of_window, places)


def table_suffix(argument, path):
    """Return a table file's suffix in lower case; raise ValueError if it is not in SUFFIXES."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{argument}: got {str(path)!r}, expected a file whose name ends in {', '.join(SUFFIXES)}")
    return suffix


def column_of(records, column, argument, empty=False):
    """Return the values of one column as strings; a blank value raises ValueError unless `empty` is true.

    Parameters
    ----------
    records : Records
    column : str
    argument : "text_column" or "label_column", for messages; values of a "label_column" may also be numbers or booleans
    empty : bool, whether to replace a missing or blank value with an empty string instead of raising an error

    Returns
    -------
    list of str, one for each row
    """
    values = []
    for place, row in zip(records.places, records.rows):
        blank = row.get(column) is None or not str(row[column]).strip()
        is_empty = blank and empty and column in records.columns
        values.append("" if is_empty else checked_cell(f"{records.path}, {place}", row, column, argument))
    return values


def format_records(columns, rows, suffix, quoting=False, first=0):
    """Format rows as the content of a file that `read_records` and Python's csv module can read.

    Parameters
    ----------
    columns : list of str
    rows : list of dict, as in `Records`; in CSV and TSV, a value that is not a str is written as JSON, and a missing
        or null value as an empty cell
    suffix : ".csv", ".tsv" or ".jsonl"
    quoting : bool, whether to enclose cells of a TSV in quotes where necessary, as in a CSV
    first : int, the number of rows before these, if these are appended: there is then no header

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a value in a CSV or TSV has a lone surrogate or, in a TSV without quoting, a tab or a line break.
    """
    if suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        return "".join((json.dumps(row) if SURROGATE.search(line) else line) + "\n" for row, line in zip(rows, lines))
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
    rows = rows if first else [dict(zip(columns, columns)), *rows]
    for number, row in enumerate(rows, first + bool(first)):
        cells = [as_cell(row.get(column)) for column in columns]
        line = "\t".join(cells)
        if SURROGATE.search(line):
            raise ValueError(f"row {number} has a lone surrogate, which only a .jsonl can contain; use that format")
        if suffix == ".csv" or quoting:
            writer.writerow(cells)
        elif line.count("\t") > len(cells) - 1 or "\n" in line or "\r" in line:
            raise ValueError(f"row {number} has a tab or a line break in a cell; use quoting, or a .csv or .jsonl file")
        else:
            file.write(line + "\n")
    return file.getvalue()


def as_cell(value):
    """Format a value as the text of a cell."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def delimited_records(path, file, tabs, quoting):
    """For each row of a CSV or TSV, yield its place, such as "row 2, line 3", and a dict, column -> value.

    The reader is strict, because a stray quote would otherwise silently join rows. A pair of stray quotes is
    not detected, so a warning reports how many rows span several lines.
    """
    options = {"quoting": csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE, "strict": True}
    reader = csv.reader(file, delimiter="\t" if tabs else ",", **options)
    spans = []  # the line ranges of rows that span several lines
    rows = nonblank_rows(reader, spans)
    try:
        header = strip_empty_cells(next(rows, []), 0)
        repeated = sorted(name for name, n in Counter(header).items() if n > 1)
        if repeated:
            raise ValueError(f"{path} has more than one column named {listed(repeated)}")
        for row, values in enumerate(rows, start=1):
            place = f"row {row}, line {reader.line_num}"
            values = strip_empty_cells(values, len(header))
            if len(values) != len(header):
                hint = "" if quoting or '"' not in "".join(values) else QUOTING_HINT
                expected = f"expected {len(header)}, as the header has: {listed(header)}"
                raise ValueError(f"{path}, {place}: {len(values)} columns; {expected}{hint}")
            yield place, dict(zip(header, values))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not well formed: {error}") from error
    if spans:
        problem = f"rows that span several lines: {len(spans)}, the first on lines {spans[0]}"
        warnings.warn(f"{path}: {problem}; check that no stray quote joins rows there", stacklevel=2)


def nonblank_rows(reader, spans):
    """Yield the non-blank rows of a csv.reader; for a row that spans lines 3 to 5, append "3 to 5" to `spans`."""
    last = 0
    for cells in reader:
        first, last = last + 1, reader.line_num
        if last > first:
            spans.append(f"{first} to {last}")
        if cells:
            yield cells


def strip_empty_cells(cells, least):
    """Remove the empty cells that spreadsheets append to a row; always keep the first `least` cells."""
    n = len(cells)
    while n > least and not cells[n - 1].strip():
        n -= 1
    return cells[:n]


def json_records(path, file):
    """For each object of a JSONL file, yield its place, such as "row 2, line 3", and its fields; skip blank lines."""
    lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    for row, (number, line) in enumerate(lines, start=1):
        place = f"row {row}, line {number}"
        try:
            values = parsed_json(line)
        except (ValueError, RecursionError) as error:  # also for integers with thousands of digits, or deep nesting
            raise ValueError(f"{path}, {place}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}, {place}: got {type(values).__name__}, expected an object {{...}} on each line")
        yield place, values


def checked_cell(place, values, column, argument):
    """Return the value of one column as a str; raise ValueError if it is missing, blank or not a string."""
    if column not in values:
        near = difflib.get_close_matches(column, list(values), n=1, cutoff=0.5)
        hint = f"; did you mean {quoted(near[0])}?" if near else ""
        if f'"{column}"' in values:
            hint = QUOTING_HINT
        elif len(values) == 1 and ";" in next(iter(values)):
            hint = "; semicolons seem to separate its cells, expected commas"
        raise ValueError(f"{argument} is {column!r}, which {place} does not have; it has {listed(values)}{hint}")
    value = values[column]
    number = isinstance(value, (bool, int)) or isinstance(value, float) and math.isfinite(value)
    if number and argument == "label_column":
        value = json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"{place}: {column!r} is {shown(json.dumps(value))}; expected a string")
    if not value.strip():
        raise ValueError(f"{place}: {column!r} is empty")
    if SURROGATE.search(value):  # JSON can represent it, but UTF-8 cannot
        raise ValueError(f"{place}: {column!r} has a lone surrogate, which UTF-8 cannot encode")
    return value


def listed(names):
    """List column names or labels for a message: the first ten in quotes, then the number of the others."""
    names = list(names)
    return ", ".join(map(quoted, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
