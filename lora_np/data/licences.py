"""Licence texts: a small corpus of legal English that is on any machine with Python.

Packages install their licences beside their metadata, and Python has its own. What is there depends on what is
installed, so whoever trains on these texts notes `corpus_digest` with the result.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .reviews import text_digest

FILE_NAME = re.compile(r"(licen[cs]e|copying|notice|gpl|lgpl|apache|mpl)", re.IGNORECASE)
SUFFIXES = ("", ".txt", ".md", ".rst")
LEAST_WORDS = 12  # a paragraph of fewer is a heading, a copyright line, an address
SHINGLE = 6  # words; a paragraph most of whose runs of so many words were seen before is a repeat
SALT = b"lora_np/licences/1:"


class LicenceSplits(NamedTuple):
    """Three parts that share no paragraph, nor most of one."""

    train: list[str]
    validation: list[str]
    test: list[str]


def load_licences() -> LicenceSplits:
    """The paragraphs of all licence texts that are installed, each once, in fixed parts.

    Licences quote one another, so a paragraph is left out if more than half of its runs of six words stand
    in earlier ones. A digest of the paragraph says which part it goes to: a tenth to validation, two tenths
    to test. A paragraph is therefore in the same part on every machine that has it.

    Returns
    -------
    LicenceSplits, in the order of the digests

    Raises
    ------
    FileNotFoundError
        If there are none; Python's own licence and that of pip are usually there.
    """
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for digest, paragraph in sorted(distinct_paragraphs(licence_files()).items()):
        tenth = digest[0] * 10 // 256
        part = "validation" if tenth == 0 else "test" if tenth <= 2 else "train"
        parts[part].append(paragraph)
    if not all(parts.values()):
        raise FileNotFoundError("found no licence texts beside the installed packages; expected at least Python's own")
    return LicenceSplits(**parts)


def corpus_digest(splits: LicenceSplits) -> str:
    """SHA-256 of all paragraphs, in order: equal just where the corpus is."""
    return hashlib.sha256("\n\n".join(text for part in splits for text in part).encode("utf-8")).hexdigest()


def licence_files() -> list[Path]:
    """Every licence file of the installed packages, by name and version of the package; Python's own first."""
    found = [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"]
    packages = {str(package.metadata["Name"]).lower(): package for package in importlib.metadata.distributions()}
    for _, package in sorted(packages.items()):
        for file in sorted(package.files or (), key=str):
            if FILE_NAME.match(file.name) and file.suffix.lower() in SUFFIXES:
                found.append(Path(package.locate_file(file)))
    return [path for path in found if path.is_file()]


def distinct_paragraphs(paths: list[Path]) -> dict[bytes, str]:
    """Digest -> paragraph, without repeats."""
    seen, kept = set(), {}
    for path in paths:
        for paragraph in paragraphs(path.read_bytes().decode("utf-8", errors="replace")):
            words = re.findall(r"[a-z]+", paragraph.lower())
            if len(words) < LEAST_WORDS or "\ufffd" in paragraph:
                continue
            shingles = {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
            if 2 * len(shingles & seen) > len(shingles):
                continue
            seen |= shingles
            kept[text_digest(paragraph, SALT)] = paragraph
    return kept


def paragraphs(text: str) -> Iterator[str]:
    """What stands between empty lines, comment marks and frames taken off, on one line."""
    lines = [re.sub(r"^[\s#*/>|;=-]+|[\s#*/|=-]+$", "", line) for line in text.splitlines()]
    for block in re.split(r"\n\n+", "\n".join(lines)):
        if block:
            yield " ".join(block.split())
