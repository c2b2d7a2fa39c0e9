"""How much higher is LoRA's best learning rate than full fine-tuning's?

Full fine-tuning and LoRA on all linear layers are trained on 2,000 snippets at learning rates that are a factor of 2
apart, with every seed. For each seed, a parabola in the logarithm of the rate is fitted to the lowest validation loss
and to the losses at the two neighbouring rates; its minimum is at the best rate. The test set is not used. On SmolLM2,
the rank is 4 instead of 8, and the runs are those of `tune`, plus runs at one more rate.
"""

import numpy as np

from ..design import Recipe, over_seeds, ratio
from ..drawing import colour, legend_below, marker, mean_line, panels
from ..evidence import mean_ratio
from ..methods import SOME, TUNE_SEED, label, run_at
from ..tables import by_method

TRIED = {  # base -> method -> learning rates
    "minilm": {"full": (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4), "all_r8": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)},
    "smollm2": {"full": (1e-4, 2e-4, 4e-4), "all_r4": (5e-4, 1e-3, 2e-3, 4e-3)},
}
FIRST_SEED = {"minilm": 0, "smollm2": TUNE_SEED}


def runs(seeds, quick, base="minilm"):
    """A dict, (method, rate, seed) -> run."""
    return {
        (key, rate, seed): run_at(rate, key, FIRST_SEED[base] + seed, base, quick, test=False, **SOME)
        for key, rates in TRIED[base].items()
        for rate in (rates[:: len(rates) // 2] if quick else rates)
        for seed in seeds
    }


def measure(results, runs, seeds, quick):
    # Method -> rate -> one loss per seed, None where training diverged.
    losses, best, at_an_end = by_method(results, runs, results.validation_loss), {}, {}
    for key, of_rate in losses.items():
        of_seeds = [best_rate(list(map(float, of_rate)), of_seed) for of_seed in zip(*of_rate.values())]
        best[key], at_an_end[key] = [rate for rate, _ in of_seeds], sum(end for _, end in of_seeds)
    return {"losses": losses, "best": best, "at_an_end": at_an_end}


def conclude(outcome):
    (_, full), (key, lora) = outcome["best"].items()
    ratios, beyond = np.divide(lora, full), sum(outcome["at_an_end"].values())
    finding = (
        f"The best learning rate of {label(key)} is {mean_ratio(ratios):.2g} times that of full fine-tuning."
        + f" (In {beyond} cases, it was the lowest or highest rate that was tried.)" * bool(beyond)
    )
    outside = "the best rate may be outside the range that was tried" * bool(beyond)
    return over_seeds(outcome, ratios) | {"undecided": outside}, [], finding


def best_rate(rates, losses):
    """Return the best rate, estimated from the losses at ascending rates, and whether it is the first or the last.

    The estimate is the rate at the minimum of the parabola in log(rate) through the best point and its neighbours. If
    the lowest loss is at the first or last rate, or next to a run that diverged (whose loss is None), the tried rate
    with the lowest loss is returned instead.
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
    figure, axes = panels(outcome, "Where is the best learning rate?\n", 9, 5.6)
    for key, of_rate in outcome["losses"].items():
        finite = {rate: losses for rate, losses in of_rate.items() if None not in losses}
        mean_line(axes, finite, colour(key), label(key), marker(key))
    best = {key: mean_ratio(rates) for key, rates in outcome["best"].items()}
    for key, rate in best.items():
        axes.axvline(rate, color=colour(key), linestyle=":", linewidth=1.5)
    full, lora = best.values()
    in_axes = axes.get_xaxis_transform()  # x in data, y as a share of the panel's height
    axes.annotate("", (full, 0.9), (lora, 0.9), in_axes, arrowprops={"arrowstyle": "<->"})
    axes.text(np.sqrt(full * lora), 0.92, f"{lora / full:.2g} times", transform=in_axes, ha="center")
    axes.set(xscale="log", xlabel="peak learning rate (dotted: the best, geometric mean over seeds)")
    axes.set_ylabel("validation loss in nats per snippet")
    legend_below(figure, axes, 2)
    return figure


RECIPE = Recipe(
    claim="""LoRA's best learning rate is about ten times that of full fine-tuning (Schulman et al. 2025, LoRA Without
    Regret; for runs as short as these, about 15 times).""",
    design={
        base: ratio(f"LoRA all linear r={r} / full fine-tuning: best learning rate", (5, 20))
        for base, r in (("minilm", 8), ("smollm2", 4))
    },
    bases=tuple(TRIED),
    caption="""Validation loss against the learning rate, and the best rate of each method as a dotted line (the
    geometric mean over the seeds). The distance between the dotted lines is the ratio of the best rates.""",
)
