"""A user's own labelled texts: a CSV, TSV or JSONL file with a column of texts and one of labels.

Everything that can be wrong with such a file is reported with the place where it is wrong.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .reviews import text_digest
from .tokenizer import has_surrogate

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")

Record = tuple[str, dict[str, Any]]  # where it stands ("row 2, line 3"), and its values by column


class Table(NamedTuple):
    """Texts and their labels, in the same order; without a label column `labels` is empty."""

    texts: list[str]
    labels: list[str]


class TableSplits(NamedTuple):
    """Three parts that share no text."""

    train: Table
    validation: Table
    test: Table


def read_table(path: str | Path, text_column: str, label_column: str | None) -> Table:
    """Read the texts and labels of a file.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.tsv`` with a header line, or ``.jsonl`` with an object on each line; UTF-8, with or
        without a byte-order mark.
    text_column, label_column : str
        Names of two columns, or keys of the objects. A label column of None reads texts alone.

    Returns
    -------
    Table
        Labels are str, stripped of white space; JSON integers and booleans become ``"1"``, ``"true"``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is another one, the file is not UTF-8 or not well formed, has no rows or not those
        columns, or a text or label is empty. The message says in which row and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"path is {str(path)!r}; expected a file whose name ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}; expected a file, and there is no such file")
    if text_column == label_column:
        raise ValueError(f"text_column and label_column are both {text_column!r}; expected two columns")

    content = read_utf8(path)
    if suffix == ".jsonl":
        records = json_records(path, content)
    else:
        records = delimited_records(path, content, DELIMITERS[suffix])

    texts, labels = [], []
    for place, values in records:
        texts.append(cell(path, place, values, text_column, "text_column"))
        if label_column is not None:
            labels.append(cell(path, place, values, label_column, "label_column").strip())
    if not texts:
        raise ValueError(f"{path} has no rows; expected at least one text")
    return Table(texts, labels)


def label_names(labels: Sequence[str]) -> list[str]:
    """The distinct labels, sorted: the name of class k is entry k.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    names = sorted(set(labels))
    if len(names) < 2:
        raise ValueError(f"labels has {len(names)} class(es), {quoted(names)}; expected at least two to tell apart")
    return names


def encode_labels(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Class numbers, (N,) int64: the place of each label in `names`.

    Raises
    ------
    ValueError
        If a label is not in `names`, as when a class occurs in the test part alone.
    """
    number = {name: k for k, name in enumerate(names)}
    unknown = sorted(set(labels) - set(number))
    if unknown:
        raise ValueError(f"labels has {quoted(unknown)}, not among the classes known from training: {quoted(names)}")
    return np.array([number[label] for label in labels], dtype=np.int64)


def split_table(table: Table, fractions: tuple[float, float, float], seed: int) -> TableSplits:
    """Split a labelled table in train, validation and test, with each class in proportion.

    The distinct texts are ordered by label, and within a label by a hash of `seed` and the text; each in
    turn goes to the part that is furthest behind its fraction. So every part is within one text of its
    size, every class is spread evenly, and the same table and seed give the same parts on every machine.
    A text that occurs several times goes to one part with all its rows: none is both learned and tested.
    Each class's first text goes to train, so that train knows it, however rare (unless the class has
    only texts that occurred earlier with another label).

    Parameters
    ----------
    table : Table
    fractions : (float, float, float)
        Of train, validation and test; not negative, train positive, together 1.
    seed : int

    Returns
    -------
    TableSplits
        Rows of each part in the order of the table.

    Raises
    ------
    ValueError
        If the table has no labels, the fractions are not as above, or there are too few texts for a part
        whose fraction is not 0.
    """
    if len(table.labels) != len(table.texts) or not table.texts:
        raise ValueError(
            f"table has {len(table.texts)} texts and {len(table.labels)} labels; expected as many, and at least one"
        )
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"fractions is {fractions}; expected three numbers for train, validation and test, "
            "not negative, the first not 0, together 1"
        )

    salt = f"lora_np/split/{seed}:".encode()
    digests = [text_digest(text, salt) for text in table.texts]
    first_label: dict[bytes, str] = {}  # a text's class is that of its first row
    for digest, label in zip(digests, table.labels):
        first_label.setdefault(digest, label)

    part_of: dict[bytes, int] = {}
    sizes = [0, 0, 0]
    classes_in_train = set()
    for label, digest in sorted((label, digest) for digest, label in first_label.items()):
        if label in classes_in_train:
            behind = [fraction * (len(part_of) + 1) - size for fraction, size in zip(fractions, sizes)]
            part = behind.index(max(behind))
        else:
            part = 0
            classes_in_train.add(label)
        part_of[digest] = part
        sizes[part] += 1

    for name, fraction, size in zip(TableSplits._fields, fractions, sizes):
        if fraction > 0 and size == 0:
            raise ValueError(
                f"table has {len(part_of)} distinct texts of {len(classes_in_train)} classes: too few to give "
                f"{name} its fraction of {fraction}; expected more rows, or a fraction of 0"
            )
    parts = [Table([], []) for _ in fractions]
    for text, label, digest in zip(table.texts, table.labels, digests):
        part = parts[part_of[digest]]
        part.texts.append(text)
        part.labels.append(label)
    return TableSplits(*parts)


def read_utf8(path: Path) -> str:
    """The file's text without its byte-order mark; ValueError with the line and byte that is not UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.object and not content: a byte-order mark is already cut off it
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


def delimited_records(path: Path, content: str, delimiter: str) -> Iterator[Record]:
    """Records of a CSV or TSV; strict, because a stray quote would otherwise swallow rows in silence."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header, row = None, 0
    try:
        for values in reader:
            if not values:
                continue  # a blank line
            if header is None:
                header = values
                repeated = sorted({name for name in header if header.count(name) > 1})
                if repeated:
                    raise ValueError(f"{path} has more than one column of the name {quoted(repeated)}")
                continue
            row += 1
            place = f"row {row}, line {reader.line_num}"
            if len(values) != len(header):
                raise ValueError(
                    f"{path}, {place}: {len(values)} columns; expected {len(header)}, as the header has: "
                    f"{quoted(header)}"
                )
            yield place, dict(zip(header, values))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not well formed: {error}") from error


def json_records(path: Path, content: str) -> Iterator[Record]:
    """Records of a JSONL file; blank lines are passed over."""
    row = 0
    for line_number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        row += 1
        place = f"row {row}, line {line_number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # also: an integer of thousands of digits, deep nesting
            raise ValueError(f"{path}, {place}: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}, {place}: {type(values).__name__}; expected an object {{...}} on each line")
        yield place, values


def cell(path: Path, place: str, values: dict[str, Any], column: str, argument: str) -> str:
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


def quoted(names: Sequence[str]) -> str:
    """Names for a message: at most ten, quoted."""
    names = list(names)
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
