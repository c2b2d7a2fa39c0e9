"""Training runs that have been carried out, each kept under all that its result depends on.

An entry is `SETTINGS-CODE.json`, and `SETTINGS-CODE.safetensors` for a run that keeps arrays. SETTINGS is a digest of
the run's settings. CODE is a digest of the versions, of the small base's files, and of the modules that the run goes
through, without comments and docstrings: editing a figure or a sentence costs no training. The kind of processor, on
which the last digits depend, is not part of the key; see `sweep.py`.
"""

import ast
import hashlib
import json
import platform
import time
from contextlib import closing, suppress
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from .. import __version__
from ..formats import PRETRAINED, read_json, read_tensors, write_json, write_tensors
from ..formats.tensors import read_names
from ..training.progress import duration
from .sweep import sweep

PACKAGE = Path(__file__).parent.parent
STORE = "out/runs"
LONG = 60  # seconds; if more are left, it is said how many
BASE_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
UNTRACED = (("formats",),)  # a run only reads the base with it. The small base's bytes are in the key, SmolLM2's not
UNUSABLE = (FileNotFoundError, ValueError, KeyError, TypeError)  # what reading an absent or a damaged file raises
ROOT = ((), "__version__")  # which is in the key too


class DivergedError(ValueError):
    """The result of a run whose loss was no longer finite is needed."""


class Results:
    """The results of runs, looked up by the run."""

    def __init__(self, store, numbers):
        self._store, self._numbers = store, numbers

    def __getitem__(self, run):
        """The run's numbers. Raises DivergedError for a run that diverged."""
        numbers = self._numbers[run_key(run)]
        if "diverged" in numbers:
            raise DivergedError(f"{describe_run(run)}: {numbers['diverged']}")
        return numbers

    def arrays(self, run):
        """What the run trained, for one with keep=True. Raises DivergedError for a run that diverged."""
        self[run]
        return kept_arrays(self._store, run)

    def file_bytes(self, run):
        """The size of the file of what the run trained."""
        return entry_path(self._store, run, ".safetensors").stat().st_size

    def measured(self, function, run, *more):
        """function(results, run, *more), ready for JSON, which is kept beside the run: under the function's code too.

        So a long measure is not repeated, and needs the run's arrays only once.
        """
        of = function.__qualname__, more, made_with(run.__module__, function.__module__)
        path = entry_path(self._store, run, f"-{short_digest(json.dumps(of, sort_keys=True))}.json")
        with suppress(*UNUSABLE):
            return read_json(path)["measured"]
        write_json(path, {"measured": function(self, run, *more)})
        return read_json(path)["measured"]

    def validation_loss(self, run):
        """In nats; None for a run that diverged."""
        return self._numbers[run_key(run)]["validation_loss"]

    def listed(self, runs):
        """Settings and numbers of each run as one dict, for JSON; equal runs once."""
        settings = {run_key(run): settings_of(run) for run in runs}
        return [{"settings": of_run, **self._numbers[key]} for key, of_run in settings.items()]


# ---------------------------------------------------------------- what a result depends on


@lru_cache(maxsize=32)
def made_with(*modules):
    """What all runs of the kinds that are defined in some modules depend on besides their settings.

    A dict, ready for JSON: versions, digests of the base's files and of the code, and those modules. For a single run
    its module is `run.__module__`.
    """
    paths = sorted(set().union(*map(modules_behind, modules)))
    code = "".join(f"{path}\n{code_alone((PACKAGE / path).read_text(encoding='utf-8'))}\n" for path in paths)
    base = b"".join(hashlib.sha256((PRETRAINED / name).read_bytes()).digest() for name in BASE_FILES)
    return {
        "lora_np": __version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),  # `ast.unparse` depends on it
        "base": hashlib.sha256(base).hexdigest(),
        "code": hashlib.sha256(code.encode()).hexdigest(),
        "modules": sorted(modules),
    }


def modules_behind(module):
    """The files that a module such as "lora_np.experiments.runs.classify" goes through, as paths inside the package.

    They are itself and what it imports, name by name. A package's `__init__.py` that only passes a name on is not among
    them, nor are the modules beside the one that the name comes from.
    """
    files, todo, seen = set(), [(tuple(module.split(".")[1:]), None)], set()
    while todo:
        module, name = reference = todo.pop()
        if reference in seen or module[:1] in UNTRACED or reference == ROOT:
            continue
        seen.add(reference)
        folder = PACKAGE.joinpath(*module)
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if folder.is_dir() and name is not None and ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
            todo.append(((*module, name), None))
        elif folder.is_dir() and name in imports(path):
            todo.append(imports(path)[name])
        else:  # defined there
            files.add(str(path.relative_to(PACKAGE)))
            todo += imports(path).values()
    return files


@cache
def imports(path):
    """Name -> (module, name there) of each name that a file imports from the package, wherever in the file."""
    names = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.relative_to(PACKAGE).parts
            module = folder[: len(folder) - node.level] + tuple(node.module.split(".") if node.module else ())
            names |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    return names


def code_alone(source):
    """A module's source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str()) as docstring), *_]:
                docstring.value = ""
    return ast.unparse(tree)


def settings_of(run):
    """A run's settings as plain values, with the name of its kind; without `keep`, which changes no number."""
    return {"kind": type(run).__name__} | {name: value for name, value in asdict(run).items() if name != "keep"}


def run_key(run):
    """A run's settings as one text: equal for equal runs."""
    return json.dumps(settings_of(run), sort_keys=True)


# ---------------------------------------------------------------- entries


def entry_path(store, run, suffix=".json"):
    """Where a run of this code is kept: its numbers, or its arrays."""
    code = json.dumps(made_with(run.__module__), sort_keys=True)
    return Path(store) / f"{short_digest(run_key(run))}-{short_digest(code)}{suffix}"


def short_digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def keep(store, run, numbers, arrays):
    """Write a run's result; the arrays first, so that an entry that exists is whole."""
    if arrays:
        write_tensors(entry_path(store, run, ".safetensors"), arrays)
    made = made_with(run.__module__)
    entry = {"run": settings_of(run), "made_with": made, "numbers": numbers, "arrays": sorted(arrays)}
    write_json(entry_path(store, run), entry)


def kept_numbers(store, run):
    """The numbers of a run that was carried out with this code, or None.

    An entry that is damaged, or lacks the arrays that the run is to keep, counts as none: the run is carried out again.
    """
    try:
        entry = read_json(entry_path(store, run))
        numbers, names = entry["numbers"], entry["arrays"]
        wanted = getattr(run, "keep", False) and "diverged" not in numbers
        whole = not wanted or names and sorted(read_names(entry_path(store, run, ".safetensors"))[0]) == names
    except UNUSABLE:
        return None
    return numbers if whole else None


def kept_arrays(store, run):
    """The arrays of a run that is kept."""
    return read_tensors(entry_path(store, run, ".safetensors"))[0]


def of_other_code(store, runs):
    """How many of the runs are only kept from other code or versions, which is never mixed with this."""
    keys = [short_digest(run_key(run)) for run in runs if not entry_path(store, run).exists()]
    kept = {path.name.split("-")[0] for path in Path(store).glob("*.json") if path.name.count("-") == 1}  # no measures
    return sum(key in kept for key in keys)


# ---------------------------------------------------------------- carrying out


def carry_out_here(run):
    """A run's result, and the versions of the worker that carried it out, which may differ from its driver's.

    A run that diverges is a result like any other: "validation_loss" is None, and "diverged" says what happened.
    """
    started = time.perf_counter()
    try:
        numbers, arrays = run.carry_out()
    except FloatingPointError as error:
        numbers, arrays = {"validation_loss": None, "diverged": str(error)}, {}
    return made_with(run.__module__), numbers | {"seconds": time.perf_counter() - started}, arrays


def carry_out_all(runs, store=STORE, executor=None, report=print):
    """Carry out the runs that are not kept, and keep each as it ends.

    Parameters
    ----------
    runs : list; equal runs are carried out once
    store : folder that keeps them; what is there is not run again
    executor : concurrent.futures.Executor that carries out the runs, see `sweep`; None: one process a core
    report : function of a line of text, called as runs end

    Returns
    -------
    results : Results
    failed : list of dicts, the settings of the runs that failed, with "error"
    reused : int, how many were kept
    """
    runs = {run_key(run): run for run in runs}
    numbers = {key: kept_numbers(store, run) for key, run in runs.items()}
    missing, failed = [run for key, run in runs.items() if numbers[key] is None], []
    if others := of_other_code(store, missing):
        report(f"  {others} runs in {store} are of another version of the code or of NumPy: left there, and not used")
    started = time.perf_counter()
    with closing(sweep(carry_out_here, missing, executor)) as endings:
        for done, (run, result, error) in enumerate(endings, 1):
            if error is None and result[0] != made_with(run.__module__):
                error = f"its worker has another version: {result[0]}"
            if error is None:
                _, of_run, arrays = result
                keep(store, run, of_run, arrays)
                numbers[run_key(run)], outcome = of_run, describe_numbers(of_run)
            else:
                failed.append(asdict(run) | {"error": error})
                outcome = f"FAILED: {error}"
            report(
                f"  [{done:>3}/{len(missing)}] {describe_run(run)}: {outcome}{time_left(started, done, len(missing))}"
            )
    if failed:
        report(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, and only them")
    return Results(store, numbers), failed, len(runs) - len(missing)


def time_left(started, done, n):
    """How long the rest of n runs takes if each takes as long as one of the first, as text; of short sweeps nothing."""
    seconds = (time.perf_counter() - started) / done * (n - done)
    return f"; about {duration(seconds)} left" if seconds >= LONG else ""


def describe_run(run):
    """A run's settings in a short line: those that are not the defaults; of a long value its beginning."""
    fields = {name: value for name, value in vars(run).items() if value != getattr(type(run), name, None)}
    adapter = fields.pop("adapter", None)
    if adapter is None and hasattr(run, "adapter"):
        fields = {"full fine-tuning": "of all"} | fields
    if adapter is not None:
        fields = {"kind": adapter.kind, "r": adapter.r, "targets": ",".join(adapter.targets) or "head"} | fields
    return ", ".join(f"{name} {value!s:.32}" for name, value in fields.items() if name != "keep")


def describe_numbers(numbers):
    """A run's result in a few words."""
    outcome = "done"
    if "diverged" in numbers:
        outcome = "diverged"
    elif "test_accuracy" in numbers:
        outcome = f"test accuracy {100 * numbers['test_accuracy']:.1f} %"
    elif "validation_loss" in numbers:
        outcome = f"validation loss {numbers['validation_loss']:.4f} nats"
    return f"{outcome} ({numbers['seconds']:.0f} s)"
