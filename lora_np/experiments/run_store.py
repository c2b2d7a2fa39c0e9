"""Training runs that have been carried out, each kept under all that its result depends on.

An entry is `SETTINGS-CODE.json`, and `SETTINGS-CODE.safetensors` where the run keeps arrays. SETTINGS is a digest of
the run's settings. CODE is one of the versions, of the base's files, and of the source that a run goes through,
without its comments and docstrings: to mend a figure or a sentence costs no training. Not in the key is the kind of
processor, on which the last digits depend; see `sweep.py`.
"""

import ast
import hashlib
import json
import platform
from contextlib import closing
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import __version__
from ..formats import read_json, read_tensors, write_json, write_tensors
from .finished import PACKAGE, base_digest
from .runs import carry_out
from .sweep import sweep

# What a run goes through. Of `formats` it only reads the base, whose bytes are in the key.
SOURCE = ("ops", "compress", "data", "adapters", "model", "training", "experiments/runs")


@lru_cache(maxsize=1)
def made_with():
    """What all runs of this code depend on."""
    files = sorted(path for folder in SOURCE for path in (PACKAGE / folder).glob("*.py"))
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(PACKAGE)}\n{code_alone(path.read_text(encoding='utf-8'))}\n".encode())
    return {
        "lora_np": __version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),  # which writes the same source in other ways
        "base": base_digest(),
        "code": whole.hexdigest(),
    }


def code_alone(source):
    """A module's source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                value.value = ""
    return ast.unparse(tree)


def settings_of(run):
    """A run's settings as plain values, with the name of its kind.

    Without `keep`: whether the arrays are kept changes no number.
    """
    settings = {"kind": type(run).__name__, **asdict(run)}
    settings.pop("keep", None)
    return settings


def run_key(run):
    """A run's settings as one text: equal for equal runs."""
    return json.dumps(settings_of(run), sort_keys=True)


def entry_path(store, run):
    """Where a run of this code is kept."""
    code = json.dumps(made_with(), sort_keys=True)
    return Path(store) / f"{short_digest(run_key(run))}-{short_digest(code)}.json"


def short_digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def keep(store, run, numbers, arrays):
    """Write a run's result; the arrays first, so that an entry that is there is whole."""
    path = entry_path(store, run)
    if arrays:
        write_tensors(path.with_suffix(".safetensors"), arrays)
    entry = {"run": settings_of(run), "made_with": made_with(), "numbers": numbers, "arrays": sorted(arrays)}
    write_json(path, entry)


def kept_numbers(store, run):
    """The numbers of a run that was carried out with this code, or None.

    An entry that is damaged, or lacks the arrays that are asked for, counts as none: the run is carried out again.
    """
    path = entry_path(store, run)
    try:
        entry = read_json(path)
        if getattr(run, "keep", False) and not entry["arrays"] and "diverged" not in entry["numbers"]:
            return None
        if entry["arrays"] and sorted(kept_arrays(store, run)) != entry["arrays"]:
            return None
        return entry["numbers"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def kept_arrays(store, run):
    """The arrays of a run that is kept."""
    return read_tensors(entry_path(store, run).with_suffix(".safetensors"))[0]


def of_other_code(store, runs):
    """How many of the runs are kept from other code or versions only, which is never mixed with this."""
    return sum(
        not entry_path(store, run).exists() and any(Path(store).glob(f"{short_digest(run_key(run))}-*.json"))
        for run in runs
    )


def carry_out_here(run):
    """A run's result, and the versions of the worker that carried it out, which need not be those of its driver."""
    return made_with(), *carry_out(run)


def carry_out_all(runs, store, executor, report):
    """The runs that are not kept are carried out, and kept as they end.

    Returns
    -------
    numbers : dict, `run_key` -> the run's numbers
    failed : list of dicts, the settings of those that failed, with "error"
    reused : int, how many were kept
    """
    numbers = {run_key(run): kept_numbers(store, run) for run in runs}
    missing = [run for run in runs if numbers[run_key(run)] is None]
    reused, failed, done = len(runs) - len(missing), [], 0
    others = of_other_code(store, missing)
    if others:
        report(f"  {others} runs in {store} are of another version of the code or of NumPy: left there, and not used")
    if not missing:
        return numbers, failed, reused
    with closing(sweep(carry_out_here, missing, executor)) as endings:
        for run, result, error, _ in endings:
            done += 1
            if error is None and result[0] != made_with():
                error = f"its worker has another version: {result[0]}"
            if error is None:
                _, numbers[run_key(run)], arrays = result
                keep(store, run, numbers[run_key(run)], arrays)
                said = f"{numbers[run_key(run)]['seconds']:.0f} s"
            else:
                failed.append(asdict(run) | {"error": error})
                said = f"FAILED: {error}"
            report(f"  [{done:>3}/{len(missing)}] {said:<8} {describe_run(run)}")
    return numbers, failed, reused


def describe_run(run):
    """A run's settings in a short line: those that are not the defaults; of a long value its beginning."""
    fields = {name: value for name, value in vars(run).items() if value != getattr(type(run), name, None)}
    adapter = fields.pop("adapter", None)
    if adapter is None and hasattr(run, "adapter"):
        fields = {"full fine-tuning": "of all"} | fields
    if adapter is not None:
        fields = {"kind": adapter.kind, "r": adapter.r, "targets": ",".join(adapter.targets) or "head"} | fields
    return ", ".join(f"{name} {value!s:.32}" for name, value in fields.items() if name != "keep")
