"""Run an experiment: carry out its training runs, measure them, decide the verdict, and write the files.

A recipe (`recipes/`) is a module whose docstring describes the experiment's method. A recipe defines

    CLAIM           a paper's claim with its source: a str, or a dict, base -> str
    CAPTION         what the figure shows: a str, or a dict, base -> str
    KEYS            dict, base -> names of methods; each method is trained at its own learning rate with every seed
    runs(seeds, quick, base)
                    may replace KEYS; returns a dict, name -> training run, an instance of a dataclass in `runs/`
    measure(results, runs, seeds, quick)
                    returns a dict with "checks" (see `evidence.py`), which decide the verdict; optionally "asides",
                    which are checks that do not affect the verdict; and the data for the figure
    draw(outcome)   returns the figure, drawn from the contents of the JSON

and optionally

    BASES           the bases; default: those of KEYS or, without KEYS, the small base
    ON              dict, base -> further fields of the runs that KEYS defines
    FIGURES         dict, base -> file name -> function like `draw`; for recipes with several figures
    table(outcome), details(outcome)
                    return the rows of a table as lists of strings, the header first; `details` is below the checks
    finding(outcome)
                    returns a sentence with the main result
    COLUMNS         the number of the table's columns that fit on a screen
"""

import os
import platform
import time

import numpy as np

from .. import __version__
from ..checked import one_of, whole_number
from ..formats import check_file, check_folder, model_place, read_json, write_json
from ..formats.atomic import write_atomically
from .drawing import as_png
from .evidence import format_check, verdict
from .gallery import folder_of, markdown, write_gallery
from .methods import METHODS, tuned_runs
from .recipes import bases_of, figures, headline, of_base, recipe
from .store import STORE, DivergedError, carry_out_all, made_with, run_key

SEEDS = {"smollm2": 3, "minilm": 5, "pretrained": 5}  # the default number of seeds
MOST_SEEDS = 1000


def runs_of(name, seeds, quick, base="pretrained"):
    """The training runs of an experiment, a dict: name -> run."""
    module = recipe(name)
    if hasattr(module, "runs"):
        return module.runs(seeds, quick, base)
    return tuned_runs(module.KEYS[base], seeds, quick, base=base, **getattr(module, "ON", {}).get(base, {}))


def experiment(
    name, seeds=None, quick=False, out="figures", store=STORE, executor=None, report=print, base="pretrained"
):
    """Run an experiment, write NAME.json and its figures, and update the gallery.

    Parameters
    ----------
    name : str, the name of a recipe
    seeds : int, the number of seeds, or None for the default: 2 if `quick`, otherwise as in `SEEDS`
    quick : bool, whether to shorten the runs, to test that an experiment works
    out : path of the folder to write to; see `folder_of`
    store, executor, report : see `store.carry_out_all`
    base : "pretrained", "minilm" or "smollm2", one of the recipe's bases

    Returns
    -------
    dict, the contents of the JSON file. If a run fails, or if a run that the recipe needs diverges, the dict has
        only the key "failed", and nothing is written

    Raises
    ------
    ValueError
        If an argument is invalid.
    """
    module, base = recipe(name), one_of("base", base, bases_of(name))
    seeds = whole_number("seeds", (2 if quick else SEEDS[base]) if seeds is None else seeds, most=MOST_SEEDS)
    model_place(base)  # if the base is missing, raises an error that says how to install it
    check_folder(out, "out")
    check_folder(store, "store")
    folder = folder_of(out, base)
    check_file(folder / f"{name}.json", "out", (store,))
    started, seeds = time.perf_counter(), list(range(seeds))
    report(f"{name}: {headline(name)}")
    runs = runs_of(name, seeds, quick, base)
    results, failed, reused = carry_out_all(runs.values(), store, executor, report, run_names(runs))
    if failed:
        return {"failed": failed}
    try:
        measured = module.measure(results, runs, seeds, quick)
    except DivergedError as error:
        report(f"  cannot be measured: {error}")
        return {"failed": [{"error": str(error)}]}
    options = [f"--base {base}"] * (base != "pretrained") + ["--quick"] * quick + [f"--seeds {len(seeds)}"]
    outcome = {
        "experiment": name,
        "title": headline(name),
        "base": base,
        "command": " ".join(["python -m lora_np experiment", name, *options]),
        "claim": of_base(module.CLAIM, base),
        "caption": of_base(module.CAPTION, base),
        "verdict": verdict(measured["checks"]),
        "quick": quick,
        "seeds": seeds,
        "asides": [],
        **measured,
        "versions": {
            "lora_np": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        "made_with": made_with(*{run.__module__ for run in runs.values()} or {module.__name__}),
        "reused": reused,
        "runs": results.listed(runs.values()),
        "seconds": time.perf_counter() - started,
    }
    for line in summary(module, outcome):
        report(line)
    names = ", ".join(path.name for path in write_outcome(name, outcome, out))
    n, seconds = len(outcome["runs"]), outcome["seconds"]
    report(f"  {seconds:.0f} s, {reused} of {n} runs were reused; {folder}: {name}.json, {names}\n")
    return outcome


def run_names(runs):
    """The names of the runs that are a method's, such as "LoRA q,v r=8, seed 0", as a dict: `run_key` -> str."""
    names, several = {}, len({run.seed for run in runs.values()}) > 1
    for key, run in runs.items():
        if len(key) == 2 and key[0] in METHODS:
            names.setdefault(run_key(run), METHODS[key[0]].label + f", seed {run.seed}" * several)
    return names


def summary(module, outcome):
    """Yield the lines that report an experiment's results. With one seed, there are no intervals and no verdicts."""
    if hasattr(module, "table"):
        rows = [row[: getattr(module, "COLUMNS", None)] for row in module.table(outcome)]
        yield "\n" + "\n".join(markdown(rows)) + "\n"
    shortened = " (from shortened runs)" * outcome["quick"]
    if hasattr(module, "finding"):
        yield f"{module.finding(outcome)}{shortened}\n"
    if len(outcome["seeds"]) > 1:
        yield from (f"  {format_check(part)}" for part in outcome["checks"])
        yield from (f"  also measured: {format_check(part)}" for part in outcome["asides"])
        yield f"  {outcome['verdict']}{shortened}: {outcome['claim']}"


def write_outcome(name, outcome, out):
    """Write the figures, the JSON and the gallery, or nothing if drawing fails; return the figures' paths."""
    folder, of_base = folder_of(out, outcome["base"]), figures(name, outcome["base"])
    drawn = {folder / f"{figure}.png": as_png(draw, outcome) for figure, draw in of_base.items()}
    for path, png in drawn.items():
        write_atomically(path, png)
    write_json(folder / f"{name}.json", outcome)
    write_gallery(out)
    return list(drawn)


def draw_again(name, out="figures", base="pretrained"):
    """Redraw an experiment's figures from its JSON, and update its caption and the gallery; return the figures' paths.

    Raises
    ------
    FileNotFoundError
        If there is no JSON file.
    ValueError
        If another version of lora_np wrote the file.
    """
    path = folder_of(out, base) / f"{name}.json"
    outcome = read_json(path)
    try:
        return write_outcome(name, outcome | {"caption": of_base(recipe(name).CAPTION, base)}, out)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); run the experiment again") from None
