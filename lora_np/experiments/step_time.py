"""What one training step costs, full and LoRA: time measured in turns on the same batch, FLOPs and bytes counted."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..analysis import flops_by_phase, step_bytes, step_flops
from ..model import cache_bytes, forward
from ..training import (
    TrainConfig,
    TrainState,
    attach,
    blas_threads,
    initial_state,
    model_objective,
    train_step,
    trainable_arrays,
)
from .methods import BY_KEY, starting_point
from .runs.base import load_base
from .runs.sentiment import load_task


def compare_step_times(repeats=20, keys=("full", "lora_qv_r8", "lora_all_r8", "head")):
    """Median seconds of a whole step (forward, backward, clipping, AdamW) by method, on one thread.

    The methods take turns on one batch, so that whatever else slows the machine slows all of them. FLOPs count
    the matrix products of the forward and the backward pass, so it is the time of these two that the predicted
    ratio stands beside. The rest of the step is nearly all AdamW, whose time follows the trained parameters; that
    is why LoRA's whole step is a smaller part of full fine-tuning's than its passes are.

    Parameters
    ----------
    repeats : int, steps of each method, after two that do not count
    keys : the methods; the first is the one that the others are compared with

    Returns
    -------
    dict, key -> {"seconds", "ratio" (to the first), "pass_ratio" (of forward and backward alone), "flops",
        "predicted_ratio" (of the FLOPs), "activation_bytes" (held for the backward pass)}
    """
    task = load_task()
    base, base_config = load_base()
    batch = task.epoch_batches(np.random.default_rng(0))[0]
    turns, held, flops = {}, {}, {}
    for key in keys:
        method = BY_KEY[key]
        params, config, start = starting_point(method, base, base_config, 2, 0)
        trainable = trainable_arrays(params, start)
        turns[key] = Turn(initial_state(trainable), model_objective(params, config, start))
        model, adapter = attach(params, start, trainable)
        _, cache = forward(model, batch.ids, config, lengths=batch.lengths, adapter=adapter, wanted=tuple(trainable))
        held[key] = cache_bytes(cache)
        flops[key] = sum(step_flops(config, *batch.ids.shape, method.adapter, tuple(trainable)).values())
    times = take_turns(turns, batch, repeats)

    def ratio_to_first(key, what):
        return float(np.median(np.array(times[key][what]) / np.array(times[keys[0]][what])))

    return {
        key: {
            "seconds": float(np.median(times[key]["step"])),
            "ratio": ratio_to_first(key, "step"),
            "pass_ratio": ratio_to_first(key, "passes"),
            "flops": flops[key],
            "predicted_ratio": flops[key] / flops[keys[0]],
            "activation_bytes": held[key],
        }
        for key in keys
    }


class Turn(NamedTuple):
    """One of the methods that take turns."""

    state: TrainState
    objective: Callable


def take_turns(turns, batch, rounds):
    """Seconds of training steps, on one thread, after two rounds that do not count.

    Parameters
    ----------
    turns : dict, method -> Turn, whose state is used up
    batch : the batch of every step
    rounds : int, in each of which every method makes one step

    Returns
    -------
    dict, method -> {"step": list of seconds of whole steps, "passes": of their forward and backward passes}
    """
    settings = TrainConfig(steps=rounds + 2, learning_rate=1e-4)
    states = {key: turn.state for key, turn in turns.items()}
    times = {key: {"step": [], "passes": []} for key in turns}
    objectives = {key: timed(turn.objective, times[key]["passes"]) for key, turn in turns.items()}
    with blas_threads(1):
        for _ in range(rounds + 2):
            for key in turns:
                started = time.perf_counter()
                states[key], _ = train_step(states[key], objectives[key], batch, settings)
                times[key]["step"].append(time.perf_counter() - started)
    return {key: {what: seconds[2:] for what, seconds in of.items()} for key, of in times.items()}


def timed(objective, seconds):
    """The same objective, which notes the seconds of each call in a list."""

    def run(*arguments):
        started = time.perf_counter()
        result = objective(*arguments)
        seconds.append(time.perf_counter() - started)
        return result

    return run


def cost_table(B=32, T=64, keys=("full", "lora_qv_r8", "lora_all_r8", "head")):
    """What a step of the shipped base costs by method, counted from shapes; a table in Markdown.

    Parameters
    ----------
    B, T : int, texts and tokens a text
    keys : the methods

    Returns
    -------
    str; GFLOP of the two passes, and MB (10⁶ bytes) of what is held
    """
    base, base_config = load_base()
    lines = ["| method | forward | backward | ratio | parameters | gradients | AdamW | activations |"]
    lines.append("|---|" + "---:|" * 7)
    for key in keys:
        method = BY_KEY[key]
        params, config, start = starting_point(method, base, base_config, 2, 0)
        wanted = tuple(trainable_arrays(params, start))
        phases = flops_by_phase(step_flops(config, B, T, method.adapter, wanted))
        held = step_bytes(config, B, T, method.adapter, wanted)
        if key == keys[0]:
            first = sum(phases.values())
        gflop = [phases["forward"] / 1e9, (phases["dx"] + phases["dweight"]) / 1e9]
        size = [held.parameters, held.gradients, held.optimiser, sum(held.activations.values())]
        cells = [method.label, *(f"{n:.2f}" for n in gflop), f"{sum(phases.values()) / first:.2f}"]
        lines.append("| " + " | ".join(cells + [f"{n / 1e6:.2f}" for n in size]) + " |")
    return "\n".join(lines)
