"""Does LoRA of rank 1 add leading directions that the base does not have (intruders)?

The intruders among the ten leading left singular vectors of a fine-tuned matrix are those whose cosine with every left
singular vector of the base's matrix is below ε = 0.5. The number of intruders is averaged over the matrices, for LoRA
on all linear layers at several ranks and for full fine-tuning.
"""

import numpy as np

from ..design import Design, Recipe
from ..drawing import STYLES, band, colour, log_axis, marker, mean_line, panels, plain_numbers
from ..methods import by_rank, label
from ..tables import by_method, means_of
from ..updates import similarities
from . import truncation

K, EPSILON, EPSILONS = 10, 0.5, (0.5, 0.7, 0.9)
MARGIN, UNIT = 0.1, "intruders per matrix"


def measure(results, runs, seeds, quick):
    similarity = by_method(results, runs, lambda run: similarities(results, run, K))  # (seeds, matrices, K)
    counts = {
        f"{epsilon:g}": {key: [intruders_a_matrix(rows, epsilon) for rows in of] for key, of in similarity.items()}
        for epsilon in EPSILONS
    }
    return {"counts": counts, "similarity": similarity}


def conclude(outcome):
    of = outcome["counts"][f"{EPSILON:g}"]
    *_, most = by_rank(of, "all")
    mean, highest = means_of(of), f"all_r{most}"
    falls = Design(f"LoRA r = {most} − LoRA r = 1: intruders", MARGIN, UNIT, "less")
    none = Design("full fine-tuning: intruders", MARGIN, UNIT, "equal")
    finding = (
        f"Of the ten leading directions of a matrix, {mean['full']:.2g} are intruders after full fine-tuning, "
        f"{mean['all_r1']:.2g} with LoRA of rank 1, and {mean[highest]:.2g} with LoRA of rank {most}."
    )
    others = [(falls, np.subtract(of[highest], of["all_r1"])), (none, of["full"])]
    return np.subtract(of["all_r1"], of["full"]), others, finding


def intruders_a_matrix(similarities, epsilon):
    """The average number of similarities below ε per matrix; `similarities` has the shape (matrices, K)."""
    return float(np.mean(np.sum(np.less(similarities, epsilon), axis=1)))


def draw(outcome):
    figure, (left, right) = panels(outcome, "Directions that the base does not have", 13, 5.2, 2)
    of = outcome["counts"][f"{EPSILON:g}"]
    of_ranks = by_rank(of, "all")
    mean_line(left, of_ranks, colour("all_r1"), "LoRA on all linear layers", marker("all_r1"))
    band(left, of["full"], colour("full"), "full fine-tuning")
    log_axis(left, of_ranks, "rank r, all linear layers")
    left.set(ylabel="intruders among 10 directions per matrix", title="intruders by rank")
    left.legend()
    for (key, values), style in zip(outcome["similarity"].items(), STYLES):
        values = np.sort(np.ravel(values))
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        right.plot(values, share, linestyle=style, color=colour(key), label=label(key), linewidth=2)
    right.set(xlabel="x, best cosine with a direction of the base", ylabel="leading directions with at most x, in %")
    right.set(xlim=(0, 1), yscale="log", title="all matrices and seeds")
    plain_numbers(right.yaxis)
    right.legend()
    return figure


RECIPE = Recipe(
    claim="""LoRA with a low rank adds new leading directions (intruders) to the weights. Full fine-tuning and LoRA with
    a high rank add almost none (Shuttleworth et al. 2024).""",
    design=Design("LoRA r = 1 − full fine-tuning: intruders", MARGIN, UNIT, "more"),
    keys=truncation.KEYS,
    on=truncation.RECIPE.on,
    caption="""Left panel: the number of intruders among a fine-tuned matrix's ten leading directions. An intruder is a
    direction whose cosine with each of the base's directions is below ε. In the paper, LoRA's line falls to that of
    full fine-tuning as the rank grows. Right panel: the share of leading directions whose largest cosine with a
    direction of the base is at most x.""",
)
