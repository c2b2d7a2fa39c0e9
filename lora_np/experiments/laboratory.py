"""How an experiment is carried out: its runs, unless they are kept; its measures; verdict, JSON, figure, gallery.

A recipe (`recipes/`) is a module whose docstring is its method section, with

    CLAIM                    what the paper says, and which paper
    CAPTION                  what to see in the figure
    runs(seeds, quick)       the training runs that it needs: dataclasses of `runs/`
    measure(results, seeds, quick)   -> dict with "checks" (see `evidence.py`), of which the verdict is made, perhaps
                             "asides", checks that are measured too and have no say, and whatever the figure shows
    draw(outcome)            -> the figure, from what the JSON holds
"""

import time
from pathlib import Path

from ..formats import check_folder, read_json, write_json
from .evidence import format_check, verdict
from .figures import write_figure
from .gallery import write_gallery
from .main_job import versions
from .recipes import headline, recipe
from .run_store import carry_out_all, describe_run, kept_arrays, made_with, run_key, settings_of

STORE = "out/runs"
QUICK_SEEDS = 2


class DivergedError(ValueError):
    """An experiment needs the result of a run whose loss was no longer finite."""


class Results:
    """The results of an experiment's runs, looked up by the run."""

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

    def validation_loss(self, run):
        """In nats; None of a run that diverged."""
        return self._numbers[run_key(run)]["validation_loss"]


def experiment(name, seeds=5, quick=False, out="figures", store=STORE, executor=None, report=print):
    """Carry out one experiment; write NAME.json and NAME.png, and the gallery anew.

    Parameters
    ----------
    name : str, of a recipe
    seeds : int, how many
    quick : bool, two seeds of shortened runs: to see that it works, not to learn from
    out : folder to write to
    store : folder that keeps the runs; what is there is not run again
    executor : concurrent.futures.Executor that carries out the runs, see `sweep`; None: one process a core
    report : function of a line of text

    Returns
    -------
    dict, what the JSON holds; where runs failed, or diverged where the recipe needs them, "failed" alone, and nothing
        is written

    Raises
    ------
    ValueError
        If an argument is unusable.
    """
    found = recipe(name)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"seeds: got {seeds!r}, expected a whole number of at least 1")
    check_folder(out, "out")
    check_folder(store, "store")
    started, seeds = time.perf_counter(), list(range(QUICK_SEEDS if quick else seeds))
    report(f"{name}: {headline(name)}")
    runs = list({run_key(run): run for run in found.runs(seeds, quick)}.values())
    numbers, failed, reused = carry_out_all(runs, store, executor, report)
    if failed:
        report(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, and only them")
        return {"failed": failed}
    try:
        measured = found.measure(Results(store, numbers), seeds, quick)
    except DivergedError as error:
        report(f"  cannot be measured: {error}")
        return {"failed": [{"error": str(error)}]}
    outcome = {
        "experiment": name,
        "title": headline(name),
        "command": f"python -m lora_np experiment {name}" + (" --quick" if quick else f" --seeds {len(seeds)}"),
        "claim": found.CLAIM,
        "caption": found.CAPTION,
        "verdict": verdict(measured["checks"]),
        "quick": quick,
        "seeds": seeds,
        "asides": [],
        **measured,
        "versions": versions(),
        "made_with": made_with(),
        "reused": reused,
        "runs": [{"settings": settings_of(run), **numbers[run_key(run)]} for run in runs],
    }
    outcome["seconds"] = time.perf_counter() - started
    for part in outcome["checks"]:
        report("  " + format_check(part))
    for part in outcome["asides"]:
        report("  beside: " + format_check(part))
    report(f"  {outcome['verdict']}{' (of shortened runs: not to learn from)' * quick}: {found.CLAIM}")
    folder = Path(out)
    write_outcome(name, outcome, folder)
    report(f"  {outcome['seconds']:.0f} s, {reused} of {len(runs)} runs were there; {folder / name}.png, .json\n")
    return outcome


def write_outcome(name, outcome, folder):
    """The figure, the JSON and the gallery. What cannot be drawn is not written."""
    found = recipe(name)
    write_figure(folder / f"{name}.png", found.draw, outcome)
    write_json(folder / f"{name}.json", outcome)
    if hasattr(found, "write_more"):
        found.write_more(outcome, folder)
    write_gallery(folder)


def draw_again(name, out="figures"):
    """An experiment's figure with its caption, and the gallery, anew from the JSON that is there.

    Parameters
    ----------
    name : str, of a recipe
    out : folder of the JSON, and of what is drawn

    Returns
    -------
    Path of the figure

    Raises
    ------
    FileNotFoundError, ValueError
        If the JSON is not there, or is not what this version writes.
    """
    path = Path(out) / f"{name}.json"
    outcome = read_json(path)
    try:
        write_outcome(name, outcome | {"caption": recipe(name).CAPTION}, path.parent)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); carry the experiment out again") from None
    return path.with_suffix(".png")
