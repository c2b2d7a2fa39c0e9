"""Do r = 8 and r = 64 learn the same leading direction?

φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j) compares the i leading right singular vectors U_i of one adapter with the j leading
ones, V_j, of another, on q and v, as a mean over the blocks. φ is computed for A, as in the paper, and for the update
ΔW = s B A. Either the ranks of the two adapters are 8 and 64, or both are 64. Their seeds always differ, because with
the same seed, the first rows of A in the first layer would be identical at the start. The control is the expected φ of
two random subspaces, max(i, j)/C. On SmolLM2, training uses 2,000 snippets.
"""

import numpy as np

from ...analysis import gaussian_similarity, product_right_directions, right_directions, similarity_table
from ...tasks.pictures import new_figure
from ..design import Design, Recipe, ratio
from ..methods import SOME, tuned_runs
from ..runs import load_base

LAYERS, WHAT = ("q_proj", "v_proj"), ("A", "ΔW")
PAIRS = {"ranks": (8, 64), "seeds": (64, 64)}
FAR = 1000  # on SmolLM2, the seed of a pair's second run is higher by this number
SHOWN = 8  # directions that two seeds are compared by


def partner(seed, seeds, base):
    """The seed of a pair's second run: on SmolLM2, `seed` + FAR; otherwise, the next one in `seeds`, cyclically."""
    return seed + FAR if base == "smollm2" else seeds[(seeds.index(seed) + 1) % len(seeds)] if seeds[1:] else seed + 1


def runs(seeds, quick, base="minilm"):
    """A dict, (method, seed) -> run."""
    on = {"base": base} | (SOME if base == "smollm2" else {})
    all_seeds = sorted({*seeds, *(partner(seed, seeds, base) for seed in seeds)})
    return tuned_runs(["qv_r8"], seeds, quick, **on) | tuned_runs(["qv_r64"], all_seeds, quick, **on)


def measure(results, runs, seeds, quick):
    base, tables = next(iter(runs.values())).base, {}
    apart = seeds[: len(seeds) // 2 * 2 or 1 : 2]  # seeds whose pairs have no run in common
    for name, (first, second) in PAIRS.items():
        pairs = []
        for seed in seeds if name == "ranks" or base == "smollm2" else apart:
            keys = (f"qv_r{first}", seed), (f"qv_r{second}", partner(seed, seeds, base))
            pairs.append([results.arrays(runs[key]) for key in keys])
        tables[name] = {"mean": {what: {} for what in WHAT}, "equal": {what: {} for what in WHAT}}
        for what in WHAT:
            for layer in LAYERS:
                of_pairs = np.array([mean_table(what, layer, pair, (first, second)) for pair in pairs])
                tables[name]["mean"][what][layer] = of_pairs.mean(axis=0).round(3).tolist()
                # φ(n, n) for each pair and each n, as nested lists (pairs, n).
                tables[name]["equal"][what][layer] = np.diagonal(of_pairs, axis1=1, axis2=2).tolist()
    return {"tables": tables, "dimension": load_base(base).config.d_model}


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


def overlap(outcome, name, what, layers, n):
    """φ(n, n) of each pair, averaged over some layers."""
    of_layer = outcome["tables"][name]["equal"][what]
    return np.mean([[of_pair[n - 1] for of_pair in of_layer[layer]] for layer in layers], axis=0)


def conclude(outcome):
    def of_ranks(what, n):
        return overlap(outcome, "ranks", what, LAYERS, n)

    others = [
        (Design(f"φ({n}, {n}) of {what}, r = 8 and r = 64, minus 0.5", 0.1, "", expected), of_ranks(what, n) - 0.5)
        for n, what, expected in ((1, "ΔW", "more"), (8, "A", "less"), (8, "ΔW", "less"))
    ]
    chance = gaussian_similarity(outcome["dimension"], SHOWN, SHOWN)
    for layer in LAYERS:
        text = f"φ({SHOWN}, {SHOWN}) of ΔW in {layer}, two seeds at r = 64 / the value expected by chance"
        others.append((ratio(text, (1, None)), overlap(outcome, "seeds", "ΔW", (layer,), SHOWN) / chance))
    finding = (
        f"The leading direction of A at rank 8 and that at rank 64 overlap with φ = {of_ranks('A', 1).mean():.2f} (the "
        f"eight leading ones: {of_ranks('A', 8).mean():.2f}); those of the updates ΔW, with "
        f"{of_ranks('ΔW', 1).mean():.2f}."
    )
    return of_ranks("A", 1) - 0.5, others, finding


def draw(outcome):
    """Plot six heat maps of means over pairs: one row each for A and ΔW, and one column each for q, v and chance."""
    mean, figure = outcome["tables"]["ranks"]["mean"], new_figure(13, 7.4)
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    i, j = np.indices(np.shape(mean["A"]["q_proj"])) + 1
    chance = np.vectorize(gaussian_similarity)(outcome["dimension"], i, j)
    most = max(chance.max(), *(np.max(table) for of in mean.values() for table in of.values()))
    for line, what in zip(grid, WHAT):
        shown = {f"{what}, {layer}": mean[what][layer] for layer in LAYERS} | {"random directions, expected": chance}
        for axes, (text, table) in zip(line, shown.items()):
            corners = (0.5, j.max() + 0.5, i.max() + 0.5, 0.5)  # i downwards and j to the right, from 1
            image = axes.imshow(table, vmin=0.0, vmax=most, aspect="auto", extent=corners)
            axes.set(title=text, xlabel="j, of r = 64", ylabel="i, of r = 8")
            axes.grid(False)
            axes.label_outer()
    figure.colorbar(image, ax=grid, label="φ(i, j)", shrink=0.8)
    n = len(outcome["seeds"])
    marks = "one pair of seeds" if n == 1 else f"mean over {n} pairs of seeds"
    figure.suptitle(f"How much of r = 8 is in r = 64?\n({marks}, and over the blocks)", fontsize=14)
    return figure


RECIPE = Recipe(
    claim="""The leading directions at r = 8 and at r = 64 overlap strongly (φ > 0.5), while the other directions do
    not, and two seeds share more directions than two random subspaces do (Hu et al. 2021, section 7.2, figures 3 and
    4).""",
    design=Design("φ(1, 1) of A, r = 8 and r = 64, minus 0.5", 0.1, "", expected="more"),
    bases=("minilm", "smollm2"),
    caption="""φ(i, j), the similarity of the subspaces spanned by the i leading directions at r = 8 (i increases
    downwards) and by the j leading directions at r = 64 (j increases to the right). In the paper, only the top-left
    corner is bright, with φ above 0.5. The right column shows the values expected by chance.""",
)
