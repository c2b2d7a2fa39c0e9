"""The reference vectors in a folder: their manifest, every field of which is checked, and one case's arrays."""

import hashlib
import math
from pathlib import Path

import numpy as np

from ..formats import read_json, read_tensors
from .cases import DTYPES, TIERS
from .tolerances import RTOL

FORMAT, FORMAT_VERSION = "lora_np reference vectors", 1
MANIFEST, SCHEMA = "manifest.json", "manifest.schema.json"
VECTORS = Path(__file__).parent / "vectors"
OF_A_CASE = {"id": str, "kind": str, "description": str, "catches": str, "flags": list, "settings": dict}
OF_A_CASE |= {"files": dict, "tensors": list}


def load_manifest(vectors=None):
    """The manifest's entries by case id, and the folder that they are in.

    Parameters
    ----------
    vectors : folder, or None for the vectors of this clone

    Raises
    ------
    ValueError
        If there is no manifest, or something in it is missing or wrong.
    """
    folder = VECTORS if vectors is None else Path(vectors)
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"vectors: {folder} has no {MANIFEST}; a clone has the vectors in lora_np/reference/vectors, and "
            "`python -m lora_np reference export DIR` makes new ones"
        )
    try:
        return checked_entries(read_json(path)), folder
    except ValueError as error:
        raise ValueError(f"vectors: {path}: {error}") from None


def checked_entries(manifest):
    """The entries by id; ValueError for the first thing wrong among what the checker reads."""
    expect(isinstance(manifest, dict), "the file", "an object")
    for name, value in (("format", FORMAT), ("format_version", FORMAT_VERSION), ("rtol", RTOL)):
        got = manifest.get(name)
        expect(got == value and not isinstance(got, bool), f"{name} is {got!r}", repr(value))
    cases, entries = manifest.get("cases"), {}
    expect(isinstance(cases, list) and cases, "cases", "a list of at least one case")
    for number, entry in enumerate(cases):
        expect(isinstance(entry, dict), f"cases[{number}]", "an object")
        for name, kind in OF_A_CASE.items():
            expect(isinstance(entry.get(name), kind), f"cases[{number}]: {name}", f"a {kind.__name__}")
        about, tensors = f"case {entry['id']}", entry["tensors"]
        expect(entry["id"] not in entries, about, "an id that no other case has")
        expect(entry.get("tier") in TIERS, f"{about}: tier", "1, 2 or 3")
        has_files = all(isinstance(entry["files"].get(dtype), str) for dtype in DTYPES)
        expect(has_files, f"{about}: files", "the name of a file for each precision")
        for record in tensors:
            check_record(about, record)
        expect(any(record["stage"] != "input" for record in tensors), f"{about}: tensors", "at least one output")
        entries[entry["id"]] = entry
    return entries


def check_record(about, record):
    """ValueError unless a tensor's record has all that the checker reads."""
    for name in ("name", "stage"):
        expect(isinstance(record, dict) and isinstance(record.get(name), str), f"{about}: a tensor's {name}", "a str")
    for dtype in DTYPES:
        here, stored = f"{about}: {record['name']}: {dtype}", record.get(dtype)
        expect(isinstance(stored, dict) and isinstance(stored.get("sha256"), str), here, "sha256, a str")
        for name in ("rms", *["atol"] * (record["stage"] != "input")):
            value = stored.get(name)
            is_size = type(value) in (int, float) and math.isfinite(value) and value >= 0
            expect(is_size, f"{here}: {name}", "a finite number of at least 0")


def expect(holds, what, expected):
    if not holds:
        raise ValueError(f"{what}: expected {expected}")


def load_case(entry, dtype, folder):
    """The arrays of one case, inputs and outputs, in the manifest's order.

    Raises
    ------
    ValueError
        If its file is missing or damaged, or its bytes are not those in the manifest.
    """
    path = folder / entry["files"][dtype]
    try:
        tensors, _ = read_tensors(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"vectors: {error}") from None
    for record in entry["tensors"]:
        name, stored = record["name"], record[dtype]
        same_shape = name in tensors and list(tensors[name].shape) == stored.get("shape")
        if not same_shape or sha256(tensors[name]) != stored["sha256"]:
            raise ValueError(f"vectors: {path}: {name} is not what the manifest says; export the vectors again")
    return {record["name"]: tensors[record["name"]] for record in entry["tensors"]}


def sha256(array):
    """The hash of a tensor's bytes as they are in the file: row-major, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()
