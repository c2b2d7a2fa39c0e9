"""The similarity φ(i, j) of two adapters on q and v, averaged over the blocks (Hu et al. 2021, figures 3 and 4)."""

import numpy as np

from ..analysis import gaussian_similarity, product_right_directions, right_directions, similarity_table
from .drawing import new_figure
from .methods import SOME, tuned_runs
from .runs import load_base

LAYERS = ("q_proj", "v_proj")
WHAT = ("A", "ΔW")
SECOND = 1000  # added to the seed for a pair's second run, so that no run is in two pairs


def pairs(ranks, seeds, quick, base="pretrained"):
    """For each seed, make a pair of runs with LoRA on q and v, one run per rank; the second run has a different seed.

    Returns a dict, (method, seed) -> run, with the first runs of all pairs before the second runs.
    """
    on = {"base": base} | (SOME if base == "smollm2" else {})
    first = tuned_runs([f"qv_r{ranks[0]}"], seeds, quick, **on)
    return first | tuned_runs([f"qv_r{ranks[1]}"], [seed + SECOND for seed in seeds], quick, **on)


def width(runs):
    """The width C (d_model) of the runs' base, which is the dimension of a layer's input."""
    return load_base(next(iter(runs.values())).base).config.d_model


def tables_of_pairs(results, runs, ranks):
    """The φ tables of the pairs of runs, averaged over the blocks.

    "mean" contains the means over the pairs, which the figure shows, in a nested dict: "A" or "ΔW" -> layer -> table
    (r₁, r₂) as nested lists. "equal" contains φ(n, n) for each pair and each n, as nested lists (pairs, n).
    """
    adapters = [results.arrays(run) for run in runs.values()]
    trained = list(zip(adapters[: len(adapters) // 2], adapters[len(adapters) // 2 :]))
    tables = {name: {what: {} for what in WHAT} for name in ("mean", "equal")}
    for what in WHAT:
        for layer in LAYERS:
            of_pairs = np.array([mean_table(what, layer, pair, ranks) for pair in trained])  # (pairs, r₁, r₂)
            tables["mean"][what][layer] = of_pairs.mean(axis=0).round(3).tolist()
            tables["equal"][what][layer] = np.diagonal(of_pairs, axis1=1, axis2=2).tolist()
    return tables


def mean_table(what, layer, pair, ranks):
    """The table (r₁, r₂) of φ between two trained adapters of these ranks, averaged over the blocks.

    `what` is one of WHAT, and `layer` one of LAYERS. Adapters are dicts with keys like "blocks.0.attn.q_proj.lora_A".
    """

    def directions(module, arrays, r):
        A, B = arrays[f"{module}.lora_A"], arrays[f"{module}.lora_B"]
        return right_directions(A, r) if what == "A" else product_right_directions(B, A, r)

    modules = [name.removesuffix(".lora_A") for name in pair[0] if name.endswith(f".{layer}.lora_A")]
    of_blocks = [similarity_table(*(directions(module, *one) for one in zip(pair, ranks))) for module in modules]
    return np.mean(of_blocks, axis=0).round(4)


def draw_tables(outcome, rows, columns, title):
    """Plot six heat maps of means over seeds: one row each for A and ΔW, and one column each for q, v and chance."""
    mean, figure = outcome["tables"]["mean"], new_figure(13, 7.4)
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    i, j = np.indices(np.shape(mean["A"]["q_proj"])) + 1
    chance = np.vectorize(gaussian_similarity)(outcome["dimension"], i, j)
    most = max(chance.max(), *(np.max(table) for of in mean.values() for table in of.values()))
    for line, what in zip(grid, WHAT):
        shown = {f"{what}, {layer}": mean[what][layer] for layer in LAYERS} | {"random directions, expected": chance}
        for axes, (text, table) in zip(line, shown.items()):
            corners = (0.5, j.max() + 0.5, i.max() + 0.5, 0.5)  # i downwards and j to the right, from 1
            image = axes.imshow(table, vmin=0.0, vmax=most, aspect="auto", extent=corners)
            axes.set(title=text, xlabel=columns, ylabel=rows)
            axes.grid(False)
            axes.label_outer()
    figure.colorbar(image, ax=grid, label="φ(i, j)", shrink=0.8)
    n = len(outcome["seeds"])
    marks = "one pair of seeds" if n == 1 else f"mean over {n} pairs of seeds"
    figure.suptitle(f"{title}\n({marks}, and over the blocks)", fontsize=14)
    return figure
