"""Does DPO make preferred texts more probable?

The small base completes the first four tokens of snippets, four times each; of the four texts, the one with the highest
reward is preferred to the one with the lowest (the reward is that of the experiment on rewards). Full fine-tuning and
LoRA of rank 8 on all linear layers learn from 80, 400 or 2,000 such pairs with DPO (β = 0.1, 125 steps of 16 pairs),
each at the best of three learning rates for each seed, and at the best of five steps, by the loss on 200 validation
pairs. They are tested on 200 other pairs."""

import numpy as np

from ..design import Design, Recipe
from ..drawing import COLOURS, legend_below, log_axis, mean_line, panels
from ..evidence import minus
from ..runs.preferences import PreferenceRun
from ..tables import at_best_rate, by_method

RATES = {"full": (5e-5, 1e-4, 2e-4), "lora_r8": (5e-4, 1e-3, 2e-3)}
LABELS = {"full": ("full fine-tuning", COLOURS["full"]), "lora_r8": ("LoRA r=8", COLOURS["lora_all"])}
PAIRS = (80, 400, 2000)
FIELDS = {"in_order": 100, "preferred": 1, "rejected": 1, "test_loss": 1}


def runs(seeds, quick, base="pretrained"):
    """A dict, (method, pairs, rate, seed) -> run."""
    more = {"steps": 5} if quick else {}
    return {
        (method, n, rate, seed): PreferenceRun(method, n, seed, rate, **more)
        for seed in seeds
        for n in (PAIRS[:1] if quick else PAIRS)
        for method, rates in RATES.items()
        for rate in (rates[:1] if quick else rates)
    }


def measure(results, runs, seeds, quick):
    """Field -> method -> number of pairs -> values, one per seed, each at the best rate by validation loss."""
    tables = {field: {method: {} for method in RATES} for field in FIELDS}
    for method, of_numbers in by_method(results, runs, lambda run: results[run]).items():
        for n, of_rates in of_numbers.items():
            best = at_best_rate(of_rates)
            for field, factor in FIELDS.items():
                tables[field][method][n] = [factor * value for value in best[field]]
    return tables


def conclude(outcome):
    n, in_order = list(outcome["in_order"]["full"]), outcome["in_order"]["lora_r8"]
    fewest, most = n[0], n[-1]
    of_methods = Design(f"{int(most):,} pairs, LoRA − full: test pairs in the right order", 2.0)
    of_numbers = Design(f"LoRA, {int(most):,} − {fewest} pairs: test pairs in the right order", 2.0)
    others = [
        (of_methods, np.subtract(in_order[most], outcome["in_order"]["full"][most])),
        (of_numbers, np.subtract(in_order[most], in_order[fewest])),
    ]
    preferred, rejected = (outcome[field]["lora_r8"][most] for field in ("preferred", "rejected"))
    shares = [f"{np.mean(values):.0f} % with {int(n):,}" for n, values in in_order.items()]
    finding = (
        f"DPO changes the log probability of preferred texts by {minus(np.mean(preferred), '+.1f')} nats, and of "
        f"rejected texts by {minus(np.mean(rejected), '+.1f')}. LoRA orders unseen pairs correctly in "
        f"{', '.join(shares)} pairs."
    )
    return preferred, others, finding


def draw(outcome):
    figure, (left, right) = panels(outcome, "DPO from 80 to 2,000 pairs", 12, 5.2, 2)
    for method, (label, colour) in LABELS.items():
        mean_line(left, outcome["in_order"][method], colour, label)
        for field, marker, style in (("preferred", "o", "-"), ("rejected", "v", "--")):
            mean_line(right, outcome[field][method], colour, f"{label}: {field}", marker, style)
    for axes in (left, right):
        log_axis(axes, PAIRS, "training pairs")
    right.axhline(0, color="black", linewidth=0.8)
    left.set_ylabel("test pairs in the right order, %")
    right.set_ylabel("change of the log probability, nats per text")
    legend_below(figure, right, 4)
    return figure


RECIPE = Recipe(
    claim="""DPO can make preferred texts less probable, because its loss depends only on their difference from the
    rejected ones (Pal et al. 2024, Smaug).""",
    design=Design("2,000 pairs, LoRA r=8: change of preferred texts' log probability", 1.0, "nats", "less"),
    bases=("pretrained",),
    limits="One reward, which orders the pairs without errors, and short texts that the base wrote itself.",
    caption="""Left panel: the share of unseen pairs in which the preferred text gained more, against the number of
    training pairs. Right panel: how much the log probabilities of both texts changed; a text below zero has become less
    probable.""",
)
