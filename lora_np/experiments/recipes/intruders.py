"""Intruder dimensions by rank: new leading directions in fine-tuned weights.

The intruders among the ten leading left singular vectors of a fine-tuned matrix are those whose cosine with every left
singular vector of the base's matrix is below ε = 0.5. The number of intruders is averaged over the matrices, for LoRA
on all linear layers at several ranks and for full fine-tuning.
"""

import numpy as np

from ..drawing import OTHERS, STYLES, band, colour, log_axis, mean_line, panels
from ..evidence import check, compare
from ..methods import METHODS, by_method, ranks_of
from ..updates import similarities
from . import truncation

LOW = "LoRA with a low rank adds new leading directions (intruders) to the weights. Full fine-tuning"
CLAIM = {
    "pretrained": f"{LOW} and LoRA with a high rank add almost none (Shuttleworth et al. 2024).",
    "smollm2": f"{LOW} adds almost none (Shuttleworth et al. 2024).",
}
HIGH = 64  # the lowest rank that counts as a high rank
CAPTION = """Left panel: the number of intruders among a fine-tuned matrix's ten leading directions. An intruder is a
direction whose cosine with each of the base's directions is below ε. In the paper, LoRA's line falls to that of full
fine-tuning as the rank grows. Right panel: the share of leading directions whose largest cosine with a direction of the
base is at most x."""
KEYS = truncation.KEYS
K, EPSILON, EPSILONS = 10, 0.5, (0.5, 0.7, 0.9)


def measure(results, runs, seeds, quick):
    similarity = by_method(results, runs, lambda run: results.measured(similarities, run, K))  # (seeds, matrices, K)
    counts = {}
    for epsilon in EPSILONS:
        of = {key: [intruders_a_matrix(rows, epsilon) for rows in of_key] for key, of_key in similarity.items()}
        counts[f"{epsilon:g}"] = of
    of, (*_, most) = counts[f"{EPSILON:g}"], ranks_of(similarity, "all")
    checks = [
        check("full fine-tuning: intruders", of["full"], at_most=0.5, unit="per matrix"),
        compare("LoRA r = 1 − full fine-tuning: intruders", of, "all_r1", "full", at_least=0.1, unit="per matrix"),
    ]
    text = f"LoRA r = 1 − LoRA r = {most}: intruders"
    of_most = [
        check(f"LoRA r = {most}: intruders", of[f"all_r{most}"], at_most=0.5, unit="per matrix"),
        compare(text, of, "all_r1", f"all_r{most}", at_least=0.1, unit="per matrix"),
    ]
    parts = {"checks": checks + of_most} if most >= HIGH else {"checks": checks, "asides": of_most}
    return {**parts, "counts": counts, "similarity": similarity}


def intruders_a_matrix(similarities, epsilon):
    """The average number of similarities below ε per matrix; `similarities` has the shape (matrices, K)."""
    return float(np.mean(np.sum(np.less(similarities, epsilon), axis=1)))


def draw(outcome):
    figure, (left, right) = panels(outcome, "Directions that the base does not have", 13, 5.2, 2)
    for (epsilon, of), shade in zip(outcome["counts"].items(), OTHERS):
        ranks = ranks_of(of, "all")
        mean_line(left, ranks, [of[f"all_r{r}"] for r in ranks], shade, f"LoRA, ε = {epsilon}")
        band(left, of["full"], shade, f"full fine-tuning, ε = {epsilon}")
    log_axis(left, ranks, "rank r, all linear layers")
    left.set(ylabel="intruders among 10 directions per matrix", title="intruders by rank")
    left.legend()
    for (key, values), style in zip(outcome["similarity"].items(), STYLES):
        values = np.sort(np.ravel(values))
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        right.plot(values, share, linestyle=style, color=colour(key), label=METHODS[key].label, linewidth=2)
    right.set(xlabel="x, best cosine with a direction of the base", ylabel="leading directions with at most x, in %")
    right.set(xlim=(0, 1), yscale="log", title="all matrices and seeds")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.legend()
    return figure
