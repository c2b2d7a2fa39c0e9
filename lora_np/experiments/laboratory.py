"""Run an experiment: print its design, carry out its training runs, compare their results, and write the files."""

import os
import platform
import time

import numpy as np

from .. import __version__
from ..checked import one_of, whole_number
from ..formats import check_file, check_folder, model_place, read_json, write_json
from ..formats.atomic import write_atomically
from .design import design_of, judged
from .drawing import as_png
from .evidence import describe
from .gallery import folder_of, markdown, write_gallery
from .methods import METHODS, tuned_runs
from .recipes import recipe
from .runs.classify import FOLDS
from .store import STORE, DivergedError, carry_out_all, made_with, run_key

SEEDS = {"smollm2": 3, "minilm": FOLDS, "pretrained": 5}  # the default number of seeds
MOST_SEEDS = 1000


def runs_of(name, seeds, quick, base):
    """The training runs of an experiment, a dict: name -> run."""
    of = recipe(name)
    if of.runs is not None:
        return of.runs(seeds, quick, base)
    return tuned_runs(of.keys[base], seeds, quick, base=base, **of.on.get(base, {}))


def experiment(name, seeds=None, quick=False, out="figures", store=STORE, workers=None, report=print, base=None):
    """Run an experiment, write NAME.json and its figures, and update the gallery.

    Parameters
    ----------
    name : str, the name of a recipe
    seeds : int, the number of seeds, or None for the default: 2 if `quick`, otherwise as in `SEEDS`
    quick : bool, whether to shorten the runs, to test that an experiment works
    out : path of the folder to write to; see `folder_of`
    store, workers, report : see `store.carry_out_all`
    base : "pretrained", "minilm" or "smollm2", one of the recipe's bases; None: the first

    Returns
    -------
    dict, the contents of the JSON file. If a run fails, or if a run that the recipe needs diverges, the dict has
        only the key "failed", and nothing is written

    Raises
    ------
    ValueError
        If an argument is invalid.
    """
    of = recipe(name)
    base = of.bases[0] if base is None else one_of("base", base, of.bases)
    default = 2 if quick else of.seeds.get(base, SEEDS[base])
    seeds = whole_number("seeds", default if seeds is None else seeds, most=MOST_SEEDS)
    model_place(base)  # if the base is missing, raises an error that says how to install it
    check_folder(out, "out")
    check_folder(store, "store")
    folder = folder_of(out, base)
    check_file(folder / f"{name}.json", "out", (store,))
    started, seeds = time.perf_counter(), list(range(seeds))
    design = design_of(of, base)
    report(f"{name}: {of.question}\n  {design.statement}. {design.plan(len(seeds))}")
    runs = runs_of(name, seeds, quick, base)
    results, failed, reused = carry_out_all(runs.values(), store, workers, report, run_names(runs))
    if failed:
        return {"failed": failed}
    try:
        tables = of.measure(results, runs, seeds, quick)
    except DivergedError as error:
        report(f"  cannot be measured: {error}")
        return {"failed": [{"error": str(error)}]}
    options = [f"--base {base}"] * (base != "pretrained") + ["--quick"] * quick + [f"--seeds {len(seeds)}"]
    outcome = {
        "experiment": name,
        "base": base,
        "design": design._asdict(),
        "command": " ".join(["python -m lora_np experiment", name, *options]),
        "quick": quick,
        "seeds": seeds,
        **tables,
        "versions": {
            "lora_np": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        "made_with": made_with(*{run.__module__ for run in runs.values()} or {of.measure.__module__}),
        "reused": reused,
        "runs": results.listed(runs.values()),
        "seconds": time.perf_counter() - started,
    }
    outcome["comparisons"] = judged(of, outcome)
    for line in summary(of, outcome):
        report(line)
    names = ", ".join(path.name for path in write_outcome(name, outcome, out))
    n, seconds = len(outcome["runs"]), outcome["seconds"]
    report(f"  {seconds:.0f} s, {reused} of {n} runs were reused; {folder}: {name}.json, {names}\n")
    return outcome


def run_names(runs):
    """The names of the runs that are a method's, such as "LoRA q,v r=8, seed 0", as a dict: `run_key` -> str."""
    several = len({run.seed for run in runs.values()}) > 1
    methods = {run_key(run): (key[0], run.seed) for key, run in runs.items() if len(key) == 2 and key[0] in METHODS}
    return {key: METHODS[method].label + f", seed {seed}" * several for key, (method, seed) in methods.items()}


def summary(of, outcome):
    """Yield the lines that report an experiment's results."""
    if of.table is not None:
        rows = [row[: of.columns] for row in of.table(outcome)]
        yield "\n" + "\n".join(markdown(rows)) + "\n"
    shortened = " (from shortened runs)" * outcome["quick"]
    yield f"{of.finding(outcome)}{shortened}\n"
    main, *others = outcome["comparisons"]
    yield f"  {describe(main)}{shortened}"
    if main["low"] is not None:
        yield from (f"  also: {describe(part)}" for part in others)


def write_outcome(name, outcome, out):
    """Write the figures, the JSON and the gallery, or nothing if drawing fails; return the figures' paths."""
    folder = folder_of(out, outcome["base"])
    drawn = {folder / f"{figure}.png": as_png(draw, outcome) for figure, draw in recipe(name).draw.items()}
    for path, png in drawn.items():
        write_atomically(path, png)
    write_json(folder / f"{name}.json", outcome)
    write_gallery(out)
    return list(drawn)


def draw_again(name, base, out="figures"):
    """Recompute an experiment's verdicts from its JSON, redraw its figures and the gallery; return the figures' paths.

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
        return write_outcome(name, outcome | {"comparisons": judged(recipe(name), outcome)}, out)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); run the experiment again") from None
