"""How an experiment is carried out: its runs, its measures, its verdict, and what is written of it.

A recipe (`recipes/`) is a module whose docstring is its method section, with

    CLAIM                    what the paper says, and which paper; one text, or a dict of them by base
    CAPTION                  what to see in the figure, likewise
    KEYS                     base -> the methods that are trained on it, each from every seed at its own rate; or
    runs(seeds, quick, base) -> dict, name -> training run that it needs: a dataclass of `runs/`
    measure(results, runs, seeds, quick)   -> dict with "checks" (see `evidence.py`), which decide the verdict; perhaps
                             "asides", checks without a say in it; and whatever the figure shows
    draw(outcome)            -> the figure, from what the JSON holds

and perhaps

    BASES                    the bases that it is carried out on, where that is neither what KEYS says nor the small one
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
    """Name -> training run, for each run that an experiment needs."""
    module = recipe(name)
    if hasattr(module, "runs"):
        return module.runs(seeds, quick, base)
    return tuned_runs(module.KEYS[base], seeds, quick, base=base, **getattr(module, "ON", {}).get(base, {}))


def experiment(
    name,
    seeds=None,
    quick=False,
    out="figures",
    store=STORE,
    executor=None,
    report=print,
    base="pretrained",
):
    """Carry out one experiment; write NAME.json and its figures, and the gallery anew.

    Parameters
    ----------
    name : str, of a recipe
    seeds : int, how many; None: `SEEDS`
    quick : bool, two seeds of shortened runs: only to see that it works
    out : folder to write to; see `folder_of`
    store, executor, report : see `store.carry_out_all`
    base : "pretrained" or "smollm2", which the recipe has to know

    Returns
    -------
    dict, what the JSON holds. If runs failed, or a run that the recipe needs diverged, it holds only "failed", and
        nothing is written

    Raises
    ------
    ValueError
        If an argument is unusable.
    """
    module, base = recipe(name), one_of("base", base, bases_of(name))
    seeds = whole_number("seeds", SEEDS[base] if seeds is None else seeds)
    model_place(base)  # or the error says how to install it
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
    outcome = {
        "experiment": name,
        "title": headline(name),
        "base": base,
        "command": " ".join(
            ["python -m lora_np experiment", name]
            + [f"--base {base}"] * (base != "pretrained")
            + ["--quick" if quick else f"--seeds {len(seeds)}"]
        ),
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
    for kind, beside in (("checks", ""), ("asides", "beside: ")):
        for part in outcome[kind]:
            report(f"  {beside}{format_check(part)}")
    report(f"  {outcome['verdict']}{' (of shortened runs: it means nothing)' * quick}: {outcome['claim']}")
    names = ", ".join(path.name for path in write_outcome(name, outcome, out))
    n, seconds = len(outcome["runs"]), outcome["seconds"]
    report(f"  {seconds:.0f} s, {reused} of {n} runs were there; {folder}: {name}.json, {names}\n")
    return outcome


def write_outcome(name, outcome, out):
    """Write the figures, the JSON and the gallery; return the figures' paths. What cannot be drawn is not written."""
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
    """An experiment's figures with their caption, and the gallery, anew from its JSON.

    Returns the figures' paths. Raises FileNotFoundError if the JSON is not there, and ValueError if it is not what this
    version writes.
    """
    path = folder_of(out, base) / f"{name}.json"
    outcome = read_json(path)
    try:
        return write_outcome(name, outcome | {"caption": of_base(recipe(name).CAPTION, base)}, out)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); carry the experiment out again") from None
