"""Variants of LoRA on q and v, each at its own learning rate.

LoRA, rsLoRA, LoRA+, DoRA, PiSSA and OLoRA have r = 8. LoRA-FA trains only B and has r = 16, so that it trains as many
parameters as LoRA. AdaLoRA starts at r = 12 and prunes a third of its directions. VeRA, which trains only vectors, has
r = 256. At a single rank, rsLoRA is LoRA with a different α. SmolLM2 is trained only with the variants that the claim
names, on 2,000 snippets. Two quantities are compared: the test accuracy, and the mean training loss in the first
quarter of the run, which shows how fast a variant learns initially.
"""

import numpy as np

from ..drawing import OTHERS, dots, panels
from ..evidence import ahead, compare
from ..methods import METHODS, SOME, by_method

CLAIM = """At equal rank, DoRA (Liu et al. 2024), PiSSA (Meng et al. 2024) and LoRA+ (Hayou et al. 2024) are more
accurate than LoRA, and PiSSA's loss initially falls faster than LoRA's."""
CAPTION = """The difference between each variant and LoRA, for each seed; LoRA is the line at 0. Left panel: test
accuracy (higher, further right, is better). Right panel: training loss in the first quarter (lower, further left, is
better); AdaLoRA's is omitted because it includes a penalty. The numbers of trainable parameters are in parentheses."""
ON = {"smollm2": SOME | {"keep": False}}
KEYS = {
    "pretrained": ("lora", "rslora", "lora+", "lora-fa", "dora", "pissa", "olora", "adalora", "vera"),
    "smollm2": ("lora", "lora+", "dora", "pissa"),
}


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    losses = by_method(results, runs, "loss")
    early = {key: [float(np.mean(loss[: max(1, len(loss) // 4)])) for loss in of_key] for key, of_key in losses.items()}
    text = "{} − LoRA: test accuracy"
    checks = [ahead(text.format(METHODS[key].label), accuracy, key, "lora") for key in ("dora", "pissa", "lora+")]
    faster = {"at_most": 0.0, "unit": "nats"}
    checks.append(compare("PiSSA − LoRA: training loss in the first quarter", early, "pissa", "lora", **faster))
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in accuracy}
    return {"checks": checks, "accuracy": accuracy, "early_loss": early, "trainable": trained}


def draw(outcome):
    accuracy, early, trained = outcome["accuracy"], outcome["early_loss"], outcome["trainable"]
    of_lora = f"{trained['lora']:,} parameters, {np.mean(accuracy['lora']):.1f} %\n"
    figure, (left, right) = panels(outcome, f"Variants and LoRA r=8 on q and v: {of_lora}", 13, 5.2, 2, sharey=True)
    others = list(accuracy)[1:]
    labels = [f"{METHODS[key].label} ({trained[key]:,})" for key in others]
    better = [np.subtract(accuracy[key], accuracy["lora"]) for key in others]
    dots(left, labels, better, OTHERS[3], "test accuracy − LoRA's, in points")
    # AdaLoRA's loss includes a penalty that keeps its factors orthonormal.
    faster = [[np.nan] if key == "adalora" else np.subtract(early[key], early["lora"]) for key in others]
    dots(right, labels, faster, OTHERS[3], "training loss in the first quarter − LoRA's, in nats")
    for axes in (left, right):
        axes.axvline(0, color="black", linewidth=1)
    return figure
