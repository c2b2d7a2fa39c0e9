"""The scale at high rank: α/r or α/√r?

LoRA on q and v is trained at ranks 4 to 256 with α = 8 and a learning rate of 0.002. Only the rank varies, and with it
the scale: α/r falls from 2 to 1/32, and α/√r from 4 to 1/2. The runs are compared by their mean training loss
and mean gradient norm over the second half of training.
"""

import numpy as np

from ...adapters import AdapterConfig
from ..drawing import OTHERS, log_axis, mean_line, panels
from ..evidence import check, compare
from ..methods import QUICK, QV, by_method
from ..runs.classify import ClassifyRun

CLAIM = """With α/r, the adapter learns less as the rank grows, so that a higher rank gains nothing; with α/√r, it
learns more (Kalajdzievski 2023, rsLoRA)."""
CAPTION = """Training loss, gradient norm and test accuracy against the rank, at one learning rate. With s = α/r, the
gradient shrinks as the rank grows. In the paper, the line for α/r in the left panel is flat, and the line for α/√r
falls."""
RANKS, ALPHA, RATE = (4, 16, 64, 256), 8.0, 2e-3
NAMES = {
    "loss": "training loss, second half, in nats",
    "grad_norm": "norm of the gradient, second half",
    "accuracy": "test accuracy in %",
}
SCALES = {"α/r": False, "α/√r": True}


def runs(seeds, quick, base="pretrained"):
    """A dict, (scale, rank, seed) -> run."""
    more = QUICK if quick else {}
    return {
        (scale, r, seed): ClassifyRun(AdapterConfig(r=r, alpha=ALPHA, targets=QV, rslora=rslora), seed, RATE, **more)
        for scale, rslora in SCALES.items()
        for r in RANKS
        for seed in seeds
    }


def measure(results, runs, seeds, quick):
    def second_half(name):
        return by_method(results, runs, lambda run: float(np.mean(results[run][name][len(results[run][name]) // 2 :])))

    tables = {name: second_half(name) for name in ("loss", "grad_norm")}
    tables["accuracy"] = by_method(results, runs, "test_accuracy", 100)
    plain, rooted = (tables["loss"][scale] for scale in SCALES)
    by_scale = np.subtract(rooted["256"], plain["256"])
    checks = [
        compare("s = α/r: training loss, r = 256 − r = 4", plain, "256", "4", at_least=0.0, unit="nats"),
        compare("s = α/√r: training loss, r = 256 − r = 4", rooted, "256", "4", at_most=0.0, unit="nats"),
        check("r = 256: training loss, s = α/√r − s = α/r", by_scale, at_most=0.0, unit="nats"),
    ]
    return {"checks": checks, "measured": {scale: {name: tables[name][scale] for name in NAMES} for scale in SCALES}}


def draw(outcome):
    figure, three = panels(outcome, f"α = {ALPHA:g} and a learning rate of {RATE:g} at every rank", 13, 5, 3)
    for axes, (name, text) in zip(three, NAMES.items()):
        for scale, colour, marker in zip(SCALES, OTHERS, "os"):
            mean_line(axes, RANKS, list(outcome["measured"][scale][name].values()), colour, f"s = {scale}", marker)
        log_axis(axes, RANKS, "rank r")
        axes.set_ylabel(text)
    three[0].legend()
    return figure
