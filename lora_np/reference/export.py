"""Writing the reference vectors: a safetensors file for each case and precision, and a manifest of their contents."""

import json
import platform
import subprocess
from pathlib import Path

import numpy as np

from .. import __version__
from ..formats import check_folder, write_json, write_tensors, write_text
from .cases import DTYPES, reference_cases, stage
from .manifest import FORMAT, FORMAT_VERSION, MANIFEST, SCHEMA, sha256
from .tolerances import RTOL, rms, tolerances

JSON_NUMBERS = 120  # a case of at most so many numbers is written as JSON too


def export(folder, report=None):
    """Compute every case and write it.

    Parameters
    ----------
    folder : created if it does not exist; files of an earlier export are overwritten
    report : function of a line of text, called after each case, or None

    Returns
    -------
    dict, the manifest
    """
    folder = Path(folder)
    check_folder(folder, "DIR")
    (folder / MANIFEST).unlink(missing_ok=True)  # written last: a folder without it is incomplete
    cases = reference_cases()
    entries = []
    for case in cases.values():
        entries.append(export_case(folder, case))
        if report is not None:
            report(case.id)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generator": generator(),
        "tolerance": "|got - expected| <= atol + rtol * |expected|, entry by entry; see SPEC.md",
        "rtol": RTOL,
        "cases": entries,
    }
    write_text(folder / SCHEMA, (Path(__file__).parent / SCHEMA).read_text("utf-8"))
    write_text(folder / MANIFEST, manifest_text(manifest))
    return manifest


def export_case(folder, case):
    """Write one case's files; return its entry in the manifest."""
    outputs = {dtype: case.outputs_in(dtype) for dtype in DTYPES}
    tensors = {dtype: {**case.inputs_in(dtype), **outputs[dtype]} for dtype in DTYPES}
    allowed, files = tolerances(case, outputs), {}
    for dtype in DTYPES:
        files[dtype] = f"{case.id}.{dtype}.safetensors"
        metadata = {"lora_np": json.dumps(about(case, dtype), separators=(",", ":"))}
        write_tensors(folder / files[dtype], tensors[dtype], metadata)
    if sum(array.size for array in tensors["float64"].values()) <= JSON_NUMBERS:
        files["json"] = f"{case.id}.float64.json"
        write_json(folder / files["json"], as_json(case, tensors["float64"]))
    entry = {name: getattr(case, name) for name in ("id", "tier", "kind", "description", "catches")}
    entry |= {"flags": list(case.flags), "settings": case.settings, "files": files, "tensors": []}
    for order, name in enumerate(tensors["float64"]):
        record = {"name": name, "stage": stage(name, case.inputs), "order": order}
        for dtype in DTYPES:
            array = tensors[dtype][name]
            stored = f"{array.dtype.kind.upper()}{8 * array.itemsize}"  # such as F64
            record[dtype] = {"file": files[dtype], "dtype": stored, "shape": list(array.shape)}
            record[dtype] |= {"sha256": sha256(array), "rms": float(f"{rms(array):.4g}")}
            record[dtype] |= {"atol": allowed[name][dtype]} if name in allowed else {}
        entry["tensors"].append(record)
    return entry


def about(case, dtype):
    """What a port needs to know about a case, for its file's metadata: a port needs no other file."""
    names = {"case": case.id, "tier": case.tier, "kind": case.kind, "dtype": dtype}
    return {**names, "settings": case.settings, "inputs": list(case.inputs)}


def as_json(case, tensors):
    """A case as JSON, its numbers with all digits; JSON has no infinities and NaN, so these are texts."""

    entries = {}
    for name, array in tensors.items():
        values = [value if np.isfinite(value) else str(value) for value in array.ravel().tolist()]
        entries[name] = {"shape": list(array.shape), "values": values}
    return {**about(case, "float64"), "tensors": entries}


def manifest_text(manifest):
    """JSON with a line for each tensor: readable, easy to compare with diff, and small."""

    def line(value):
        return json.dumps(value, ensure_ascii=False)

    cases = []
    for entry in manifest["cases"]:
        head = line({name: value for name, value in entry.items() if name != "tensors"})[:-1]
        cases.append(head + ', "tensors": [\n' + ",\n".join(map(line, entry["tensors"])) + "]}")
    head = json.dumps({k: v for k, v in manifest.items() if k != "cases"}, indent=2, ensure_ascii=False)[:-2]
    return head + ',\n  "cases": [\n' + ",\n".join(cases) + "\n]}\n"


def generator():
    """What the vectors were made with."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "lora_np": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "platform": f"{platform.system()} {platform.machine()}",
    }


def commit():
    """The last commit that changed the package's code, marked if it has changed since; None outside a clone."""
    package = Path(__file__).parent.parent
    try:
        run = [["git", *words, "--", ":(glob)**/*.py"] for words in (("log", "-1", "--format=%H"), ("status", "-s"))]
        last, changed = (subprocess.check_output(c, cwd=package, text=True, stderr=subprocess.DEVNULL) for c in run)
    except (OSError, subprocess.CalledProcessError):
        return None
    return (last.strip() + " and changes" * bool(changed.strip())) or None
