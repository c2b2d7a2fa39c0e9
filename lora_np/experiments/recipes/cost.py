"""Memory and time by rank, predicted from shapes and measured.

A training step (forward, backward, clipping, AdamW) of the classifier on one batch of reviews: full fine-tuning, LoRA
on all linear layers at ranks 1 to 256, LoRA on q and v at r = 8, and the same on a base in NF4. Time is taken on one
thread, the methods taking turns on the same batch; a seed is a round of turns on its own batch. FLOPs are counted from
shapes, for the matrix products of the two passes, beside whose time they stand. Memory is what a step of training
holds: parameters, gradients, AdamW's moments and the activations that wait for the backward pass; and the highest
that one step really allocated on top of the parameters and the moments is measured.
"""

import tracemalloc

import numpy as np

from ...adapters import linear_layers, start_adapter
from ...analysis import step_bytes, step_flops
from ...compress import quantise
from ...data import class_batches
from ...model import add_head
from ...training import TrainConfig, blas_threads, initial_state, model_objective, stream, train_step, trainable_arrays
from ..drawing import COLOURS, PALETTE, log_axis, mean_line, new_figure
from ..evidence import check
from ..runs.base import load_base
from ..runs.sentiment import load_task
from ..step_time import Turn, take_turns
from ..tuned import QV, lora

CLAIM = (
    "LoRA holds a third of full fine-tuning's memory and trains 25 % faster (Hu et al. 2021, section 4.2); its step "
    "takes about two thirds of the FLOPs, 2N² + 6NR against 3N² (Schulman et al. 2025)."
)
CAPTION = (
    "One training step by rank, as a share of full fine-tuning's. Left: time, measured and as the FLOPs predict. "
    "Right: bytes held, counted and measured. Where the lines cross 1, LoRA saves nothing any more."
)
RANKS = (1, 4, 16, 64, 256)
QUICK_RANKS = (1, 16)


def runs(seeds, quick):
    return []


def methods(quick):
    """Name -> (adapter or None, whether the base is in NF4)."""
    of_rank = {f"all r={r}": (lora(r, "all-linear"), False) for r in (QUICK_RANKS if quick else RANKS)}
    return {"full": (None, False), "q,v r=8": (lora(8, *QV), False), "q,v r=8, NF4": (lora(8, *QV), True), **of_rank}


def measure(results, seeds, quick):
    task, (base, base_config) = load_task(), load_base()
    base, config = add_head(base, base_config, 2, stream(0, "head"))
    names = [f"{module}.weight" for module in linear_layers(base)]
    bases = {False: base, True: quantise(base, names, "nf4")}
    measured = {}
    for seed in seeds:
        rng = stream(seed, "shuffle", 0)
        batch = class_batches(task.train.sequences, task.train.labels, 32, task.pad_id, rng)[0]
        turns = {}
        for name, (adapter_config, quantised) in methods(quick).items():
            params, start = bases[quantised], None
            if adapter_config is not None:
                params, start = start_adapter(params, adapter_config, stream(seed, "adapter"))
            trainable = trainable_arrays(params, start)
            turns[name] = Turn(initial_state(trainable), model_objective(params, config, start))
            flops = sum(step_flops(config, *batch.ids.shape, adapter_config).values())
            held = step_bytes(config, *batch.ids.shape, adapter_config)
            of = measured.setdefault(name, {"flops": [], "bytes": [], "peak": [], "step": [], "passes": []})
            of["flops"].append(flops)
            counted = held.parameters + held.gradients + held.optimiser + sum(held.activations.values()) + held.loss
            parameters = sum(array.nbytes for array in {**params, **trainable}.values())
            of["bytes"].append(counted if not quantised else counted - held.parameters + parameters)
            of["peak"].append(parameters + held.optimiser + peak_of_step(turns[name], batch))
        for name, times in take_turns(turns, batch, rounds=3 if quick else 15).items():
            for what, seconds in times.items():
                measured[name][what].append(float(np.median(seconds)))
    for of in measured.values():
        of |= {f"{what}_ratio": [a / b for a, b in zip(of[what], measured["full"][what])] for what in list(of)}
    small, nf4 = measured["q,v r=8"], measured["q,v r=8, NF4"]
    predicted = [a / b for a, b in zip(small["passes_ratio"], small["flops_ratio"])]
    slower = [a / b for a, b in zip(nf4["step"], small["step"])]
    parts = [
        check("q,v r=8: bytes held, to full's", small["bytes_ratio"], at_most=1 / 3, unit="times"),
        check("q,v r=8: time of a step, to full's", small["step_ratio"], at_most=0.75, unit="times"),
        check("all linear r=1: FLOPs, to full's", measured["all r=1"]["flops_ratio"], at_most=0.7, unit="times"),
    ]
    asides = [
        check("q,v r=8: highest measured bytes, to full's", small["peak_ratio"], at_most=0.5, unit="times"),
        check("q,v r=8: time ratio of the passes, to FLOP ratio", predicted, at_most=1.2, unit="times"),
        check("q,v r=8, NF4: time of a step, to that on a float32 base", slower, at_most=1.5, unit="times"),
    ]
    return {"checks": parts, "asides": asides, "measured": measured}


def peak_of_step(turn, batch):
    """The most bytes that one step allocates at a time, gradients, activations and temporaries."""
    with blas_threads(1):
        tracemalloc.start()
        try:
            train_step(turn.state, turn.objective, batch, TrainConfig(steps=1, learning_rate=1e-6))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def draw(outcome):
    measured, figure = outcome["measured"], new_figure(13, 5.4)
    left, right = figure.subplots(1, 2)
    ranks = [int(name.removeprefix("all r=")) for name in measured if name.startswith("all")]
    marks = {
        "q,v r=8": ("q and v, r=8", "o", COLOURS["lora_qv"]),
        "q,v r=8, NF4": ("q and v, r=8, base in NF4", "^", PALETTE[3]),
    }
    lines = {
        left: {
            "step": ("whole step, measured", "-", "D"),
            "passes": ("forward and backward, measured", "--", "o"),
            "flops": ("FLOPs of the two, counted", ":", ""),
        },
        right: {"peak": ("highest, measured", "-", "D"), "bytes": ("held, counted", ":", "")},
    }
    for axes, of_panel in lines.items():
        for what, (text, style, marker) in of_panel.items():
            values = [measured[f"all r={r}"][f"{what}_ratio"] for r in ranks]
            mean_line(axes, ranks, values, COLOURS["lora_all"], f"all linear: {text}", marker, style)
        first = next(iter(of_panel))
        for name, (text, marker, colour) in marks.items():
            values = [measured[name][f"{first}_ratio"]]
            mean_line(axes, [8], values, colour, f"{text}: {of_panel[first][0]}", marker, "")
        axes.axhline(1, color=COLOURS["full"], linestyle="--", label="full fine-tuning")
        log_axis(axes, ranks, "rank r")
        axes.set_ylim(bottom=0)
    left.set_ylabel("time or FLOPs of a step, full fine-tuning = 1")
    right.set_ylabel("bytes of a step, full fine-tuning = 1")
    left.legend(fontsize=10, loc="upper left")
    right.legend(fontsize=10, loc="upper left", bbox_to_anchor=(0, 0.85))  # below the line of full fine-tuning
    n = len(outcome["seeds"])
    seconds = 1e3 * np.mean(measured["full"]["step"])
    size = np.mean(measured["full"]["bytes"]) / 1e6
    figure.suptitle(
        f"What a training step costs ({n} batches, mean and 95 % interval)\n"
        f"full fine-tuning: {seconds:.0f} ms, {size:.0f} MB",
        fontsize=14,
    )
    return figure
