"""Is DoRA better than LoRA, if each has its own learning rate?

LoRA, DoRA, rsLoRA, LoRA+ and PiSSA adapt q and v at r = 8; the main comparison is between DoRA and LoRA. At a
single rank, rsLoRA is LoRA with a different α. On SmolLM2, rsLoRA is omitted, and training uses 2,000 snippets. Two
quantities are compared: the test accuracy, and the mean training loss in the first quarter of the run, which shows how
fast a variant learns initially."""

import numpy as np

from ..design import Design, Recipe, accuracies, accuracy
from ..drawing import OTHERS, dots, panels
from ..evidence import minus
from ..methods import SOME, label
from ..tables import by_method, means_of, score_table, scores
from .rank_sweep import PILOT

LORA = "qv_r8"
CLAIMED = {"lora+": "more", "pissa": "more"}


def measure(results, runs, seeds, quick):
    losses = by_method(results, runs, "loss")
    early = {key: [float(np.mean(loss[: max(1, len(loss) // 4)])) for loss in of_key] for key, of_key in losses.items()}
    return scores(results, runs, seeds, quick) | {"early_loss": early}


def conclude(outcome):
    (_, *keys), mean = outcome["accuracy"], means_of(outcome["accuracy"])
    pairs = [(key, LORA, CLAIMED.get(key)) for key in keys if key != "dora"]
    faster = Design("PiSSA − LoRA: training loss in the first quarter", 0.02, "nats", "less")
    early = np.subtract(outcome["early_loss"]["pissa"], outcome["early_loss"][LORA])
    leads = ", ".join(f"{label(key)} {minus(mean[key] - mean[LORA], '+.2f')}" for key in keys)
    finding = f"Compared with LoRA's {mean[LORA]:.1f} %, in points: {leads}."
    return accuracy(outcome, "dora", LORA), [*accuracies(outcome, pairs), (faster, early)], finding


def draw(outcome):
    accuracies, early, trained = outcome["accuracy"], outcome["early_loss"], outcome["trainable"]
    of_lora = f"{trained[LORA]:,} parameters, {np.mean(accuracies[LORA]):.1f} %\n"
    figure, (left, right) = panels(outcome, f"Variants and LoRA r=8 on q and v: {of_lora}", 13, 4.6, 2, sharey=True)
    for axes, table, unit in (
        (left, accuracies, "test accuracy − LoRA's, in points"),
        (right, early, "training loss in the first quarter − LoRA's, in nats"),
    ):
        differences = {key: np.subtract(values, table[LORA]) for key, values in table.items() if key != LORA}
        dots(axes, [(f"{label(key)} ({trained[key]:,})", of, OTHERS[3]) for key, of in differences.items()], unit)
        axes.axvline(0, color="black", linewidth=1)
    return figure


RECIPE = Recipe(
    claim="""At equal rank, DoRA (Liu et al. 2024), PiSSA (Meng et al. 2024) and LoRA+ (Hayou et al. 2024) are more
    accurate than LoRA, and PiSSA's loss initially falls faster than LoRA's.""",
    design=Design("DoRA − LoRA: test accuracy", expected="more", scatter=0.79, pilot=PILOT),
    keys={"minilm": (LORA, "dora", "rslora", "lora+", "pissa"), "smollm2": (LORA, "lora+", "dora", "pissa")},
    on={"minilm": {"keep": False}, "smollm2": SOME | {"keep": False}},
    table=score_table,
    caption="""The difference between each variant and LoRA, for each seed; LoRA is the line at 0. Left panel: test
    accuracy (higher, further right, is better). Right panel: training loss in the first quarter (lower, further left,
    is better). The numbers of trainable parameters are in parentheses.""",
)
