"""The cost of one training step: its time, measured on the same batch for all methods, and its FLOPs and bytes."""

import time
from functools import partial

import numpy as np

from ..analysis import step_bytes, step_flops
from ..data import class_batches
from ..training import TrainConfig, blas_threads, initial_state, model_objective, train_step, trainable_arrays
from .methods import run_at
from .runs.classify import load_snippets, starting_point


def compare_step_times(repeats=20, keys=("full", "qv_r8", "all_r8", "head"), base="pretrained"):
    """Compare the `step_costs` of several methods, given by their keys in METHODS, on one base and one batch."""
    snippets, rng = load_snippets(base=base), np.random.default_rng(0)
    batch = class_batches(*snippets.train, run_at(1e-4, keys[0], 0, base).batch_size, snippets.pad_id, rng)[0]
    return step_costs({key: starting_point(run_at(1e-4, key, 0, base)) for key in keys}, batch, repeats)


def step_costs(starts, batch, rounds):
    """Measure the entire step (forward, backward, clipping, AdamW) of several methods on one thread.

    In each round, every method takes one step on the batch, so that anything that slows the machine affects all of
    them. FLOPs are counted for the matrix products of the forward and backward passes. Nearly all of a step's time
    outside these two passes is spent in AdamW, and is proportional to the number of trainable parameters.

    Parameters
    ----------
    starts : dict, name -> (params, config, adapter) as from `starting_point`; ratios are relative to the first
    batch : Batch
    rounds : int, number of timed rounds, after two untimed ones

    Returns
    -------
    dict, name -> {"seconds" and "pass_seconds" (medians of the step, and of the forward and backward passes), "ratio"
        (median of the step's), "flops", "activation_bytes" (stored for the backward pass), "kept_bytes" (of the
        parameters and AdamW's moments), "bytes" (these, the activations, and the gradients)}
    """
    costs, times = {}, alternating_times(starts, batch, rounds)
    first, _ = times[next(iter(starts))]
    for name, (params, config, adapter) in starts.items():
        trainable = trainable_arrays(params, adapter)
        settings = config, *batch.ids.shape, adapter and adapter.config, tuple(trainable)
        sizes, (step, passes) = step_bytes(*settings), times[name]
        activations = sum(sizes.activations.values())
        kept = sum(array.nbytes for array in {**params, **trainable}.values()) + sizes.optimiser
        costs[name] = {
            "seconds": float(np.median(step)),
            "pass_seconds": float(np.median(passes)),
            "ratio": float(np.median(np.divide(step, first))),
            "flops": sum(step_flops(*settings).values()),
            "activation_bytes": activations,
            "kept_bytes": kept,
            "bytes": kept + sizes.gradients + activations + sizes.loss,
        }
    return costs


def alternating_times(starts, batch, rounds):
    """Time the rounds of `step_costs`; return a dict, name -> (seconds of each step, seconds of its two passes)."""
    settings = TrainConfig(steps=rounds + 2, learning_rate=1e-4)
    states = {name: initial_state(trainable_arrays(params, adapter)) for name, (params, _, adapter) in starts.items()}
    times = {name: ([], []) for name in starts}
    objectives = {name: partial(timed, times[name][1], model_objective(*start)) for name, start in starts.items()}
    with blas_threads(1):
        for _ in range(rounds + 2):
            for name in starts:
                states[name], _ = timed(times[name][0], train_step, states[name], objectives[name], batch, settings)
    return {name: (step[2:], passes[2:]) for name, (step, passes) in times.items()}


def timed(seconds, function, *arguments):
    """Call a function, append its running time to the list `seconds`, and return its result."""
    started = time.perf_counter()
    result = function(*arguments)
    seconds.append(time.perf_counter() - started)
    return result
