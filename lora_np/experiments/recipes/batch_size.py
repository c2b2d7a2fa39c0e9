"""Batch size: how much do larger batches harm LoRA and full fine-tuning?

LoRA on all linear layers at r = 16 and full fine-tuning are trained for one epoch with batches of 8, 32, 128 and 256
snippets. Each method has its own learning rate at each batch size. The runs are compared by their lowest validation
losses. A method's penalty is its loss at batch size 256 minus its loss at batch size 8. One epoch has fewer steps with
larger batches: 816 steps with batches of 8, and 26 with batches of 256.
"""

import numpy as np

from ..drawing import colour, log_axis, mean_line, panels
from ..evidence import compare
from ..methods import by_method

CLAIM = "Large batches increase LoRA's loss more than full fine-tuning's (Schulman et al. 2025, LoRA Without Regret)."
CAPTION = """Validation loss against the batch size, for one epoch of training. If the claim holds, LoRA's line rises
more than full fine-tuning's."""
SIZES = (8, 32, 128, 256)
SERIES = {"full": ("full fine-tuning", "s"), "all_r16": ("LoRA on all linear layers, r=16", "D")}
KEYS = {"pretrained": [f"{key}_batch{size}" for key in SERIES for size in SIZES]}


def measure(results, runs, seeds, quick):
    losses = by_method(results, runs, "validation_loss")
    penalty = {key: np.subtract(losses[f"{key}_batch256"], losses[f"{key}_batch8"]) for key in SERIES}
    text = "increase in loss from batch size 8 to 256: LoRA − full fine-tuning"
    more = compare(text, penalty, "all_r16", "full", at_least=0.0, unit="nats")
    return {"checks": [more], "losses": losses}


def draw(outcome):
    figure, axes = panels(outcome, "The cost of large batches", 9, 5)
    for key, (label, marker) in SERIES.items():
        losses = [outcome["losses"][f"{key}_batch{size}"] for size in SIZES]
        mean_line(axes, SIZES, losses, colour(key), label, marker)
    log_axis(axes, SIZES, "snippets per batch")
    axes.set_ylabel("validation loss in nats per snippet")
    axes.legend()
    return figure
