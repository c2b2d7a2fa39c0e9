"""Choosing each method's learning rate on the validation split."""

from pathlib import Path

import numpy as np

from ..formats import read_json, write_json
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


def tune(methods=None, seeds=1, jobs=None, out=LEARNING_RATES, report=print):
    """Try every learning rate of every method's grid; keep the best mean validation accuracy.

    The test split is not read. Of equal ones the lower rate is taken.

    Parameters
    ----------
    methods : keys of the methods to tune; None: all. What the file says of others stays.
    seeds : int, runs at each rate; they are numbered from 100, apart from the main job's
    jobs : int, processes side by side; None: one a core
    out : where to write the JSON that the main job reads
    report : function of a line of text

    Returns
    -------
    dict: "chosen", method -> rate; "validation_accuracy", method -> rate -> mean
    """
    for key in methods or ():
        if key not in GRIDS:
            raise ValueError(f"methods: got {key!r}, expected some of {', '.join(GRIDS)}")
    grids = {key: GRIDS[key] for key in methods or GRIDS}
    runs = [
        Run(key, 100 + seed, rate, analyse=False, test=False)
        for seed in range(seeds)
        for key in reversed(grids)
        for rate in grids[key]
    ]
    found = {key: {rate: [] for rate in grid} for key, grid in grids.items()}
    for run, result in sweep(fine_tune_run, runs, jobs):
        found[run.method][run.learning_rate].append(result["validation_accuracy"])
        report(f"{run.method:<12} lr {run.learning_rate:<8g} validation {result['validation_accuracy']:.4f}")
    means = {key: {rate: float(np.mean(v)) for rate, v in rates.items()} for key, rates in found.items()}
    before = read_json(out) if Path(out).exists() else {"chosen": {}, "validation_accuracy": {}}
    chosen = before["chosen"] | {key: max(rates, key=rates.get) for key, rates in means.items()}
    accuracy = before["validation_accuracy"] | {
        key: {f"{rate:g}": mean for rate, mean in rates.items()} for key, rates in means.items()
    }
    outcome = {
        "command": "python -m lora_np tune",
        "chosen": {key: chosen[key] for key in BY_KEY if key in chosen},
        "validation_accuracy": {key: accuracy[key] for key in BY_KEY if key in accuracy},
    }
    write_json(out, outcome)
    return outcome
