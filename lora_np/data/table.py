"""Read a user's own labelled texts from two columns of a file, and split them into parts."""

import re
import unicodedata
import warnings
from collections import Counter

import numpy as np

from .records import QUOTING_HINT, column_of, listed, read_records
from .reviews import Splits, Table, text_digest

NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?")


def read_table(path, text_column, label_column, quoting=False):
    """Read the texts and labels of a file.

    Parameters
    ----------
    path, quoting : see `read_records`
    text_column, label_column : str, the names of two columns or keys

    Returns
    -------
    Table
        Labels are str, stripped of white space. JSON numbers and booleans become JSON text, such as ``"true"``.

    Raises
    ------
    OSError, ValueError
        See `read_records`; also if a column is missing or a text or label is empty. The message names the row and line.
    """
    if text_column == label_column:
        raise ValueError(f"text_column and label_column are both {text_column!r}; expected two different columns")
    records = read_records(path, quoting)
    labels = [label.strip() for label in column_of(records, label_column, "label_column")]
    texts = column_of(records, text_column, "text_column")
    n_texts, counts = len(set(texts)), Counter(labels)
    if len(counts) > max(10, len(labels) / 2) and n_texts <= len(counts) / 2:
        found = f"{text_column!r} has {n_texts} different texts, and {label_column!r} {len(counts)} different labels"
        raise ValueError(f"text_column, label_column: {found}; swap the two columns")
    return Table(texts, labels)


def label_names(labels):
    """Return the distinct labels, sorted: entry k names class k.

    Raises ValueError if there are fewer than two; warns if labels differ only in ways that are easily overlooked.
    """
    names, alike = sorted(set(labels)), {}
    if len(names) < 2:
        raise ValueError(f"labels: got {len(names)} class(es), {listed(names)}, expected at least two classes")
    if len(names) > max(10, len(labels) / 4) and all(NUMBER.fullmatch(name) for name in names):
        found = f"labels: got {len(names)} different numbers in {len(labels)} rows"
        warnings.warn(f"{found}; is this a rating? finetune predicts classes, not numbers", stacklevel=2)
    for name in names:
        alike.setdefault(looks(name), []).append(name)
    if alike := [name for same in alike.values() if len(same) > 1 for name in same]:
        hint = QUOTING_HINT if any('"' in name for name in alike) else ""
        shown = ", ".join(ascii(name) if not name.isascii() else repr(name) for name in alike[:10])
        warnings.warn(f"labels: {shown} look alike, but are different classes{hint}", stacklevel=2)
    return names


def looks(label):
    """Return a key that look-alike labels share: case-folded, in Unicode form NFKC, without spaces or quotes."""
    folded = unicodedata.normalize("NFKC", label.casefold())
    return "".join(c for c in folded if unicodedata.category(c) not in ("Cf", "Zs") and c not in "\"'")


def encode_labels(labels, names):
    """Return each label's class (its index in `names`) as an array (N,) of int64.

    Raises
    ------
    ValueError
        If a label is not in `names`, for example because its class occurs only in the test set.
    """
    index = {name: k for k, name in enumerate(names)}
    unknown = Counter(label for label in labels if label not in index)
    if unknown:
        known = f"expected the classes known from training: {listed(names)}"
        raise ValueError(f"labels: got {listed(sorted(unknown))} in {unknown.total()} of {len(labels)} rows, {known}")
    return np.array([index[label] for label in labels], dtype=np.int64)


def split_table(table, fractions, seed):
    """Split labelled texts into training, validation and test sets, stratified by class.

    The distinct texts are sorted by label, and within a label by a hash of `seed` and the text. In this order, each
    text is assigned to the part that is furthest below its target size. So every part is within one text of its target
    size, every class is spread evenly over the parts, and the same table and seed give the same parts on every machine.
    All rows with the same text are in one part, so no text is in both the training and the test set. The training set
    contains each class's first text, so it lacks a class only if all texts of the class have another label in an
    earlier row.

    Parameters
    ----------
    table : Table
    fractions : (float, float, float), of train, validation and test; non-negative, the first positive, with sum 1
    seed : int

    Returns
    -------
    Splits of Table; within each part, the rows keep the table's order

    Raises
    ------
    ValueError
        If the table is empty, the fractions are invalid, or there are too few texts for a part whose fraction is not 0.
    """
    if len(table.labels) != len(table.texts) or not table.texts:
        found = f"got {len(table.texts)} texts and {len(table.labels)} labels"
        raise ValueError(f"table: {found}, expected at least one text, and a label for each text")
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        expected = "expected three numbers for train, validation and test, ≥ 0, the first > 0, with sum 1"
        raise ValueError(f"fractions: got {fractions}, {expected}")

    salt = f"lora_np/split/{seed}:".encode()
    digests = [text_digest(text, salt) for text in table.texts]
    label_of = dict(zip(digests[::-1], table.labels[::-1]))  # a text's class is that of its first row
    part_of, sizes, classes_in_train = {}, [0, 0, 0], set()
    for label, digest in sorted((label, digest) for digest, label in label_of.items()):
        deficits = [fraction * (len(part_of) + 1) - size for fraction, size in zip(fractions, sizes)]
        part = deficits.index(max(deficits)) if label in classes_in_train else 0
        classes_in_train.add(label)
        part_of[digest] = part
        sizes[part] += 1
    for name, fraction, size in zip(Splits._fields, fractions, sizes):
        if fraction > 0 and size == 0:
            found = f"got {len(part_of)} distinct texts of {len(classes_in_train)} classes"
            raise ValueError(f"table: {found}, too few for a {name} set of {100 * fraction:g} %; expected more rows")
    splits = Splits(*(Table([], []) for _ in fractions))
    for text, label, digest in zip(table.texts, table.labels, digests):
        splits[part_of[digest]].texts.append(text)
        splits[part_of[digest]].labels.append(label)
    return splits
