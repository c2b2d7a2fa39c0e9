"""φ(i, j) between two adapters of q and v, averaged over the blocks, as in figures 3 and 4 of the paper."""

import numpy as np

from ..analysis import gaussian_similarity, product_right_directions, right_directions, similarity_table
from .drawing import new_figure
from .methods import tuned_runs

LAYERS = ("q_proj", "v_proj")
WHAT = ("A", "ΔW")
SECOND = 1000  # added to the seed of a pair's second run: no run is in two pairs


def pairs(ranks, seeds, quick):
    """Two runs on q and v from different seeds, of the two ranks, for each seed; (method, seed) -> run."""
    first = tuned_runs([f"qv_r{ranks[0]}"], seeds, quick)
    return first | tuned_runs([f"qv_r{ranks[1]}"], [seed + SECOND for seed in seeds], quick)


def mean_tables(first, second, ranks):
    """φ tables of two trained adapters.

    Parameters
    ----------
    first, second : dicts of their arrays, "blocks.0.attn.q_proj.lora_A" and so on
    ranks : (r of the first, r of the second)

    Returns
    -------
    dict: "A" and "ΔW", each a dict of layer -> table (r₁, r₂) as nested lists
    """

    def directions(what, arrays, r, module):
        A, B = arrays[f"{module}.lora_A"], arrays[f"{module}.lora_B"]
        return right_directions(A, r) if what == "A" else product_right_directions(B, A, r)

    def mean_table(what, layer):
        modules = [name.removesuffix(".lora_A") for name in first if name.endswith(f".{layer}.lora_A")]
        of_blocks = [
            similarity_table(*(directions(what, arrays, r, module) for arrays, r in zip((first, second), ranks)))
            for module in modules
        ]
        return np.round(np.mean(of_blocks, axis=0), 4).tolist()

    return {what: {layer: mean_table(what, layer) for layer in LAYERS} for what in WHAT}


def tables_of_pairs(results, runs, ranks, seeds):
    """`over_pairs` of the runs of `pairs`."""
    first, second = (f"qv_r{r}" for r in ranks)
    of_seeds = [(runs[first, seed], runs[second, seed + SECOND]) for seed in seeds]
    return over_pairs([mean_tables(*map(results.arrays, pair), ranks) for pair in of_seeds])


def over_pairs(tables):
    """The mean table, which the figure shows, and φ(n, n) of each pair for every n.

    Parameters
    ----------
    tables : list of what `mean_tables` gives, one a pair

    Returns
    -------
    dict: "mean", of the same form as one of `tables`; "equal", the same with a list (pairs, n) for each table
    """

    def collect(function):
        return {what: {layer: function([t[what][layer] for t in tables]) for layer in LAYERS} for what in WHAT}

    return {
        "mean": collect(lambda of_pairs: np.round(np.mean(of_pairs, axis=0), 3).tolist()),
        "equal": collect(lambda of_pairs: [np.diagonal(table).tolist() for table in of_pairs]),
    }


def draw_tables(outcome, rows, columns, title):
    """Six heat maps, means over seeds: A above ΔW; q, v and the control from left to right."""
    mean, figure = outcome["tables"]["mean"], new_figure(13, 7.4)
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    i, j = np.indices(np.shape(mean["A"]["q_proj"])) + 1
    chance = np.vectorize(gaussian_similarity)(outcome["dimension"], i, j)
    for line, what in zip(grid, WHAT):
        shown = {f"{what}, {layer}": mean[what][layer] for layer in LAYERS} | {"random directions, expected": chance}
        for axes, (text, table) in zip(line, shown.items()):
            corners = (0.5, j.max() + 0.5, i.max() + 0.5, 0.5)  # i downwards and j to the right, counted from 1
            image = axes.imshow(table, vmin=0.0, vmax=1.0, aspect="auto", extent=corners)
            axes.set(title=text, xlabel=columns, ylabel=rows)
            axes.grid(False)
            axes.label_outer()
    figure.colorbar(image, ax=grid, label="φ(i, j)", shrink=0.8)
    n = len(outcome["seeds"])
    marks = "one pair of seeds" if n == 1 else f"mean over {n} pairs of seeds"
    figure.suptitle(f"{title}\n({marks}, and over the blocks)", fontsize=14)
    return figure
