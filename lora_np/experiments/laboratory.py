"""How an experiment runs: its training runs, its measures, its verdict, and the files that it writes.

A recipe (`recipes/`) is a module whose docstring is its method section, with

    CLAIM                    what the paper says, and which paper; one text, or a dict of texts by base CAPTION
    what the figure shows, likewise KEYS                     base -> the methods trained on it, each from every seed at
    its own learning rate; or runs(seeds, quick, base) -> dict, name -> training run: a dataclass of `runs/`
    measure(results, runs, seeds, quick)   -> dict with "checks" (see `evidence.py`), which decide the verdict;
    optionally
                             "asides", checks without effect on it; and what the figure shows
    draw(outcome)            -> the figure, from the contents of the JSON

and optionally

    BASES                    its bases, if they are neither those of KEYS nor the small one alone
    ON                       base -> other fields of the runs of KEYS
    FIGURES                  base -> file name -> function like `draw`, for a recipe with several figures
    table(outcome)           -> rows of texts, the heads first
    write_more(outcome, folder)
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
from .methods import tuned_runs
from .recipes import bases_of, figures, headline, of_base, recipe
from .store import STORE, DivergedError, carry_out_all, made_with

QUICK_SEEDS = 2
SEEDS = {"smollm2": 3, "pretrained": 5}  # by default


def runs_of(name, seeds, quick, base="pretrained"):
    """Name -> training run, for each run of an experiment."""
    module = recipe(name)
    if hasattr(module, "runs"):
        return module.runs(seeds, quick, base)
    return tuned_runs(module.KEYS[base], seeds, quick, base=base, **getattr(module, "ON", {}).get(base, {}))


def experiment(
    name, seeds=None, quick=False, out="figures", store=STORE, executor=None, report=print, base="pretrained"
):
    """Run an experiment; write NAME.json and its figures, and update the gallery.

    Parameters
    ----------
    name : str, of a recipe
    seeds : int, how many; None: `SEEDS`
    quick : bool, two seeds of shortened runs, only to see that it works
    out : folder to write to; see `folder_of`
    store, executor, report : see `store.carry_out_all`
    base : "pretrained" or "smollm2", one of the recipe's bases

    Returns
    -------
    dict, the contents of the JSON. If runs failed, or a run that the recipe needs diverged, it only has "failed", and
        nothing is written

    Raises
    ------
    ValueError
        If an argument is invalid.
    """
    module, base = recipe(name), one_of("base", base, bases_of(name))
    seeds = whole_number("seeds", SEEDS[base] if seeds is None else seeds)
    model_place(base)  # raises an error that says how to install it
    check_folder(out, "out")
    check_folder(store, "store")
    folder = folder_of(out, base)
    check_file(folder / f"{name}.json", "out", (store,))
    started, seeds = time.perf_counter(), list(range(QUICK_SEEDS if quick else seeds))
    report(f"{name}: {headline(name)}")
    runs = runs_of(name, seeds, quick, base)
    results, failed, reused = carry_out_all(runs.values(), store, executor, report)
    if failed:
        return {"failed": failed}
    try:
        measured = module.measure(results, runs, seeds, quick)
    except DivergedError as error:
        report(f"  cannot be measured: {error}")
        return {"failed": [{"error": str(error)}]}
    options = [f"--base {base}"] * (base != "pretrained") + ["--quick" if quick else f"--seeds {len(seeds)}"]
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
    if hasattr(module, "table"):
        report("\n" + "\n".join(markdown(module.table(outcome))) + "\n")
    for part in outcome["checks"]:
        report(f"  {format_check(part)}")
    for part in outcome["asides"]:
        report(f"  also measured: {format_check(part)}")
    report(f"  {outcome['verdict']}{' (shortened runs: meaningless)' * quick}: {outcome['claim']}")
    names = ", ".join(path.name for path in write_outcome(name, outcome, out))
    n, seconds = len(outcome["runs"]), outcome["seconds"]
    report(f"  {seconds:.0f} s, {reused} of {n} runs were reused; {folder}: {name}.json, {names}\n")
    return outcome


def write_outcome(name, outcome, out):
    """Write figures, JSON and gallery, or nothing if a figure cannot be drawn; return the figures' paths."""
    folder, of_base = folder_of(out, outcome["base"]), figures(name, outcome["base"])
    drawn = {folder / f"{figure}.png": as_png(draw, outcome) for figure, draw in of_base.items()}
    for path, png in drawn.items():
        write_atomically(path, png)
    write_json(folder / f"{name}.json", outcome)
    if hasattr(recipe(name), "write_more"):
        recipe(name).write_more(outcome, folder)
    write_gallery(out)
    return list(drawn)


def draw_again(name, out="figures", base="pretrained"):
    """Redraw an experiment's figures from its JSON, update caption and gallery, and return the figures' paths.

    Raises
    ------
    FileNotFoundError
        If there is no JSON.
    ValueError
        If another version wrote it.
    """
    path = folder_of(out, base) / f"{name}.json"
    outcome = read_json(path)
    try:
        return write_outcome(name, outcome | {"caption": of_base(recipe(name).CAPTION, base)}, out)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); run the experiment again") from None
