"""What one training step costs: time measured in alternation on the same batch, FLOPs and bytes counted."""

import time
from functools import partial

import numpy as np

from ..analysis import flops_by_phase, step_bytes, step_flops
from ..data import class_batches
from ..training import TrainConfig, blas_threads, initial_state, model_objective, train_step, trainable_arrays
from .evidence import ratios
from .gallery import markdown
from .methods import METHODS, run_at
from .runs.classify import load_snippets, starting_point

KEYS = ("full", "qv_r8", "all_r8", "head")


def first_starts(keys, base="pretrained"):
    """Method -> the `starting_point` of its run from seed 0."""
    return {key: starting_point(run_at(1e-4, key, 0, base)) for key in keys}


def counted(start, shape):
    """The costs of a step, counted from shapes: phase -> matrix products' FLOPs, and `step_bytes`.

    `start` is (params, config, adapter), see `starting_point`; `shape` is (B, T), texts and tokens per text.
    """
    params, config, adapter = start
    settings = config, *shape, adapter and adapter.config, tuple(trainable_arrays(params, adapter))
    return flops_by_phase(step_flops(*settings)), step_bytes(*settings)


def compare_step_times(repeats=20, keys=KEYS, base="pretrained"):
    """Median seconds of a whole step (forward, backward, clipping, AdamW) by method, on one thread.

    The methods alternate on one batch, so that anything that slows the machine slows all of them. FLOPs count the
    matrix products of the forward and the backward pass, so the predicted ratio should be compared with the time of
    these two. The rest of the step is nearly all AdamW, whose time is proportional to the trained parameters. That is
    why LoRA's whole step is a smaller share of full fine-tuning's than its passes are.

    Parameters
    ----------
    repeats : int, timed steps of each method, after two that are not timed
    keys : of METHODS; the others are compared with the first
    base : "pretrained" or "smollm2"

    Returns
    -------
    dict, key -> {"seconds", "ratio" (to the first), "pass_ratio" (of forward and backward alone), "flops",
        "predicted_ratio" (of the FLOPs), "activation_bytes" (kept for the backward pass)}
    """
    snippets, rng = load_snippets(base=base), np.random.default_rng(0)
    batch = class_batches(*snippets.train, run_at(1e-4, keys[0], 0, base).batch_size, snippets.pad_id, rng)[0]
    starts = first_starts(keys, base)
    counts = {key: counted(start, batch.ids.shape) for key, start in starts.items()}
    flops = {key: sum(phases.values()) for key, (phases, _) in counts.items()}
    times, first = alternating_times(starts, batch, repeats), keys[0]
    return {
        key: {
            "seconds": float(np.median(times[key]["step"])),
            "ratio": float(np.median(ratios(times[key]["step"], times[first]["step"]))),
            "pass_ratio": float(np.median(ratios(times[key]["passes"], times[first]["passes"]))),
            "flops": flops[key],
            "predicted_ratio": flops[key] / flops[first],
            "activation_bytes": sum(sizes.activations.values()),
        }
        for key, (_, sizes) in counts.items()
    }


def alternating_times(starts, batch, rounds):
    """Method -> {"step": seconds of whole training steps, "passes": of their forward and backward passes}.

    In each round every method takes one step on the same batch, on one thread, after two rounds that are not timed.
    `starts` has the `starting_point` of each method.
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
    """Call a function, and append its seconds to a list."""
    started = time.perf_counter()
    result = function(*arguments)
    seconds.append(time.perf_counter() - started)
    return result


def cost_table(B=32, T=64):
    """The costs of a step of the shipped base by method, counted from shapes, on B texts of T tokens.

    Returns a table in Markdown: GFLOP of the two passes, and MB (10⁶ bytes) in memory.
    """
    rows = [["method", "forward", "backward", "ratio", "parameters", "gradients", "AdamW", "activations"]]
    counts = {key: counted(start, (B, T)) for key, start in first_starts(KEYS).items()}
    for key, (phases, sizes) in counts.items():
        ratio = sum(phases.values()) / sum(counts["full"][0].values())
        numbers = [phases["forward"] / 1e9, (phases["dx"] + phases["dweight"]) / 1e9, ratio]
        memory = [sizes.parameters, sizes.gradients, sizes.optimiser, sum(sizes.activations.values())]
        rows.append([METHODS[key].label, *(f"{n:.2f}" for n in numbers + [n / 1e6 for n in memory])])
    return "\n".join(markdown(rows))
