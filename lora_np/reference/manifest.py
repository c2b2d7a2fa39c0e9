"""Write the reference vectors and their manifest to a folder, or read and check them.

Each case has a safetensors file for each precision.
"""

import hashlib
import json
import platform
import subprocess
from functools import partial
from pathlib import Path

import numpy as np

from .. import __version__
from ..checked import errors_of, finite_number, instance_of, quoted, whole_number
from ..formats import check_folder, read_json, read_tensors, write_json, write_tensors, write_text
from .cases import DTYPES, TIERS, reference_cases, stage
from .tolerances import RTOL, rms, tolerances

FORMAT, FORMAT_VERSION = "lora_np reference vectors", 1
MANIFEST, SCHEMA = "manifest.json", "manifest.schema.json"
VECTORS = Path(__file__).parent / "vectors"
JSON_NUMBERS = 120  # a case with at most this many numbers is also written as JSON
FIELDS = {"id": str, "kind": str, "description": str, "catches": str, "flags": list, "settings": dict}
FIELDS |= {"files": dict, "tensors": list}


# ---------------------------------------------------------------- writing


def export(folder, report=None):
    """Compute and write all cases.

    Parameters
    ----------
    folder : path, created if it does not exist; a folder with files must be an earlier export, which is overwritten
    report : function to call with each case's id, or None

    Returns
    -------
    dict, the manifest

    Raises
    ------
    ValueError
        If the folder contains files but is not an earlier export.
    """
    folder = Path(folder)
    check_folder(folder, "DIR")
    if folder.is_dir() and not (folder / SCHEMA).is_file() and any(folder.iterdir()):  # these may be a port's outputs
        raise ValueError(f"DIR: {folder} contains files but no export; expected a new folder or an earlier export")
    write_text(folder / SCHEMA, (Path(__file__).parent / SCHEMA).read_text("utf-8"))  # first, to mark the folder
    (folder / MANIFEST).unlink(missing_ok=True)  # written last, so an export without it is incomplete
    entries = []
    for case in reference_cases().values():
        entries.append(export_case(folder, case))
        if report is not None:
            report(case.id)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generator": {
            "lora_np": __version__,
            "commit": commit(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "blas": f"{blas['name']} {blas['version']}",
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "tolerance": "|got - expected| <= atol + rtol * |expected|, entry by entry; see SPEC.md",
        "rtol": RTOL,
        "cases": entries,
    }
    write_text(folder / MANIFEST, manifest_text(manifest))
    return manifest


def export_case(folder, case):
    """Write one case's files; return its entry in the manifest."""
    outputs = {dtype: case.outputs_in(dtype) for dtype in DTYPES}
    tensors = {dtype: {**case.inputs_in(dtype), **outputs[dtype]} for dtype in DTYPES}
    allowed, files, records = tolerances(case, outputs), {}, []
    for dtype in DTYPES:
        files[dtype] = f"{case.id}.{dtype}.safetensors"
        metadata = {"lora_np": json.dumps(about(case, dtype), separators=(",", ":"))}
        write_tensors(folder / files[dtype], tensors[dtype], metadata)
    if sum(array.size for array in tensors["float64"].values()) <= JSON_NUMBERS:
        files["json"] = f"{case.id}.float64.json"
        write_json(folder / files["json"], as_json(case, tensors["float64"]))
    for order, name in enumerate(tensors["float64"]):
        record = {"name": name, "stage": stage(name, case.inputs), "order": order}
        for dtype in DTYPES:
            array = tensors[dtype][name]
            stored = f"{array.dtype.kind.upper()}{8 * array.itemsize}"  # such as F64
            record[dtype] = {"file": files[dtype], "dtype": stored, "shape": list(array.shape)}
            record[dtype] |= {"sha256": sha256(array), "rms": float(f"{rms(array):.4g}")}
            record[dtype] |= {"atol": allowed[name][dtype]} if name in allowed else {}
        records.append(record)
    entry = {name: getattr(case, name) for name in ("id", "tier", "kind", "description", "catches")}
    return entry | {"flags": list(case.flags), "settings": case.settings, "files": files, "tensors": records}


def about(case, dtype):
    """The metadata of a case's file: all that a port needs to know about the case."""
    names = {"case": case.id, "tier": case.tier, "kind": case.kind, "dtype": dtype}
    return {**names, "settings": case.settings, "inputs": list(case.inputs)}


def as_json(case, tensors):
    """Convert a case to a dict for JSON; infinities and NaN, which JSON lacks, become strings."""
    entries = {}
    for name, array in tensors.items():
        values = [value if np.isfinite(value) else str(value) for value in array.ravel().tolist()]
        entries[name] = {"shape": list(array.shape), "values": values}
    return {**about(case, "float64"), "tensors": entries}


def manifest_text(manifest):
    """Format the manifest as compact JSON with one line per tensor, so that it is readable and easy to diff."""
    line, cases = partial(json.dumps, ensure_ascii=False), []
    for entry in manifest["cases"]:
        tensors = ",\n".join(map(line, entry["tensors"]))
        cases.append(line(entry | {"tensors": []}).replace('"tensors": []', f'"tensors": [\n{tensors}]'))
    text = line(manifest | {"cases": []}, indent=2)
    return text.replace('"cases": []\n}', '"cases": [\n' + ",\n".join(cases) + "\n]}\n")


def commit():
    """The last commit that changed the package's code, with a note about uncommitted changes; None outside a clone."""
    package = Path(__file__).parent.parent
    try:
        run = [["git", *words, "--", ":(glob)**/*.py"] for words in (("log", "-1", "--format=%H"), ("status", "-s"))]
        last, changed = (subprocess.check_output(c, cwd=package, text=True, stderr=subprocess.DEVNULL) for c in run)
    except (OSError, subprocess.CalledProcessError):
        return None
    return (last.strip() + " and changes" * bool(changed.strip())) or None


def sha256(array):
    """The hash of a tensor's bytes in the file's layout, row-major and little-endian."""
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


# ---------------------------------------------------------------- reading


def load_manifest(vectors=None):
    """Read and check a manifest.

    Parameters
    ----------
    vectors : folder, or None for the vectors of this clone

    Returns
    -------
    entries : dict, case id -> dict
    folder : Path

    Raises
    ------
    ValueError
        If there is no manifest, or one of its fields is missing or invalid.
    """
    folder = VECTORS if vectors is None else Path(vectors)
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"vectors: {folder} has no {MANIFEST}; use lora_np/reference/vectors from a clone, or write new vectors "
            "with `python -m lora_np reference export DIR`"
        )
    with errors_of(f"vectors: {path}"):
        return checked_entries(read_json(path)), folder


def checked_entries(manifest):
    """Return a dict, id -> entry; raise ValueError at the first invalid field among those that the checker reads."""
    instance_of("the file", manifest, dict, "an object")
    for name, value in (("format", FORMAT), ("format_version", FORMAT_VERSION), ("rtol", RTOL)):
        got = manifest.get(name)
        if got != value or isinstance(got, bool):
            raise ValueError(f"{name}: got {quoted(got)}, expected {value!r}")
    cases, entries = instance_of("cases", manifest.get("cases") or None, list, "a list of at least one case"), {}
    for number, entry in enumerate(cases):
        instance_of(f"cases[{number}]", entry, dict, "an object")
        for name, kind in FIELDS.items():
            instance_of(f"cases[{number}]: {name}", entry.get(name), kind, f"a {kind.__name__}")
        case = f"case {entry['id']}"
        if entry["id"] in entries:
            raise ValueError(f"{case}: expected a unique id")
        whole_number(f"{case}: tier", entry.get("tier"), 1, len(TIERS))
        for dtype in DTYPES:
            instance_of(f"{case}: files: {dtype}", entry["files"].get(dtype), str, "the name of a file")
        for record in entry["tensors"]:
            check_record(case, record)
        if all(record["stage"] == "input" for record in entry["tensors"]):
            raise ValueError(f"{case}: tensors: expected at least one output")
        entries[entry["id"]] = entry
    return entries


def check_record(case, record):
    """Raise ValueError unless a tensor's record has all fields that the checker reads."""
    instance_of(f"{case}: a tensor", record, dict, "an object")
    for name in ("name", "stage"):
        instance_of(f"{case}: a tensor's {name}", record.get(name), str, "a str")
    for dtype in DTYPES:
        here = f"{case}: {record['name']}: {dtype}"
        stored = instance_of(here, record.get(dtype), dict, "an object")
        instance_of(f"{here}: sha256", stored.get("sha256"), str, "a str")
        for name in ("rms", *["atol"] * (record["stage"] != "input")):
            finite_number(f"{here}: {name}", stored.get(name), least=0)


def load_case(entry, dtype, folder):
    """Read the arrays of one case (inputs and outputs) in the manifest's order.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or differs from the manifest.
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
            raise ValueError(f"vectors: {path}: {name} does not match the manifest; export the vectors again")
    return {record["name"]: tensors[record["name"]] for record in entry["tensors"]}
