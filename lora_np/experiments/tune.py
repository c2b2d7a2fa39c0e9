"""Choosing each method's learning rate and dropout on the validation split."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..formats import check_file, read_json, write_json
from .fine_tune_run import Run, fine_tune_run
from .methods import BY_KEY, SETTINGS
from .sweep import sweep

# LoRA's best rate is usually about ten times full fine-tuning's, and the fewer numbers move, the
# higher it is; each grid reaches past both sides of its best, or to where two rates do as well.
FULL_RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
MANY_LAYERS_RATES = (7.5e-4, 1.5e-3, 3e-3, 6e-3)
QV_RATES = (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2)
RATES = {
    "head": (1e-3, 3e-3, 1e-2, 3e-2),
    **{key: QV_RATES for key in BY_KEY if key.startswith("lora_qv")},
    **{key: MANY_LAYERS_RATES for key in BY_KEY if key.startswith(("lora_vomlp", "lora_all"))},
    "lora_all_r1": (*MANY_LAYERS_RATES, 1.2e-2),
    "lora_all_r8": (3.75e-4, *MANY_LAYERS_RATES),
    "full": FULL_RATES,
    "scratch": FULL_RATES,
}
# Only the whole model can learn the snippets by heart; tried for the others on a narrower base, it never won.
DROPOUTS = {key: (0.0, 0.1) if key in ("full", "scratch") else (0.0,) for key in RATES}
FIRST_SEED = 100  # apart from the main job's, which count from 0


def tune(methods=None, seeds=1, out=SETTINGS, executor=None, report=print):
    """Try every learning rate and dropout of every method's grid; keep the best.

    Best is the highest mean validation accuracy; the test split is not read. Of equal ones no dropout
    and the lower rate are taken. The file is written after every run, and what it holds is not run
    again: a tuning that was stopped goes on, and to start over the file is deleted.

    Parameters
    ----------
    methods : keys of the methods to tune; None: all. What the file says of others stays.
    seeds : int, runs at each setting; they are numbered from 100, apart from the main job's
    out : where to write the JSON that the main job reads
    executor : concurrent.futures.Executor that carries out the runs, see `sweep`; None: one process a core
    report : function of a line of text

    Returns
    -------
    dict: "commands", those that made it; "chosen", method -> {"learning_rate", "dropout"}; "tried",
        method -> list of those two with "validation_accuracy", seed -> accuracy; and, not in the file,
        "failed", the runs that failed, with "error", the reason. A method with a failed run keeps its
        earlier choice, if it had one.

    Raises
    ------
    ValueError
        If an argument is unusable, or there were runs to do and none finished.
    """
    for key in methods or ():
        if key not in RATES:
            raise ValueError(f"methods: got {key!r}, expected some of {', '.join(RATES)}")
    if seeds < 1:
        raise ValueError(f"seeds: got {seeds}, expected at least 1")
    check_file(out, "out")
    empty = {"commands": [], "chosen": {}, "tried": {}}
    outcome = read_json(out) if Path(out).exists() else empty
    if not (isinstance(outcome, dict) and empty.keys() <= outcome.keys()):
        raise ValueError(f"out: {out} holds no tuning, expected a new file or one with {', '.join(empty)}")
    only = f" --methods {' '.join(methods)}" if methods else ""
    command = f"python -m lora_np tune --seeds {seeds}{only}"
    if command not in outcome["commands"]:
        outcome["commands"].append(command)
    keys, names = list(methods or RATES), [str(FIRST_SEED + seed) for seed in range(seeds)]

    before = {(key, e["learning_rate"], e["dropout"]): e for key in keys for e in outcome["tried"].get(key, ())}
    entries = {}  # (method, rate, dropout) -> what the file holds of it
    for key in keys:
        for dropout in DROPOUTS[key]:
            for rate in RATES[key]:
                new = {"learning_rate": rate, "dropout": dropout, "validation_accuracy": {}}
                entries[key, rate, dropout] = before.get((key, rate, dropout), new)
        outcome["tried"][key] = [entry for setting, entry in entries.items() if setting[0] == key]
    runs = [
        Run(key, int(name), rate, dropout=dropout, analyse=False, test=False)
        for (key, rate, dropout), entry in reversed(entries.items())  # the long runs first
        for name in names
        if name not in entry["validation_accuracy"]
    ]
    failed = []
    with closing(sweep(fine_tune_run, runs, executor)) as endings:
        for run, result, error, _ in endings:
            if error is None:
                entry = entries[run.method, run.learning_rate, run.dropout]
                entry["validation_accuracy"][str(run.seed)] = result["validation_accuracy"]
                write_json(out, outcome)
                text = f"validation {result['validation_accuracy']:.4f}"
            else:
                failed.append(asdict(run) | {"error": error})
                text = f"FAILED: {error}"
            report(f"{run.method:<14} lr {run.learning_rate:<8g} dropout {run.dropout:<4g} seed {run.seed}   {text}")
    if runs and len(failed) == len(runs):
        raise ValueError(f"none of the {len(runs)} runs finished; the first failed with {failed[0]['error']}")
    incomplete = {run["method"] for run in failed}
    for key in [key for key in keys if key not in incomplete]:
        best = max(
            outcome["tried"][key],
            key=lambda entry: np.mean([entry["validation_accuracy"][name] for name in names]),
        )
        outcome["chosen"][key] = {name: best[name] for name in ("learning_rate", "dropout")}
    outcome = outcome | {
        part: {key: outcome[part][key] for key in BY_KEY if key in outcome[part]} for part in ("chosen", "tried")
    }
    write_json(out, outcome)
    if failed:
        report(
            f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, and only them. "
            f"Until then nothing is chosen anew for {', '.join(key for key in keys if key in incomplete)}"
        )
    return outcome | {"failed": failed}
