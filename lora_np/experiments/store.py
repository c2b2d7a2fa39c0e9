"""Store finished training runs on disk, each under a key derived from everything that affects the result.

An entry consists of `SETTINGS-CODE.json` and, for a run that keeps its arrays, `SETTINGS-CODE.safetensors`. SETTINGS is
a digest of the run's settings. CODE is a digest of the versions of lora_np, NumPy and Python, the small base's files,
and the code that runs use. CODE does not depend on comments, docstrings or the code that draws figures, so editing
these requires no retraining. The type of processor, which affects the last digits, is not part of the key; see
README.md.
"""

import ast
import hashlib
import json
import platform
import time
from contextlib import closing
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import __version__
from ..formats import PRETRAINED, read_json, read_tensors, write_json, write_tensors
from ..formats.tensors import read_names
from ..training.progress import duration
from ..training.sweep import sweep

PACKAGE = Path(__file__).parent.parent
STORE = "out/runs"
BASE_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
# The code that runs use in addition to their own module. `formats` is omitted, because it only reads the base, and the
# key includes a digest of the small base's files.
CODE = """checked ops compress adapters data model training tasks/label_words tasks/baseline
experiments/runs/__init__""".split()
MORE_CODE = {  # a run's own module -> what its runs use besides CODE
    "experiments/runs/rewards": ["experiments/runs/dialect"],
    "experiments/runs/preferences": ["experiments/runs/dialect", "experiments/runs/rewards", "tasks/preferences"],
}


class DivergedError(ValueError):
    """Raised on access to the result of a run that diverged: its loss became infinite or NaN."""


class Results:
    """The results of runs, indexed by run."""

    def __init__(self, store, numbers):
        self._store, self._numbers = store, numbers

    def __getitem__(self, run):
        """Return a run's numbers; raise DivergedError if the run diverged."""
        numbers = self._numbers[run_key(run)]
        if "diverged" in numbers:
            raise DivergedError(f"{describe_run(run)}: {numbers['diverged']}")
        return numbers

    def arrays(self, run):
        """Return the trained arrays of a run with keep=True; raise DivergedError if the run diverged."""
        self[run]
        return read_tensors(entry_path(self._store, run, ".safetensors"))[0]

    def file_bytes(self, run):
        """The size in bytes of the file with the trained arrays."""
        return entry_path(self._store, run, ".safetensors").stat().st_size

    def validation_loss(self, run):
        """The validation loss in nats; None if the run diverged."""
        return self._numbers[run_key(run)]["validation_loss"]

    def listed(self, runs):
        """A JSON-serialisable list of dicts with each run's settings and numbers; equal runs appear only once."""
        settings = {run_key(run): settings_of(run) for run in runs}
        return [{"settings": of_run, **self._numbers[key]} for key, of_run in settings.items()]


# ---------------------------------------------------------------- keys


@lru_cache(maxsize=32)
def made_with(*modules):
    """Describe everything, apart from the settings, that determines the results of the runs defined in these modules.

    Returns a JSON-serialisable dict: versions, digests of the base and the code, and the modules' names, as in
    `run.__module__`.
    """
    sources = {path: (PACKAGE / path).read_text(encoding="utf-8") for path in code_files(*modules)}
    code = "".join(f"{path}\n{code_alone(source)}\n" for path, source in sources.items())
    base = b"".join(hashlib.sha256((PRETRAINED / name).read_bytes()).digest() for name in BASE_FILES)
    return {
        "lora_np": __version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),  # `ast.unparse` depends on it
        "base": hashlib.sha256(base).hexdigest(),
        "code": hashlib.sha256(code.encode()).hexdigest(),
        "modules": sorted(modules),
    }


def code_files(*modules):
    """The paths of all code that runs in the given modules use, such as "lora_np.experiments.runs.classify"."""
    names = [module.partition(".")[2].replace(".", "/") for module in modules]
    names += [more for name in names for more in MORE_CODE.get(name, ())]
    places = [PACKAGE / name for name in (*CODE, *names)]
    files = (place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")] for place in places)
    return sorted({path.relative_to(PACKAGE).as_posix() for of_place in files for path in of_place})


def code_alone(source):
    """A module's source without comments, docstrings and `__all__`, in a uniform layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str()) as docstring), *_]:
                docstring.value = ""
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("__all__ ")]
    return ast.unparse(tree)


def settings_of(run):
    """A run's settings as a dict, with the name of its class and without `keep`, which does not affect the numbers."""
    return {"kind": type(run).__name__} | {name: value for name, value in asdict(run).items() if name != "keep"}


def run_key(run):
    """A run's settings as a string; equal runs have equal strings."""
    return json.dumps(settings_of(run), sort_keys=True)


# ---------------------------------------------------------------- entries


def entry_path(store, run, suffix=".json"):
    """The path of the file with a run's numbers, or with its arrays, for the current code."""
    code = json.dumps(made_with(run.__module__), sort_keys=True)
    return Path(store) / f"{short_digest(run_key(run))}-{short_digest(code)}{suffix}"


def short_digest(text):
    """The first twenty hexadecimal digits of a string's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def keep(store, run, numbers, arrays):
    """Write a run's arrays, then its numbers, so that an entry with numbers is always complete."""
    if arrays:
        write_tensors(entry_path(store, run, ".safetensors"), arrays)
    made = made_with(run.__module__)
    entry = {"run": settings_of(run), "made_with": made, "numbers": numbers, "arrays": sorted(arrays)}
    write_json(entry_path(store, run), entry)


def kept_numbers(store, run):
    """The numbers stored for a run with the current code, or None.

    The result is also None if the entry is damaged, or lacks the arrays of a run with keep=True. The run is then
    repeated.
    """
    try:
        entry = read_json(entry_path(store, run))
        numbers, names = entry["numbers"], entry["arrays"]
        wanted = getattr(run, "keep", False) and "diverged" not in numbers
        complete = not wanted or names and sorted(read_names(entry_path(store, run, ".safetensors"))[0]) == names
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # it is missing or damaged
        return None
    return numbers if complete else None


def of_other_code(store, runs):
    """Count runs that are stored only for other versions of the code, NumPy or Python; their results are never used."""
    keys = [short_digest(run_key(run)) for run in runs if not entry_path(store, run).exists()]
    stored = {path.name.partition("-")[0] for path in Path(store).glob("*.json")}
    return sum(key in stored for key in keys)


# ---------------------------------------------------------------- carrying out


def carry_out_here(run):
    """Carry out a run in this process; return its `made_with`, numbers and arrays.

    `made_with` may differ from that of the process that started the sweep. For a diverged run,
    "validation_loss" is None, and "diverged" is the error message.
    """
    started = time.perf_counter()
    try:
        numbers, arrays = run.carry_out()
    except FloatingPointError as error:
        numbers, arrays = {"validation_loss": None, "diverged": str(error)}, {}
    return made_with(run.__module__), numbers | {"seconds": time.perf_counter() - started}, arrays


def carry_out_all(runs, store=STORE, workers=None, report=print, names=None):
    """Carry out the runs that are not stored yet, and store each when it finishes.

    Parameters
    ----------
    runs : list; equal runs are carried out only once
    store : folder of finished runs
    workers : what carries out the runs, see `sweep.open_executor`; None: one process per core
    report : function that takes a line of text, called when a run finishes
    names : dict, `run_key` -> the run's name in these lines; other runs are described by their settings

    Returns
    -------
    results : Results
    failed : list of dicts, the settings of each failed run and its "error"
    reused : int, the number of runs that were already stored
    """
    runs = {run_key(run): run for run in runs}
    numbers = {key: kept_numbers(store, run) for key, run in runs.items()}
    missing, failed = [run for key, run in runs.items() if numbers[key] is None], []
    if others := of_other_code(store, missing):
        report(f"  {others} runs in {store} are from another version of the code or of NumPy; they are not used")
    started = time.perf_counter()
    with closing(sweep(carry_out_here, missing, workers)) as endings:
        for done, (run, result, error) in enumerate(endings, 1):
            if error is None and result[0] != made_with(run.__module__):
                error = f"the worker has a different version: {result[0]}"
            if error is None:
                _, numbers[run_key(run)], arrays = result
                keep(store, run, numbers[run_key(run)], arrays)
                outcome = describe_numbers(numbers[run_key(run)])
            else:
                failed.append(asdict(run) | {"error": error})
                outcome = f"FAILED: {error}"
            left = time_left(started, done, len(missing))
            name = (names or {}).get(run_key(run)) or describe_run(run)
            report(f"  [{done:>3}/{len(missing)}] {name}: {outcome}{left}")
    if failed:
        report(f"{len(failed)} of {len(runs)} runs failed; run the same command again to repeat only these runs")
    return Results(store, numbers), failed, len(runs) - len(missing)


def time_left(started, done, n):
    """Format the remaining time of n runs, estimated from the `done` finished runs; "" if it is below a minute."""
    seconds = (time.perf_counter() - started) / done * (n - done)
    return f"; about {duration(seconds)} left" if seconds >= 60 else ""


def describe_run(run):
    """Format a run's settings as a short line, without default values and with long values truncated."""
    fields = {name: value for name, value in vars(run).items() if value != getattr(type(run), name, None)}
    adapter = fields.pop("adapter", None)
    if adapter is None and hasattr(run, "adapter"):
        fields = {"full fine-tuning": "of all"} | fields
    if adapter is not None:
        fields = {"kind": adapter.kind, "r": adapter.r, "targets": ",".join(adapter.targets) or "head"} | fields
    return ", ".join(f"{name} {value!s:.32}" for name, value in fields.items() if name != "keep")


def describe_numbers(numbers):
    """Format a run's result as a short phrase."""
    outcome = "done"
    if "diverged" in numbers:
        outcome = "diverged"
    elif "test_accuracy" in numbers:
        outcome = f"test accuracy {100 * numbers['test_accuracy']:.1f} %"
    elif "validation_loss" in numbers:
        outcome = f"validation loss {numbers['validation_loss']:.4f} nats"
    return f"{outcome} ({numbers['seconds']:.0f} s)"
