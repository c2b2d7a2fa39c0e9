"""Licence texts: a small corpus of legal English that every machine with Python has.

Packages install their licences beside their metadata, and Python has its own. The corpus depends on the installed
packages, so runs that train on it note its `corpus_digest`.
"""

import hashlib
import importlib.metadata
import re
import sysconfig
from pathlib import Path

from .reviews import Splits, text_digest

FILE_NAME = re.compile(r"(licen[cs]e|copying|notice|gpl|lgpl|apache|mpl)", re.IGNORECASE)
SUFFIXES = ("", ".txt", ".md", ".rst")
LEAST_WORDS = 12  # a shorter paragraph is a heading, a copyright line, an address
SHINGLE = 6  # words; a paragraph is a repeat if most of its runs of so many words were seen before
SALT = b"lora_np/licences/1:"


def load_licences():
    """The paragraphs of all installed licence texts, each once, in fixed parts.

    Licences quote one another, so a paragraph is left out if more than half of its runs of six words occur in earlier
    ones. A digest of the paragraph chooses its part: a tenth goes to validation, two tenths to test. So a paragraph is
    in the same part on every machine that has it.

    Returns
    -------
    Splits of lists of str, in the order of the digests; the parts do not share most of a paragraph either

    Raises
    ------
    FileNotFoundError
        If there are none; Python's own licence and pip's are usually there.
    """
    splits = Splits([], [], [])
    for digest, paragraph in sorted(distinct_paragraphs(licence_files()).items()):
        tenth = digest[0] * 10 // 256
        paragraphs_of_part = splits.validation if tenth == 0 else splits.test if tenth <= 2 else splits.train
        paragraphs_of_part.append(paragraph)
    if not all(splits):
        raise FileNotFoundError("found no licence texts beside the installed packages; expected at least Python's own")
    return splits


def corpus_digest(splits):
    """SHA-256 of all paragraphs, in order: equal only for equal corpora."""
    return hashlib.sha256("\n\n".join(text for texts in splits for text in texts).encode("utf-8")).hexdigest()


def licence_files():
    """Every licence file of the installed packages, in order of the packages' names; Python's own first."""
    paths = [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"]
    packages = {str(package.metadata["Name"]).lower(): package for package in importlib.metadata.distributions()}
    for _, package in sorted(packages.items()):
        for file in sorted(package.files or (), key=str):
            if FILE_NAME.match(file.name) and file.suffix.lower() in SUFFIXES:
                paths.append(Path(package.locate_file(file)))
    return [path for path in paths if path.is_file()]


def distinct_paragraphs(paths):
    """Digest -> paragraph, without repeats."""
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
    """Yield the paragraphs between empty lines, each on one line and without comment marks and frames."""
    lines = [re.sub(r"^[\s#*/>|;=-]+|[\s#*/|=-]+$", "", line) for line in text.splitlines()]
    for block in re.split(r"\n\n+", "\n".join(lines)):
        if block:
            yield " ".join(block.split())
