"""Intruder dimensions: leading directions of a tuned weight that the base does not have, against the rank.

Of the ten leading left singular vectors of each tuned matrix, those whose cosine with every singular vector of the
base's is below ε = 0.5 are intruders. They are counted for LoRA on all linear layers at ranks 1 to 64 and for full
fine-tuning, as a mean over the matrices.
"""

import numpy as np

from ...adapters import Adapter, adapter_deltas, linear_layers
from ...analysis import max_similarities
from ..drawing import COLOURS, PALETTE, band, log_axis, mean_line, new_figure, seeds_text
from ..evidence import check, differences
from ..methods import METHODS, tuned_runs
from ..runs.classify import starting_point

CLAIM = (
    "LoRA of a low rank puts new leading directions into the weights, the intruders. Full fine-tuning has almost none, "
    "and neither has LoRA of a high rank (Shuttleworth et al. 2024)."
)
CAPTION = (
    "How many of a tuned matrix's ten leading directions the base does not have, by rank and by how strict ε is. In "
    "the paper the line falls with the rank to that of full fine-tuning."
)
RANKS = (1, 4, 16, 64)
KEYS = ("full", *(f"all_r{r}" for r in RANKS))
K, EPSILON, EPSILONS = 10, 0.5, (0.5, 0.7, 0.9)


def runs(seeds, quick):
    return tuned_runs(KEYS, seeds, quick)


def measure(results, runs, seeds, quick):
    similarity = {key: [] for key in KEYS}  # (seeds, matrices, K)
    for (key, _), run in runs.items():
        params, _, start = starting_point(run)
        trained = results.arrays(run)
        if start is None:
            tuned = {f"{module}.weight": trained[f"{module}.weight"] for module in linear_layers(params)}
        else:
            deltas = adapter_deltas(params, Adapter(start.config, trained))
            tuned = {name: params[name] + delta for name, delta in deltas.items()}
        rows = [max_similarities(params[name], after, K) for name, after in tuned.items()]
        similarity[key].append(np.round(rows, 4).tolist())
    counts = {
        f"{epsilon:g}": {key: [intruders_a_matrix(rows, epsilon) for rows in similarity[key]] for key in KEYS}
        for epsilon in EPSILONS
    }
    of = counts[f"{EPSILON:g}"]
    checks = [
        check("full fine-tuning", of["full"], at_most=0.5, unit="a matrix"),
        check("LoRA r = 1 less full fine-tuning", differences(of["all_r1"], of["full"]), at_least=0.1, unit="a matrix"),
        check("LoRA r = 64", of["all_r64"], at_most=0.5, unit="a matrix"),
        check("LoRA r = 1 less r = 64", differences(of["all_r1"], of["all_r64"]), at_least=0.1, unit="a matrix"),
    ]
    return {"checks": checks, "counts": counts, "similarity": similarity}


def intruders_a_matrix(similarities, epsilon):
    return float(np.mean(np.sum(np.less(similarities, epsilon), axis=1)))


def draw(outcome):
    figure = new_figure(13, 5.2)
    left, right = figure.subplots(1, 2)
    for epsilon, colour in zip(outcome["counts"], PALETTE):
        of = outcome["counts"][epsilon]
        rows = [of[f"all_r{r}"] for r in RANKS]
        mean_line(left, RANKS, rows, colour, f"LoRA, ε = {epsilon}")
        band(left, of["full"], colour, f"full fine-tuning, ε = {epsilon}")
    log_axis(left, RANKS, "rank r, all linear layers")
    left.set_ylabel("intruders among 10 directions, a matrix")
    left.legend(fontsize=10)
    for key, style in zip(KEYS, ("-", ":", "-.", "--", (0, (5, 1)))):
        values = np.sort(np.ravel(outcome["similarity"][key]))
        colour = COLOURS["full" if key == "full" else "lora_all"]
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        right.plot(values, share, linestyle=style, color=colour, label=METHODS[key].label, linewidth=2)
    right.set_xlabel("best cosine with a direction of the base")
    right.set_ylabel("share of the leading directions in %")
    right.set_xlim(0, 1)
    right.legend(fontsize=11)
    right.set_title("all matrices and seeds")
    figure.suptitle(f"Directions that the base does not have ({seeds_text(outcome)})", fontsize=14)
    return figure
