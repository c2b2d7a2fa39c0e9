"""A user's own labelled texts: a CSV, TSV or JSONL file with a column of texts and one of labels.

Every error in such a file is reported with its place.
"""

import csv
import difflib
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .reviews import Splits, text_digest
from .texts import read_utf8
from .tokenizer import has_surrogate

SUFFIXES = (".csv", ".tsv", ".jsonl")


class Table(NamedTuple):
    """Texts and their labels, in the same order; without a label column `labels` is empty."""

    texts: list[str]
    labels: list[str]


def read_table(path, text_column, label_column):
    """Read the texts and labels of a file.

    Parameters
    ----------
    path : str or Path, of a ``.csv`` or ``.tsv`` with a header line, or a ``.jsonl`` with an object on each line; in
        UTF-8, with or without a byte-order mark
    text_column, label_column : str, names of two columns or keys of the objects; label_column may be None, to read
        texts alone

    Returns
    -------
    Table
        Labels are str, stripped of white space; JSON integers and booleans become ``"1"``, ``"true"``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is another one, the file is not UTF-8 or not well formed, has no rows or lacks a column, or a text
        or label is empty. The message names the row and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path: got {str(path)!r}, expected a file whose name ends in {', '.join(SUFFIXES)}")
    if text_column == label_column:
        raise ValueError(f"text_column and label_column are both {text_column!r}; expected two columns")

    texts, labels = [], []
    read = json_records if suffix == ".jsonl" else delimited_records
    for place, values in read(path, read_utf8(path)):
        texts.append(cell(path, place, values, text_column, "text_column"))
        if label_column is not None:
            labels.append(cell(path, place, values, label_column, "label_column").strip())
    if not texts:
        raise ValueError(f"{path} has no rows; expected at least one text")
    return Table(texts, labels)


def label_names(labels):
    """The distinct labels, sorted: entry k is the name of class k. ValueError if there are fewer than two."""
    names = sorted(set(labels))
    if len(names) < 2:
        raise ValueError(f"labels: got {len(names)} class(es), {quoted(names)}, expected at least two to tell apart")
    return names


def encode_labels(labels, names):
    """Class numbers, (N,) int64: the index of each label in `names`.

    Raises
    ------
    ValueError
        If a label is not in `names`, such as a class that occurs in the test part alone.
    """
    number = {name: k for k, name in enumerate(names)}
    unknown = sorted(set(labels) - set(number))
    if unknown:
        raise ValueError(f"labels: got {quoted(unknown)}, expected the classes known from training: {quoted(names)}")
    return np.array([number[label] for label in labels], dtype=np.int64)


def split_table(table, fractions, seed):
    """Split a labelled table into train, validation and test, with each class in proportion.

    The distinct texts are ordered by label, and within a label by a hash of `seed` and the text; each in turn goes to
    the part that is furthest behind its fraction. So every part is within one text of its size, every class is spread
    evenly, and the same table and seed give the same parts on every machine. All rows with the same text go to one
    part, so no text is both learned and tested. Each class's first text goes to train, so that train knows even rare
    classes (unless all texts of the class occurred earlier with another label).

    Parameters
    ----------
    table : Table
    fractions : (float, float, float), of train, validation and test; not negative, train positive, together 1
    seed : int

    Returns
    -------
    Splits of Table, with the rows of each part in the order of the table

    Raises
    ------
    ValueError
        If the table has no labels, the fractions are not as above, or there are too few texts for a part whose
        fraction is not 0.
    """
    if len(table.labels) != len(table.texts) or not table.texts:
        raise ValueError(
            f"table: got {len(table.texts)} texts and {len(table.labels)} labels, expected as many, and at least one"
        )
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"fractions: got {fractions}, expected three numbers for train, validation and test, "
            "not negative, the first not 0, together 1"
        )

    salt = f"lora_np/split/{seed}:".encode()
    digests = [text_digest(text, salt) for text in table.texts]
    label_of = dict(zip(digests[::-1], table.labels[::-1]))  # a text's class is that of its first row
    part_of, sizes, classes_in_train = {}, [0, 0, 0], set()
    for label, digest in sorted((label, digest) for digest, label in label_of.items()):
        behind = [fraction * (len(part_of) + 1) - size for fraction, size in zip(fractions, sizes)]
        part = behind.index(max(behind)) if label in classes_in_train else 0
        classes_in_train.add(label)
        part_of[digest] = part
        sizes[part] += 1
    for name, fraction, size in zip(Splits._fields, fractions, sizes):
        if fraction > 0 and size == 0:
            raise ValueError(
                f"table: got {len(part_of)} distinct texts of {len(classes_in_train)} classes, too few to give "
                f"{name} its fraction of {fraction}; expected more rows, or a fraction of 0"
            )
    splits = Splits(*(Table([], []) for _ in fractions))
    for text, label, digest in zip(table.texts, table.labels, digests):
        splits[part_of[digest]].texts.append(text)
        splits[part_of[digest]].labels.append(label)
    return splits


def delimited_records(path, content):
    """Yield ("row 2, line 3", its values by column) for the rows of a CSV or TSV; blank lines are skipped.

    The reader is strict, because a stray quote would otherwise silently swallow rows.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows = filter(None, reader)
    try:
        header = next(rows, [])
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise ValueError(f"{path} has more than one column of the name {quoted(repeated)}")
        for row, values in enumerate(rows, start=1):
            place = f"row {row}, line {reader.line_num}"
            if len(values) != len(header):
                expected = f"expected {len(header)}, as the header has: {quoted(header)}"
                raise ValueError(f"{path}, {place}: {len(values)} columns; {expected}")
            yield place, dict(zip(header, values))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not well formed: {error}") from error


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
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{argument} is {column!r}, which {path}, {place} does not have; it has {quoted(values)}{hint}"
        )
    value = values[column]
    if isinstance(value, (bool, int)) and argument == "label_column":
        value = json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"{path}, {place}: {column!r} is {json.dumps(value)}; expected a string")
    if not value.strip():
        raise ValueError(f"{path}, {place}: {column!r} is empty")
    if has_surrogate(value):  # JSON can write what UTF-8 cannot
        raise ValueError(f"{path}, {place}: {column!r} has half a surrogate pair, which is no character")
    return value


def quoted(names):
    """Names for a message: at most ten, quoted."""
    names = list(names)
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
