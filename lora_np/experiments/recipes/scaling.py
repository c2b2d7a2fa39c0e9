"""The scale at high rank: α/r against α/√r.

LoRA on q and v at ranks 4 to 256 with one α = 8 and one learning rate of 0.002: only the rank varies, and with it
s = α/r or s = α/√r, which are 2 and 4 at r = 4, and 1/32 and 1/2 at r = 256. The training loss and the norm of the
gradient are compared, as means over the second half of the run.
"""

import numpy as np

from ...adapters import AdapterConfig
from ..drawing import PALETTE, log_axis, mean_line, new_figure, seeds_text
from ..evidence import check, differences
from ..methods import QUICK, QV
from ..runs.classify import ClassifyRun

CLAIM = (
    "With α/r the update learns less and less as the rank grows, so that a higher rank gains nothing; with α/√r it "
    "learns more with the rank (Kalajdzievski 2023, rsLoRA)."
)
CAPTION = (
    "Training loss by rank at one learning rate, the norm of the gradient, which shrinks with α/r, and test accuracy. "
    "In the paper, one line on the left stays level and the other falls."
)
RANKS, ALPHA, RATE = (4, 16, 64, 256), 8.0, 2e-3
NAMES = {
    "loss": "training loss, second half, in nats",
    "grad_norm": "norm of the gradient, second half",
    "accuracy": "test accuracy in %",
}
SCALES = {"α/r": False, "α/√r": True}


def runs(seeds, quick):
    """(scale, rank, seed) -> run."""
    more = QUICK if quick else {}
    return {
        (scale, r, seed): ClassifyRun(AdapterConfig(r=r, alpha=ALPHA, targets=QV, rslora=rslora), seed, RATE, **more)
        for scale, rslora in SCALES.items()
        for r in RANKS
        for seed in seeds
    }


def measure(results, runs, seeds, quick):
    measured = {scale: {name: {str(r): [] for r in RANKS} for name in NAMES} for scale in SCALES}
    for (scale, r, _), run in runs.items():
        numbers = results[run]
        for name in ("loss", "grad_norm"):
            measured[scale][name][str(r)].append(float(np.mean(numbers[name][len(numbers[name]) // 2 :])))
        measured[scale]["accuracy"][str(r)].append(100 * numbers["test_accuracy"])
    low, high = str(RANKS[0]), str(RANKS[-1])
    plain, rooted = (measured[scale]["loss"] for scale in SCALES)
    checks = [
        check("α/r: loss of r = 256 less r = 4", differences(plain[high], plain[low]), at_least=0.0, unit="nats"),
        check("α/√r: loss of r = 256 less r = 4", differences(rooted[high], rooted[low]), at_most=0.0, unit="nats"),
        check("r = 256: loss with α/√r less α/r", differences(rooted[high], plain[high]), at_most=0.0, unit="nats"),
    ]
    return {"checks": checks, "measured": measured}


def draw(outcome):
    figure = new_figure(13, 5)
    panels = figure.subplots(1, 3)
    for axes, (name, text) in zip(panels, NAMES.items()):
        for scale, colour, marker in zip(SCALES, PALETTE, "os"):
            mean_line(axes, RANKS, list(outcome["measured"][scale][name].values()), colour, f"s = {scale}", marker)
        log_axis(axes, RANKS, "rank r")
        axes.set_ylabel(text)
    panels[0].legend(fontsize=12)
    figure.suptitle(f"α = {ALPHA:g} and a learning rate of {RATE:g} at every rank ({seeds_text(outcome)})", fontsize=14)
    return figure
