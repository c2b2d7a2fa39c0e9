"""Licence texts: a small corpus of legal English that is available wherever Python is installed.

Packages install their licences next to their metadata, and Python includes its own licence. The corpus depends on the
installed packages, so runs that train on it record its `corpus_digest`.
"""

import hashlib
import importlib.metadata
import re
import sysconfig
from pathlib import Path

from .reviews import Splits, text_digest

FILE_NAME = re.compile(r"(licen[cs]e|copying|notice|gpl|lgpl|apache|mpl)", re.IGNORECASE)
SUFFIXES = ("", ".txt", ".md", ".rst")
LEAST_WORDS = 12  # shorter paragraphs are headings, copyright lines or addresses
SHINGLE = 6  # words; a paragraph is a duplicate if most of its 6-word shingles occur earlier
SALT = b"lora_np/licences/1:"


def load_licences():
    """Load the paragraphs of all installed licence texts, deduplicated and split into fixed sets.

    Licences quote one another, so a paragraph is dropped if more than half of its 6-word shingles occur in earlier
    paragraphs. Each paragraph's digest determines its set: about 10 % of the paragraphs are in the validation set, 20 %
    in the test set, and the rest in the training set.

    Returns
    -------
    Splits of lists of str, sorted by digest; near-duplicates are removed across all sets

    Raises
    ------
    FileNotFoundError
        If no licence texts are installed. (Those of Python and pip usually are.)
    """
    splits = Splits([], [], [])
    for digest, paragraph in sorted(distinct_paragraphs(licence_files()).items()):
        tenth = digest[0] * 10 // 256
        part = splits.validation if tenth == 0 else splits.test if tenth <= 2 else splits.train
        part.append(paragraph)
    if not all(splits):
        raise FileNotFoundError("found no licence texts on this machine; expected at least Python's own")
    return splits


def corpus_digest(splits):
    """Return the SHA-256 digest of all paragraphs, in order."""
    return hashlib.sha256("\n\n".join(text for texts in splits for text in texts).encode("utf-8")).hexdigest()


def licence_files():
    """Return the paths of Python's licence file and, sorted by package, of all packages' licence files."""
    paths = [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"]
    packages = {str(package.metadata["Name"]).lower(): package for package in importlib.metadata.distributions()}
    for _, package in sorted(packages.items()):
        for file in sorted(package.files or (), key=str):
            if FILE_NAME.match(file.name) and file.suffix.lower() in SUFFIXES:
                paths.append(Path(package.locate_file(file)))
    return [path for path in paths if path.is_file()]


def distinct_paragraphs(paths):
    """Return a dict, digest -> paragraph, without near-duplicates."""
    seen, distinct = set(), {}
    for path in paths:
        for paragraph in paragraphs(path.read_bytes().decode("utf-8", errors="replace")):
            words = re.findall(r"[a-z]+", paragraph.lower())
            if len(words) < LEAST_WORDS or "\ufffd" in paragraph:
                continue
            shingles = {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
            if 2 * len(shingles & seen) > len(shingles):
                continue
            seen |= shingles
            distinct[text_digest(paragraph, SALT)] = paragraph
    return distinct


def paragraphs(text):
    """Split a text at empty lines, and yield each paragraph as one line without comment markers or box borders."""
    lines = [re.sub(r"^[\s#*/>|;=-]+|[\s#*/|=-]+$", "", line) for line in text.splitlines()]
    for block in re.split(r"\n\n+", "\n".join(lines)):
        if block:
            yield " ".join(block.split())
