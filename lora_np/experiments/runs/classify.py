"""A run of the laboratory: the base taught to tell good reviews from bad, by one method, from one seed."""

import time
from dataclasses import dataclass

import numpy as np

from ...adapters import AdapterConfig, linear_layers, start_adapter, trainable_report
from ...compress import held_bytes, prune_magnitude, prune_n_of_m, quantise
from ...data import class_batches
from ...model import add_head
from ...training import (
    TrainConfig,
    adapter_optimiser,
    allocating,
    attach,
    blas_threads,
    evaluate,
    model_objective,
    settled_from,
    stream,
    train,
    trainable_arrays,
)
from .base import load_base
from .sentiment import load_task

BASES = ("dense", "nf4", "int8", "pruned 50 %", "pruned 2:4")
LOSS_POINTS = 50  # the training loss is noted as the means of so many parts of the run


@dataclass(frozen=True)
class ClassifyRun:
    """All that a run depends on.

    Parameters
    ----------
    adapter : AdapterConfig, or None to train the whole model
    seed : int; the batches and the head at the start depend on it alone, so every method sees the same
    learning_rate : float, the peak
    epochs : int, passes over the training snippets
    batch_size : int
    examples : int, how many training snippets there are, drawn by the seed; None: all
    base : one of BASES, what is done to the linear layers before training
    evaluations : int, along the way; the best of them by validation loss is what is tested
    test : bool, read the test split; False while learning rates are chosen
    keep : bool, whether the trained arrays are a part of the result
    limit : int, at most so many snippets of each split, for a quick look; None: all
    """

    adapter: AdapterConfig | None
    seed: int
    learning_rate: float
    epochs: int = 1
    batch_size: int = 32
    examples: int | None = None
    base: str = "dense"
    evaluations: int = 2
    test: bool = True
    keep: bool = False
    limit: int | None = None

    def __post_init__(self):
        if self.base not in BASES:
            raise ValueError(f"base: got {self.base!r}, expected one of {', '.join(BASES)}")


def compressed(params, base):
    """A model whose linear layers are quantised or pruned.

    Parameters
    ----------
    params : dict
    base : one of BASES

    Returns
    -------
    dict; "dense" gives params itself
    """
    names = [f"{module}.weight" for module in linear_layers(params)]
    if base in ("nf4", "int8"):
        return quantise(params, names, base)
    if base == "pruned 50 %":
        return {**params, **{name: prune_magnitude(params[name], 0.5) for name in names}}
    if base == "pruned 2:4":
        return {**params, **{name: prune_n_of_m(params[name]) for name in names}}
    return params


def starting_point(run):
    """The model, and the adapter that is trained, at step 0.

    Returns
    -------
    params : dict of the classifier's weights
    config : its ModelConfig
    adapter : Adapter, or None
    """
    params, config = load_base()
    params, config = add_head(compressed(params, run.base), config, 2, stream(run.seed, "head"))
    if run.adapter is None:
        return params, config, None
    params, adapter = start_adapter(params, run.adapter, stream(run.seed, "adapter"))
    return params, config, adapter


def score(params, adapter, config, task, split):
    """Loss and accuracy of a model on "validation" or "test"."""
    return evaluate(params, task.evaluation_batches(split), config, adapter)


def training_rows(run, n):
    """Which of the n snippets are trained on."""
    if run.examples is None:
        return np.arange(n)
    if run.examples > n:
        raise ValueError(f"examples: got {run.examples}, expected at most {n}")
    return stream(run.seed, "sample").permutation(n)[: run.examples]


def classify_run(run):
    """Carry out one run, on one thread.

    Parameters
    ----------
    run : ClassifyRun

    Returns
    -------
    numbers : dict; losses in nats per snippet. Of a run whose loss was no longer finite: "validation_loss" None,
        "diverged", what was said, and little else
    arrays : dict, what was trained, at the best evaluation; empty unless run.keep
    """
    started, task = time.perf_counter(), load_task(run.limit)
    params, config, adapter = starting_point(run)
    rows = training_rows(run, len(task.train.labels))
    sequences, labels = [task.train.sequences[row] for row in rows], task.train.labels[rows]

    def epoch_batches(rng):
        return class_batches(sequences, labels, run.batch_size, task.pad_id, rng)

    steps = run.epochs * len(epoch_batches(stream(run.seed, "shuffle", 0)))
    settings = TrainConfig(
        steps=steps,
        learning_rate=run.learning_rate,
        warmup_steps=steps // 10,
        optimiser=adapter_optimiser(adapter),
        eval_every=max(1, steps // run.evaluations),
        select="loss",
        select_from=settled_from(adapter, steps),
        seed=run.seed,
    )
    objective, adjust = allocating(model_objective(params, config, adapter), adapter, steps)

    def scores(arrays):
        model, attached = attach(params, adapter, arrays)
        return score(model, attached, config, task, "validation")

    with blas_threads(1):
        trainable = trainable_arrays(params, adapter)
        try:
            state = train(trainable, objective, epoch_batches, settings, scores, adjust=adjust)
        except FloatingPointError as error:
            seconds = time.perf_counter() - started
            return {"validation_loss": None, "diverged": str(error), "steps": steps, "seconds": seconds}, {}
        may_be_best = state.history["eval_step"] >= settings.select_from
        model, attached = attach(params, adapter, state.best)
        report = trainable_report(params, trainable)
        numbers = {
            "trainable": report.trainable,
            "percent": report.percent,
            "steps": steps,
            "base_bytes": held_bytes(params),
            "validation_loss": float(state.history["eval_loss"][may_be_best].min()),
            "loss": [round(float(part.mean()), 5) for part in parts(state.history["loss"])],
            "grad_norm": [round(float(part.mean()), 6) for part in parts(state.history["grad_norm"])],
            "evaluations": {
                name: np.round(state.history[f"eval_{name}"], 6).tolist() for name in ("step", "loss", "accuracy")
            },
        }
        if run.test:
            found = score(model, attached, config, task, "test")
            numbers |= {"test_accuracy": found["accuracy"], "test_loss": found["loss"]}
    numbers["seconds"] = time.perf_counter() - started
    return numbers, dict(state.best) if run.keep else {}


def parts(values):
    """A series in at most LOSS_POINTS parts of nearly equal length."""
    return np.array_split(values, min(LOSS_POINTS, len(values)))
