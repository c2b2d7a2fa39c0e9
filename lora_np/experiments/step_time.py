"""What one training step costs, full and LoRA: time measured in turns on the same batch, FLOPs and bytes counted."""

import time

import numpy as np

from ..analysis import flops_by_phase, step_bytes, step_flops
from ..model import cache_bytes, forward
from ..training import (
    TrainConfig,
    attach,
    blas_threads,
    initial_state,
    model_objective,
    train_step,
    trainable_arrays,
)
from .fine_tune_run import load_base
from .methods import BY_KEY, starting_point
from .sentiment import load_task


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
    settings = TrainConfig(steps=repeats + 2, learning_rate=1e-4)
    states, objectives, held, flops = {}, {}, {}, {}
    seconds, pass_seconds = {key: [] for key in keys}, {key: [] for key in keys}
    for key in keys:
        method = BY_KEY[key]
        params, config, start = starting_point(method, base, base_config, 2, 0)
        trainable = trainable_arrays(params, start)
        states[key] = initial_state(trainable)
        objectives[key] = timed(model_objective(params, config, start), pass_seconds[key])
        model, adapter = attach(params, start, trainable)
        _, cache = forward(
            model, batch.ids, config, lengths=batch.lengths, adapter=adapter, wanted=tuple(trainable)
        )
        held[key] = cache_bytes(cache)
        flops[key] = sum(step_flops(config, *batch.ids.shape, method.adapter, tuple(trainable)).values())
    with blas_threads(1):
        for _ in range(repeats + 2):
            for key in keys:
                started = time.perf_counter()
                states[key], _ = train_step(states[key], objectives[key], batch, settings)
                seconds[key].append(time.perf_counter() - started)

    def ratio_to_first(times, key):
        return float(np.median(np.array(times[key][2:]) / np.array(times[keys[0]][2:])))

    return {
        key: {
            "seconds": float(np.median(seconds[key][2:])),
            "ratio": ratio_to_first(seconds, key),
            "pass_ratio": ratio_to_first(pass_seconds, key),
            "flops": flops[key],
            "predicted_ratio": flops[key] / flops[keys[0]],
            "activation_bytes": held[key],
        }
        for key in keys
    }


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
