"""The best learning rate: how does it depend on the method and the rank?

On the small base, full fine-tuning and LoRA on all linear layers at ranks 1, 8 and 64 with a fixed α = 32 (s = 32/r)
are trained for one epoch on 2,048 snippets. For every seed, six or seven learning rates, a factor of 2 apart, are
tried. On SmolLM2, full fine-tuning and LoRA on all linear layers at r = 4 with α = 2r are trained on 2,000 snippets at
the rates that `tune` tried; `tune`'s runs are reused. LoRA is also trained at one more rate. For each seed, a parabola
in the logarithm of the rate is fitted to the lowest validation loss and its two neighbours. The best rate is at the
parabola's minimum. The test split is not used.
"""

import numpy as np

from ...adapters import AdapterConfig
from ..drawing import COLOURS, legend_below, mean_line, panels
from ..evidence import UNKNOWN, check
from ..methods import ALL, ON_BASE, SOME, TUNE_SEED, lora, shortened
from ..runs.classify import ClassifyRun

SOURCE = "(Schulman et al. 2025, LoRA Without Regret)."
TEN_TIMES = "LoRA's best learning rate is about ten times that of full fine-tuning"
CLAIM = {
    "pretrained": f"{TEN_TIMES}, and with s = α/r it is nearly independent of the rank {SOURCE}",
    "smollm2": f"{TEN_TIMES} {SOURCE}",
}
LOOK = """Validation loss against the learning rate. Compare the positions of the curves' lowest points{}. For runs as
short as these, the paper reports a factor of about 15."""
AND = " for LoRA and for full fine-tuning, and for the different ranks of LoRA"
CAPTION = {"pretrained": LOOK.format(AND), "smollm2": LOOK.format("")}
RANKS, ALPHA = (1, 8, 64), 32.0
FULL_RATES = (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
LORA_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
OF_RANK = {f"r={r}": (AdapterConfig(r=r, alpha=ALPHA, targets=(ALL,)), LORA_RATES) for r in RANKS}
TRIED = {  # base -> name -> the adapter's configuration or None, and the rates
    "pretrained": {"full": (None, FULL_RATES), **OF_RANK},
    # The rates that `tune` tried, and one more for rank 4.
    "smollm2": {"full": (None, (1e-4, 2e-4, 4e-4)), "r=4": (lora(4, ALL), (5e-4, 1e-3, 2e-3, 4e-3))},
}
FIELDS = {"pretrained": (0, {"examples": 2048}), "smollm2": (TUNE_SEED, SOME)}  # base -> first seed, fields of the runs
BASES = tuple(TRIED)


def runs(seeds, quick, base="pretrained"):
    """A dict, (method, rate, seed) -> run."""
    first, more = FIELDS[base]
    more = more | ON_BASE[base] | {"test": False}
    more = shortened(more, base) if quick else more
    return {
        (key, rate, seed): ClassifyRun(adapter, first + seed, rate, **more)
        for key, (adapter, rates) in TRIED[base].items()
        for rate in (rates[:: len(rates) // 2] if quick else rates)
        for seed in seeds
    }


def measure(results, runs, seeds, quick):
    losses = {}  # method -> rate -> one loss per seed, None where training diverged
    for (key, rate, _), run in runs.items():
        losses.setdefault(key, {}).setdefault(f"{rate:g}", []).append(results.validation_loss(run))
    best, at_an_end = {}, {}
    for key, of_rate in losses.items():
        rates = [float(rate) for rate in of_rate]
        of_seeds = [best_rate(rates, of_seed) for of_seed in zip(*of_rate.values())]
        best[key], at_an_end[key] = [rate for rate, _ in of_seeds], sum(end for _, end in of_seeds)
    text = "LoRA {} / full fine-tuning: best learning rate"
    bounds = [(key, "full", text.format(key), 5.0, 20.0) for key in losses if key != "full"]
    if "r=64" in losses:
        bounds.append(("r=64", "r=1", "LoRA r=64 / LoRA r=1: best learning rate", 0.5, 2.0))
    checks = []
    for first, second, text, least, most in bounds:
        ratio, beyond = np.divide(best[first], best[second]), at_an_end[first] + at_an_end[second]
        statement = text + f" (in {beyond} cases, the lowest or highest rate that was tried)" * bool(beyond)
        for bound in ({"at_least": least}, {"at_most": most}):
            part = check(statement, ratio, unit="times", **bound)
            # The true best rate may be outside the range that was tried.
            checks.append(part | {"verdict": UNKNOWN} if beyond else part)
    return {"checks": checks, "losses": losses, "best": best, "at_an_end": at_an_end}


def best_rate(rates, losses):
    """Estimate the best rate from the losses at ascending rates; also return whether it is the first or the last.

    The estimate is the rate at the minimum of the parabola in log(rate) through the best point and its neighbours. If
    the best rate is the first or the last, or next to a rate at which training diverged (whose loss is None), it is
    returned unchanged.
    """
    losses = [np.inf if loss is None else loss for loss in losses]
    i = int(np.argmin(losses))
    if i in (0, len(rates) - 1):
        return rates[i], True
    if not np.all(np.isfinite(losses[i - 1 : i + 2])):
        return rates[i], False
    a, b, _ = np.polyfit(np.log(rates[i - 1 : i + 2]), losses[i - 1 : i + 2], 2)
    return float(np.exp(-b / (2 * a))), False


def draw(outcome):
    alpha = f"α = {ALPHA:g}" if "r=64" in outcome["losses"] else "α = 2r"
    figure, axes = panels(outcome, f"Where is the best learning rate? LoRA with {alpha}\n", 9, 6)
    for key, style in zip(outcome["losses"], ("-", "-", "--", "-.")):  # dotted lines are the best rates
        colour = COLOURS["full" if key == "full" else "lora_all"]
        of_rate = {float(rate): v for rate, v in outcome["losses"][key].items() if None not in v}
        label, marker = ("full fine-tuning", "s") if key == "full" else (f"LoRA on all linear layers, {key}", "o")
        mean_line(axes, list(of_rate), list(of_rate.values()), colour, label, marker, style)
        axes.axvline(np.exp(np.mean(np.log(outcome["best"][key]))), color=colour, linestyle=":", linewidth=1.5)
    axes.set(xscale="log", xlabel="peak learning rate (dotted: the best, geometric mean over seeds)")
    axes.set_ylabel("validation loss in nats per snippet")
    legend_below(figure, axes, 2)
    return figure
