"""What does LoRA save in a training step: how much time, and how much memory?

The classifier is trained for one step (forward, backward, clipping, AdamW) on one batch of reviews, with full
fine-tuning, with LoRA on all linear layers at ranks 1 to 256, and with LoRA on q and v at r = 8; the last is also
measured on the NF4 base. Times are measured on one thread, in 15 rounds in which all methods take turns on the same
batch; each seed has a different batch. FLOPs are counted from the shapes of the matrix products in both passes. The
memory counted from shapes is that of the parameters, the gradients, AdamW's moments and the activations stored for the
backward pass. The measured memory is that of the parameters and the moments, plus the peak of a step's allocations.
"""

import tracemalloc

import numpy as np

from ...training import TrainConfig, blas_threads, initial_state, model_objective, stream, train_step, trainable_arrays
from ..design import Recipe, ratio
from ..drawing import COLOURS, log_axis, mean_line, panels
from ..methods import QV, lora
from ..runs.classify import ClassifyRun, load_snippets, starting_point
from ..step_time import step_costs
from ..tables import gathered

RANKS = (1, 4, 16, 64, 256)
QUICK_RANKS = (1, 16)
LINES = {  # panel -> lines over the ranks: key, label, line style, marker; the first key is also drawn for MARK
    "time or FLOPs": [("step", "whole step, measured", "-", "D"), ("flops", "FLOPs of both passes, counted", ":", "")],
    "bytes": [("peak", "peak, measured", "-", "D"), ("bytes", "stored, counted", ":", "")],
}
MARK = "q,v r=8", "q and v, r=8", "o", COLOURS["lora_qv"]


def methods(quick):
    """A dict, name -> (adapter's configuration or None, weight format)."""
    of_rank = {f"all r={r}": (lora(r, "all-linear"), "dense") for r in (QUICK_RANKS if quick else RANKS)}
    small = lora(8, *QV)
    return {"full": (None, "dense"), "q,v r=8": (small, "dense"), "q,v r=8, NF4": (small, "nf4"), **of_rank}


def measure(results, runs, seeds, quick):
    measured = gathered([costs_on_batch(seed, quick) for seed in seeds])
    for of in measured.values():
        of |= {f"{what}_ratio": np.divide(of[what], measured["full"][what]).tolist() for what in list(of)}
    return {"measured": measured}


def costs_on_batch(seed, quick):
    """A dict, method -> the costs of a step on the seed's first batch."""
    batch = load_snippets().epoch_batches(stream(seed, "shuffle", 0))[0]
    starts = {
        name: starting_point(ClassifyRun(adapter_config, seed, 1e-4, weights=weights))
        for name, (adapter_config, weights) in methods(quick).items()
    }
    costs = {}
    for name, cost in step_costs(starts, batch, rounds=3 if quick else 15).items():
        peak = cost["kept_bytes"] + peak_of_step(starts[name], batch)
        times = {"step": cost["seconds"], "passes": cost["pass_seconds"]}
        costs[name] = {"flops": cost["flops"], "bytes": cost["bytes"], "peak": peak, **times}
    return costs


def conclude(outcome):
    small, nf4, low = (outcome["measured"][name] for name in ("q,v r=8", "q,v r=8, NF4", "all r=1"))
    text = "LoRA q,v r=8 / full fine-tuning"
    others = [
        (ratio(f"{text}: memory, counted from shapes", (None, 1 / 3)), small["bytes_ratio"]),
        (ratio(f"{text}: measured peak memory"), small["peak_ratio"]),
        (ratio("LoRA all linear r=1 / full fine-tuning: FLOPs", (None, 0.7)), low["flops_ratio"]),
        (ratio(f"{text}: time per FLOP of both passes"), np.divide(small["passes_ratio"], small["flops_ratio"])),
        (ratio("LoRA q,v r=8, NF4 base / float32 base: time per step"), np.divide(nf4["step"], small["step"])),
    ]
    step, memory, peak = (100 * np.mean(small[f"{what}_ratio"]) for what in ("step", "bytes", "peak"))
    finding = (
        f"A step of LoRA on q and v (r = 8) takes {step:.0f} % of the time of full fine-tuning, and {memory:.0f} % of "
        f"its memory as counted from shapes ({peak:.0f} % as measured)."
    )
    return small["step_ratio"], others, finding


def peak_of_step(start, batch):
    """The peak number of bytes that a step allocates for gradients, activations and temporary arrays."""
    params, _, adapter = start
    state, objective = initial_state(trainable_arrays(params, adapter)), model_objective(*start)
    with blas_threads(1):
        tracemalloc.start()
        try:
            train_step(state, objective, batch, TrainConfig(steps=1, learning_rate=1e-6))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def draw(outcome):
    measured = outcome["measured"]
    full = f"{1e3 * np.mean(measured['full']['step']):.0f} ms, {np.mean(measured['full']['bytes']) / 1e6:.0f} MB"
    figure, (left, right) = panels(outcome, f"A training step (full fine-tuning: {full})", 13, 5.4, 2)
    ranks = [int(name.removeprefix("all r=")) for name in measured if name.startswith("all")]
    for axes, (quantity, lines) in zip((left, right), LINES.items()):
        for what, text, style, marker in lines:
            values = {r: measured[f"all r={r}"][f"{what}_ratio"] for r in ranks}
            mean_line(axes, values, COLOURS["lora_all"], f"all linear: {text}", marker, style, log=True)
        what, text, *_ = lines[0]
        name, label, marker, colour = MARK
        mean_line(axes, {8: measured[name][f"{what}_ratio"]}, colour, f"{label}: {text}", marker, "", log=True)
        axes.axhline(1, color=COLOURS["full"], linestyle="--", label="full fine-tuning")
        log_axis(axes, ranks, "rank r")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{quantity} of a step, full fine-tuning = 1")
    left.legend(fontsize=10, loc="upper left")
    right.legend(fontsize=10, loc="upper left", bbox_to_anchor=(0, 0.85))  # below full fine-tuning's line
    return figure


RECIPE = Recipe(
    claim="""LoRA needs a third of full fine-tuning's memory and trains 25 % faster (Hu et al. 2021, section 4.2). A
    LoRA step takes about two thirds of the FLOPs of full fine-tuning: 2C² + 6Cr instead of 3C² for a C × C matrix
    (Schulman et al. 2025).""",
    design=ratio("LoRA q,v r=8 / full fine-tuning: time per step", (None, 0.75)),
    keys={"pretrained": ()},  # nothing is trained
    caption="""The cost of a training step by rank, relative to full fine-tuning. Left panel: time, measured and
    predicted from FLOPs. Right panel: memory, counted from shapes and measured. Where a line is above 1, LoRA saves
    nothing.""",
)
