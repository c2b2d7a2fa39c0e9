"""How an experiment is carried out: its runs, unless they are kept; its measures; verdict, JSON, figure, gallery.

A recipe (`recipes/`) is a module whose docstring is its method section, with

    CLAIM                    what the paper says, and which paper
    CAPTION                  what to see in the figure
    runs(seeds, quick)       the training runs that it needs: dataclasses of `runs/`
    measure(results, seeds, quick)   -> dict with "checks" (see `evidence.py`) and whatever the figure shows
    draw(outcome)            -> the figure, from what the JSON holds
"""

import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from ..formats import check_folder, read_json, write_json
from .evidence import format_check, verdict
from .figures import write_figure
from .gallery import write_gallery
from .main_job import versions
from .recipes import headline, recipe
from .run_store import keep, kept_arrays, kept_numbers, made_with, of_other_code, run_key, settings_of
from .runs import carry_out
from .sweep import sweep

STORE = "out/runs"
QUICK_SEEDS = 2


class Results:
    """The results of an experiment's runs, looked up by the run."""

    def __init__(self, store, numbers):
        self._store, self._numbers = store, numbers

    def __getitem__(self, run):
        """The run's numbers."""
        return self._numbers[run_key(run)]

    def arrays(self, run):
        """What the run trained, for one with keep=True."""
        return kept_arrays(self._store, run)


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
    dict, what the JSON holds; where runs failed, only "failed", and nothing is written

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
    measured = found.measure(Results(store, numbers), seeds, quick)
    outcome = {
        "experiment": name,
        "title": headline(name),
        "command": f"python -m lora_np experiment {name}" + (" --quick" if quick else f" --seeds {len(seeds)}"),
        "claim": found.CLAIM,
        "caption": found.CAPTION,
        "verdict": verdict(measured["checks"]),
        "quick": quick,
        "seeds": seeds,
        **measured,
        "versions": versions(),
        "made_with": made_with(),
        "failed": [],
        "reused": reused,
        "runs": [{"settings": settings_of(run), **numbers[run_key(run)]} for run in runs],
    }
    outcome["seconds"] = time.perf_counter() - started
    for part in outcome["checks"]:
        report("  " + format_check(part))
    report(f"  {outcome['verdict']}{' (of shortened runs: not to learn from)' * quick}: {found.CLAIM}")
    folder = Path(out)
    write_json(folder / f"{name}.json", outcome)
    write_figure(folder / f"{name}.png", found.draw, outcome)
    if hasattr(found, "write_more"):
        found.write_more(outcome, folder)
    write_gallery(folder)
    report(f"  {outcome['seconds']:.0f} s, {reused} of {len(runs)} runs were there; {folder / name}.png, .json\n")
    return outcome


def draw_again(name, out="figures"):
    """An experiment's figure, and the gallery, anew from the JSON that is there.

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
        drawn = write_figure(path.with_suffix(".png"), recipe(name).draw, outcome)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); carry the experiment out again") from None
    write_gallery(out)
    return drawn


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
    with closing(sweep(carry_out, missing, executor)) as endings:
        for run, result, error, _ in endings:
            done += 1
            if error is None:
                numbers[run_key(run)], arrays = result
                keep(store, run, *result)
                said = f"{result[0]['seconds']:.0f} s"
            else:
                failed.append(asdict(run) | {"error": error})
                said = f"FAILED: {error}"
            report(f"  [{done:>3}/{len(missing)}] {said:<8} {describe_run(run)}")
    return numbers, failed, reused


def describe_run(run):
    """A run's settings in a short line: those that are not the defaults."""
    fields = {name: value for name, value in vars(run).items() if value != getattr(type(run), name, None)}
    adapter = fields.pop("adapter", None)
    if adapter is None and hasattr(run, "adapter"):
        fields = {"full fine-tuning": "of all"} | fields
    if adapter is not None:
        fields = {"kind": adapter.kind, "r": adapter.r, "targets": ",".join(adapter.targets) or "head"} | fields
    return ", ".join(f"{name} {value}" for name, value in fields.items() if name != "keep")
