"""A user's own labelled texts: read from two columns of a file, and split into parts."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from .records import column_of, listed, read_records
from .reviews import Splits, text_digest


class Table(NamedTuple):
    """Texts and their labels, in the same order."""

    texts: list[str]
    labels: list[str]


def read_table(path, text_column, label_column, quoting=False):
    """Read the texts and labels of a file.

    Parameters
    ----------
    path, quoting : see `read_records`
    text_column, label_column : str, names of two columns or keys of the objects

    Returns
    -------
    Table
        Labels are str, stripped of white space; JSON numbers and booleans become their JSON text: ``"1"``, ``"0.5"``,
        ``"true"``.

    Raises
    ------
    OSError, ValueError
        As `read_records`, or if a column is missing, or a text or label is empty. The message names the row and line.
    """
    if text_column == label_column:
        raise ValueError(f"text_column and label_column are both {text_column!r}; expected two columns")
    records = read_records(path, quoting)
    labels = column_of(records, label_column, "label_column")
    return Table(column_of(records, text_column, "text_column"), [label.strip() for label in labels])


def label_names(labels):
    """The distinct labels, sorted: entry k is the name of class k. ValueError if there are fewer than two."""
    names = sorted(set(labels))
    if len(names) < 2:
        raise ValueError(f"labels: got {len(names)} class(es), {listed(names)}, expected at least two to tell apart")
    return names


def encode_labels(labels, names):
    """Class numbers, (N,) int64: the index of each label in `names`.

    Raises
    ------
    ValueError
        If a label is not in `names`, such as a class that occurs in the test part alone.
    """
    number = {name: k for k, name in enumerate(names)}
    unknown = Counter(label for label in labels if label not in number)
    if unknown:
        known = f"expected the classes known from training: {listed(names)}"
        raise ValueError(f"labels: got {listed(sorted(unknown))} in {unknown.total()} of {len(labels)} rows, {known}")
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
