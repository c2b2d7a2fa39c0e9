"""Batch size: what LoRA and full fine-tuning lose when the batches grow.

LoRA on all linear layers at r = 16 and full fine-tuning, one pass in batches of 8, 32, 128 and 256, each with its own
learning rate. The best validation losses are compared. A method's penalty is its loss at 256 less its loss at 8. One
pass takes fewer steps in larger batches: 816 of 8 snippets, 26 of 256.
"""

from ..drawing import colour, log_axis, mean_line, panels
from ..evidence import compare, differences
from ..methods import by_method

CLAIM = "LoRA pays more for large batches than full fine-tuning does (Schulman et al. 2025, LoRA Without Regret)."
CAPTION = (
    "Validation loss against the batch size, after one pass. The claim is that LoRA's line rises more to the right "
    "than full fine-tuning's."
)
SIZES = (8, 32, 128, 256)
KEYS = {"pretrained": [f"{key}_batch{size}" for key in ("full", "all_r16") for size in SIZES]}


def measure(results, runs, seeds, quick):
    losses = by_method(results, runs, "validation_loss")
    penalty = {key: differences(losses[f"{key}_batch256"], losses[f"{key}_batch8"]) for key in ("full", "all_r16")}
    more = compare("penalty of LoRA less full's", penalty, "all_r16", "full", at_least=0.0, unit="nats")
    return {"checks": [more], "losses": losses}


def draw(outcome):
    figure, axes = panels(outcome, "What large batches cost", 9, 5)
    for key, label, marker in (("full", "full fine-tuning", "s"), ("all_r16", "LoRA on all linear layers, r=16", "D")):
        losses = [outcome["losses"][f"{key}_batch{size}"] for size in SIZES]
        mean_line(axes, SIZES, losses, colour(key), label, marker)
    log_axis(axes, SIZES, "snippets in a batch")
    axes.set_ylabel("validation loss in nats per snippet")
    axes.legend()
    return figure
