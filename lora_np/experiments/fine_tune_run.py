"""One run of the comparison: a method, a seed, its settings -> what was measured."""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..adapters import merge, trainable_report
from ..analysis import linear_updates, spectrum, tensor_bytes, truncated_updates
from ..formats import write_tensors
from ..training import (
    TrainConfig,
    adapter_optimiser,
    attach,
    blas_threads,
    evaluate,
    model_objective,
    stream,
    train,
    trainable_arrays,
)
from .methods import BY_KEY, starting_point
from .runs.base import load_base
from .runs.sentiment import load_task

TRUNCATION_RANKS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Run:
    """All that a run depends on.

    epochs : passes over the training snippets
    limit : at most so many snippets of each split, or None
    dropout : of the model, while training
    analyse : also measure the spectra of the update and, for full fine-tuning, its truncations
    test : read the test split; False while settings are chosen
    """

    method: str
    seed: int
    learning_rate: float
    epochs: int = 3
    limit: int | None = None
    dropout: float = 0.0
    analyse: bool = True
    test: bool = True


def fine_tune_run(run):
    """Carry out one run, on one thread.

    The batches and their order depend on the seed alone, so every method sees the same ones.

    Parameters
    ----------
    run : Run

    Returns
    -------
    dict of plain numbers and lists, ready for JSON
    """
    method, task = BY_KEY[run.method], load_task(run.limit)
    base, base_config = load_base()
    base_config = replace(base_config, dropout=run.dropout)
    params, config, adapter = starting_point(method, base, base_config, 2, run.seed)
    trainable = trainable_arrays(params, adapter)
    steps_per_epoch = len(task.epoch_batches(stream(run.seed, "shuffle", 0)))
    settings = TrainConfig(
        steps=run.epochs * steps_per_epoch,
        learning_rate=run.learning_rate,
        schedule="linear",
        warmup_steps=steps_per_epoch // 4,
        optimiser=adapter_optimiser(adapter),
        eval_every=max(1, steps_per_epoch // 2),
        select="accuracy",
        seed=run.seed,
    )

    def score(arrays, split):
        model, attached = attach(params, adapter, arrays)
        return evaluate(model, task.evaluation_batches(split), config, attached)

    started, step_ends = time.perf_counter(), []
    with blas_threads(1):
        state = train(
            trainable,
            model_objective(params, config, adapter),
            task.epoch_batches,
            settings,
            evaluate=lambda arrays: score(arrays, "validation"),
            on_step=lambda step, measured: step_ends.append(time.perf_counter()),
        )
        report = trainable_report(params, trainable)
        result = {
            "method": run.method,
            "seed": run.seed,
            "learning_rate": run.learning_rate,
            "dropout": run.dropout,
            "trainable": report.trainable,
            "total": report.total,
            "percent": report.percent,
            "validation_accuracy": float(state.history["eval_accuracy"].max()),
            "step_seconds": float(np.median(np.diff(step_ends))),
            "optimiser_bytes": tensor_bytes(state.m) + tensor_bytes(state.v),
            "saved_bytes": file_bytes(state.best),
            "history": {name: np.round(values, 6).tolist() for name, values in state.history.items()},
        }
        if run.test:
            result["test_accuracy"] = score(state.best, "test")["accuracy"]
        if run.analyse:
            model, attached = attach(params, adapter, state.best)
            merged = merge(model, attached) if attached is not None else model
            result["spectra"] = update_spectra(params, merged)
            if run.method == "full":
                result["truncation"] = {
                    str(k): score(cut, "test")["accuracy"]
                    for k, cut in truncated_updates(params, model, TRUNCATION_RANKS)
                }
    result["seconds"] = time.perf_counter() - started
    return result


def update_spectra(before, after):
    """Spectrum of each linear layer's update that is not zero, as plain lists."""
    updates = {name: update for name, update in linear_updates(before, after).items() if update.any()}
    return {
        name: {
            "singular_values": np.round(s.singular_values, 7).tolist(),
            "stable_rank": s.stable_rank,
            "effective_rank": s.effective_rank,
            "rank_90": s.rank_90,
        }
        for name, s in ((name, spectrum(update)) for name, update in updates.items())
    }


def file_bytes(tensors):
    """The size of the arrays as a safetensors file, measured on one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trained.safetensors"
        write_tensors(path, tensors)
        return path.stat().st_size
