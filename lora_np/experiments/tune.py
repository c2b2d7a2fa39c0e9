"""Choosing each method's learning rate on the validation split."""

import numpy as np

from ..formats import write_json
from .fine_tune_run import Run, fine_tune_run
from .methods import BY_KEY, LEARNING_RATES
from .sweep import sweep

# LoRA's best is usually about ten times full fine-tuning's; each grid reaches past both sides of its best.
FULL_GRID = (2e-4, 4e-4, 8e-4, 1.6e-3)
LORA_GRID = (1.5e-3, 3e-3, 6e-3, 1.2e-2)
GRIDS = {
    "head": (1e-3, 3e-3, 1e-2, 3e-2),
    **{key: LORA_GRID for key in BY_KEY if key.startswith("lora")},
    "full": FULL_GRID,
    "scratch": FULL_GRID,
}


def tune(seeds=1, jobs=None, out=LEARNING_RATES, report=print):
    """Try every learning rate of every method's grid; keep the best mean validation accuracy.

    The test split is not read. Of equal ones the lower rate is taken.

    Parameters
    ----------
    seeds : int, runs at each rate; they are numbered from 100, apart from the main job's
    jobs : int, processes side by side; None: one a core
    out : where to write the JSON that the main job reads
    report : function of a line of text

    Returns
    -------
    dict: "chosen", method -> rate; "validation_accuracy", method -> rate -> mean
    """
    runs = [
        Run(key, 100 + seed, rate, analyse=False, test=False)
        for seed in range(seeds)
        for key in reversed(GRIDS)
        for rate in GRIDS[key]
    ]
    found = {key: {rate: [] for rate in grid} for key, grid in GRIDS.items()}
    for run, result in sweep(fine_tune_run, runs, jobs):
        found[run.method][run.learning_rate].append(result["validation_accuracy"])
        report(f"{run.method:<12} lr {run.learning_rate:<8g} validation {result['validation_accuracy']:.4f}")
    means = {key: {rate: float(np.mean(v)) for rate, v in rates.items()} for key, rates in found.items()}
    outcome = {
        "command": f"python -m lora_np tune --seeds {seeds}",
        "chosen": {key: max(rates, key=rates.get) for key, rates in means.items()},
        "validation_accuracy": {
            key: {f"{rate:g}": mean for rate, mean in rates.items()} for key, rates in means.items()
        },
    }
    write_json(out, outcome)
    return outcome
