"""The cost of one training step: its time, measured on the same batch for all methods, and its FLOPs and bytes."""

import time
from functools import partial

import numpy as np

from ..analysis import step_bytes, step_flops
from ..data import class_batches
from ..training import TrainConfig, blas_threads, initial_state, model_objective, train_step, trainable_arrays
from .methods import run_at
from .runs.classify import load_snippets, starting_point


def counted(start, shape):
    """The cost of a step, computed from shapes: the FLOPs of the matrix products, and the bytes as `StepBytes`.

    `start` is (params, config, adapter) from `starting_point`; `shape` is (B, T), for B texts of T tokens each.
    """
    params, config, adapter = start
    settings = config, *shape, adapter and adapter.config, tuple(trainable_arrays(params, adapter))
    return sum(step_flops(*settings).values()), step_bytes(*settings)


def compare_step_times(repeats=20, keys=("full", "qv_r8", "all_r8", "head"), base="pretrained"):
    """Measure the median time of each method's entire step (forward, backward, clipping, AdamW) on one thread.

    The methods alternate on one batch, so that anything that slows the machine affects all of them. FLOPs are counted
    for the matrix products of the forward and backward passes, so compare "predicted_ratio" with "pass_ratio". AdamW
    accounts for nearly all of the remaining time, which is proportional to the number of trainable parameters; this is
    why LoRA's "ratio" is lower than its "pass_ratio".

    Parameters
    ----------
    repeats : int, number of timed steps of each method, after two untimed ones
    keys : sequence of keys of METHODS; ratios are relative to the first
    base : "pretrained", "minilm" or "smollm2"

    Returns
    -------
    dict, key -> {"seconds", "ratio" (of step times), "pass_ratio" (of the times of the forward and backward passes),
        "flops", "predicted_ratio" (of FLOPs), "activation_bytes" (stored for the backward pass)}
    """
    snippets, rng = load_snippets(base=base), np.random.default_rng(0)
    batch = class_batches(*snippets.train, run_at(1e-4, keys[0], 0, base).batch_size, snippets.pad_id, rng)[0]
    starts, costs = {key: starting_point(run_at(1e-4, key, 0, base)) for key in keys}, {}
    times = alternating_times(starts, batch, repeats)
    first = times[keys[0]]
    for key, start in starts.items():
        flops, sizes = counted(start, batch.ids.shape)
        costs[key] = {
            "seconds": float(np.median(times[key]["step"])),
            "ratio": float(np.median(np.divide(times[key]["step"], first["step"]))),
            "pass_ratio": float(np.median(np.divide(times[key]["passes"], first["passes"]))),
            "flops": flops,
            "activation_bytes": sum(sizes.activations.values()),
        }
        costs[key]["predicted_ratio"] = costs[key]["flops"] / costs[keys[0]]["flops"]
    return costs


def alternating_times(starts, batch, rounds):
    """Measure the step times, in seconds, of several methods that alternate on one thread.

    In each round, every method takes one step on the same batch; the first two rounds are not timed. `starts` is a
    dict, method -> result of `starting_point`. Returns a dict, method -> {"step": times of the entire steps, "passes":
    times of their forward and backward passes}.
    """
    settings = TrainConfig(steps=rounds + 2, learning_rate=1e-4)
    states = {key: initial_state(trainable_arrays(params, adapter)) for key, (params, _, adapter) in starts.items()}
    times = {key: {"step": [], "passes": []} for key in starts}
    objectives = {key: partial(timed, times[key]["passes"], model_objective(*start)) for key, start in starts.items()}
    with blas_threads(1):
        for _ in range(rounds + 2):
            for key in starts:
                states[key], _ = timed(times[key]["step"], train_step, states[key], objectives[key], batch, settings)
    return {key: {what: seconds[2:] for what, seconds in of.items()} for key, of in times.items()}


def timed(seconds, function, *arguments):
    """Call a function, append its running time to the list `seconds`, and return its result."""
    started = time.perf_counter()
    result = function(*arguments)
    seconds.append(time.perf_counter() - started)
    return result
