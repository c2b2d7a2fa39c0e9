"""Learning rate by method and rank: where the best one lies.

Full fine-tuning and LoRA on all linear layers at ranks 1, 8 and 64, each at six learning rates a factor 2 apart, one
epoch of 4,096 snippets, from each seed. The best rate of a seed is where a parabola through the best rate's validation
loss and its two neighbours', over the logarithm of the rate, has its lowest point. The test split is not used.
"""

import numpy as np

from ..drawing import COLOURS, PALETTE, mean_line, new_figure, seeds_text
from ..evidence import check
from ..runs import ClassifyRun
from ..tuned import QUICK, lora

CLAIM = (
    "LoRA's best learning rate is about ten times full fine-tuning's, and under α/r nearly independent of the rank "
    "(Schulman et al. 2025, LoRA Without Regret)."
)
CAPTION = (
    "Validation loss against the learning rate. Compare where the curves have their lowest points: LoRA's with full "
    "fine-tuning's, and LoRA's ranks with one another."
)
RANKS = (1, 8, 64)
FULL_RATES = (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
LORA_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
RATES = {"full": FULL_RATES, **{f"r={r}": LORA_RATES for r in RANKS}}


def grid(seeds, quick):
    """(method, rate, seed) -> run."""
    more = {"epochs": 1, "examples": 4096, "evaluations": 2, "test": False}
    more |= QUICK | {"examples": None} if quick else {}
    adapters = {"full": None, **{f"r={r}": lora(r, "all-linear") for r in RANKS}}
    return {
        (key, rate, seed): ClassifyRun(adapters[key], seed, rate, **more)
        for key, rates in RATES.items()
        for rate in (rates[::3] if quick else rates)
        for seed in seeds
    }


def runs(seeds, quick):
    return list(grid(seeds, quick).values())


def measure(results, seeds, quick):
    losses = {key: {} for key in RATES}  # method -> rate -> a loss a seed
    for (key, rate, _), run in grid(seeds, quick).items():
        losses[key].setdefault(rate, []).append(results[run]["validation_loss"])
    best = {
        key: [best_rate(list(of_rate), [values[i] for values in of_rate.values()]) for i in range(len(seeds))]
        for key, of_rate in losses.items()
    }
    parts = []
    for key in list(RATES)[1:]:
        ratio = [lora / full for lora, full in zip(best[key], best["full"])]
        parts.append(check(f"best rate of {key} to full's", ratio, at_least=5.0, unit="times"))
        parts.append(check(f"best rate of {key} to full's", ratio, at_most=20.0, unit="times"))
    apart = [max(rates) / min(rates) for rates in zip(*(best[f"r={r}"] for r in RANKS))]
    parts.append(check("LoRA's highest best rate to its lowest, of three ranks", apart, at_most=4.0, unit="times"))
    losses = {key: {f"{rate:g}": values for rate, values in of_rate.items()} for key, of_rate in losses.items()}
    return {"checks": parts, "losses": losses, "best": best}


def best_rate(rates, losses):
    """Where the parabola through the best point and its neighbours, over log rate, is lowest; at an end, that end."""
    i = int(np.argmin(losses))
    if i in (0, len(rates) - 1):
        return rates[i]
    a, b, _ = np.polyfit(np.log(rates[i - 1 : i + 2]), losses[i - 1 : i + 2], 2)
    return float(np.exp(-b / (2 * a)))


def draw(outcome):
    figure = new_figure(9, 5.4)
    axes = figure.subplots()
    for key, colour in zip(outcome["losses"], (COLOURS["full"], *PALETTE[1:])):
        of_rate = outcome["losses"][key]
        label = "full fine-tuning" if key == "full" else f"LoRA on all linear layers, {key}"
        marker = "s" if key == "full" else "o"
        mean_line(axes, [float(rate) for rate in of_rate], list(of_rate.values()), colour, label, marker)
        best = np.exp(np.mean(np.log(outcome["best"][key])))
        axes.axvline(best, color=colour, linestyle=":", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xlabel("peak learning rate (dotted: the best, geometric mean over seeds)")
    axes.set_ylabel("validation loss in nats per snippet")
    axes.legend(fontsize=11)
    axes.set_title(f"Where is the best learning rate? ({seeds_text(outcome)})")
    return figure
