"""Subspaces across seeds: do two runs at r = 64 learn the same directions?

φ(i, j), as defined in the experiment on subspaces across ranks, compares the adapters of two runs with different seeds.
The runs differ in the initial A, the initial head and the order of the snippets. Each run is in only one pair. The
control is the expected φ of two random subspaces, max(i, j)/C. Two adapters may overlap more than random subspaces,
because they share the base and the task. On SmolLM2, training uses 2,000 snippets.
"""

from functools import partial

from ...analysis import gaussian_similarity
from ..evidence import check, compare
from ..subspace_tables import LAYERS, WHAT, draw_tables, pairs, tables_of_pairs, width

CLAIM = """The updates from two seeds share more directions than two random subspaces do. They share more directions in
ΔW_q than in ΔW_v, because ΔW_q's intrinsic rank is higher (Hu et al. 2021, section 7.2, figure 4)."""
CAPTION = """φ(i, j) between the leading directions of two runs with different seeds at r = 64. Cells that are brighter
than the corresponding cells in the right column are above chance."""
BASES = ("pretrained", "smollm2")
RANKS, SHOWN = (64, 64), 8
runs = partial(pairs, RANKS)
draw = partial(
    draw_tables, rows="i, of one seed", columns="j, of another seed", title="What two seeds learn in common at r = 64"
)


def measure(results, runs, seeds, quick):
    dimension = width(runs)
    tables, checks = tables_of_pairs(results, runs, RANKS), []
    chance, name = gaussian_similarity(dimension, SHOWN, SHOWN), f"φ({SHOWN}, {SHOWN})"
    for what in WHAT:
        phi = {layer: [of_pair[SHOWN - 1] for of_pair in tables["equal"][what][layer]] for layer in LAYERS}
        for layer in LAYERS:
            to_chance = [value / chance for value in phi[layer]]
            text = f"{name} of {what} in {layer} / the value expected by chance"
            checks.append(check(text, to_chance, at_least=1.0, unit="times"))
        checks.append(compare(f"{name} of {what}: q_proj − v_proj", phi, *LAYERS, at_least=0.0))
    return {"checks": checks, "tables": tables, "dimension": dimension}
