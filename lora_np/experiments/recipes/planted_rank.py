"""Can LoRA of rank r learn a change of rank k?

The student is a small random transformer. The teacher is a copy in which a matrix of rank k, with k equal singular
values, is added to one weight. At ranks r from 1 to 12, LoRA on that weight is trained for 400 steps to reproduce the
teacher's logits. The recovered rank is the smallest r for which the loss on held-out texts is below 1/1000 of the loss
without an adapter.
"""

import numpy as np

from ..design import Design, Recipe
from ..drawing import OTHERS, mean_line, panels
from ..runs.planted import PlantedRun
from ..tables import by_method

PLANTED, RANKS = (1, 2, 4, 8), tuple(range(1, 13))
FOUND_BELOW = 1e-3


def runs(seeds, quick, base="pretrained"):
    """A dict, (k, r, seed) -> run."""
    planted, ranks = (PLANTED[:2], RANKS[:4]) if quick else (PLANTED, RANKS)
    return {(k, r, seed): PlantedRun(k, r, seed) for k in planted for r in ranks for seed in seeds}


def measure(results, runs, seeds, quick):
    # k -> r -> list of the loss / the loss without an adapter, one per seed.
    share = by_method(results, runs, lambda run: results[run]["test_loss"] / results[run]["base_loss"])
    ranks_found = {
        k: [next((int(r) for r in of_rank if of_rank[r][i] < FOUND_BELOW), None) for i in range(len(seeds))]
        for k, of_rank in share.items()
    }
    return {"share": share, "found": ranks_found}


def conclude(outcome):
    from scipy.stats import binomtest

    # For each seed, |recovered rank − k|, averaged over k; if no rank is recovered, 2 max(RANKS) takes its place.
    most, recovered = 2 * max(RANKS), {int(k): ranks for k, ranks in outcome["found"].items()}
    errors = np.mean([[abs((most if r is None else r) - k) for r in ranks] for k, ranks in recovered.items()], axis=0)
    exact = [r == k for k, ranks in recovered.items() for r in ranks]
    low, high = (100 * end for end in binomtest(sum(exact), len(exact)).proportion_ci())
    finding = (
        f"LoRA recovers the planted rank exactly in {sum(exact)} of {len(exact)} cases (95 % interval of the share: "
        f"{low:.0f} to {high:.0f} %)."
    )
    return errors, [], finding


def draw(outcome):
    figure, axes = panels(outcome, "The loss drops where the ranks meet", 9, 5.2)
    for (k, of_rank), colour in zip(outcome["share"].items(), OTHERS):
        mean_line(axes, of_rank, colour, f"k = {k}", log=True)
        axes.axvline(int(k), color=colour, linestyle=":", linewidth=1.5)
    axes.axhline(FOUND_BELOW, color="black", linewidth=0.8)
    axes.annotate("counts as learned", (12, FOUND_BELOW), xytext=(0, 4), textcoords="offset points", ha="right")
    axes.set(yscale="log", xlabel="LoRA's rank r", ylabel="loss / loss without adapter, geometric mean")
    axes.legend(title="planted rank")
    return figure


RECIPE = Recipe(
    claim="LoRA can learn an update of rank k only if its own rank is at least k: the loss drops at r = k.",
    design=Design("distance of the recovered rank from the planted one", 0.5, "ranks", expected="equal"),
    bases=("pretrained",),
    caption="""The loss on held-out texts against LoRA's rank, for four planted ranks. Each line falls slightly for r <
    k, and drops to nearly zero at r = k (the dotted line of the same colour).""",
)
