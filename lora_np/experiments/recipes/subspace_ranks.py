"""Subspaces across ranks: how much of what r = 8 learns is in what r = 64 learns?

φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j) compares the i leading right singular vectors of one adapter with the j leading
ones of another: of A, as in the paper, and of ΔW = s B A, which the model adds. The two adapters of a pair come from
different seeds; with one seed, the first rows of A in their first layer would be the same from the start. The control
is the average φ of two random subspaces of the same dimensions, max(i, j)/C. SmolLM2 is trained on 2,000 snippets.
"""

from functools import partial

from ..evidence import check
from ..subspace_tables import LAYERS, WHAT, draw_tables, pairs, tables_of_pairs, width

CLAIM = """The leading directions of r = 8 and of r = 64 are nearly the same, with φ > 0.5, and the rest of the two
spaces has little in common (Hu et al. 2021, section 7.2, figure 3)."""
CAPTION = """φ(i, j) between the i leading directions of r = 8 (downwards) and the j leading ones of r = 64 (to the
right). A bright top left corner that fades is what the paper found, with more than 0.5 there. The right column is
expected by chance."""
BASES = ("pretrained", "smollm2")
RANKS = (8, 64)
runs = partial(pairs, RANKS)
draw = partial(draw_tables, rows="i, of r = 8", columns="j, of r = 64", title="How much of r = 8 is in r = 64?")


def measure(results, runs, seeds, quick):
    tables, checks = tables_of_pairs(results, runs, RANKS), []
    for what in WHAT:
        for layer in LAYERS:
            for n, bound in ((1, {"at_least": 0.5}), (8, {"at_most": 0.5})):
                phi = [of_pair[n - 1] for of_pair in tables["equal"][what][layer]]
                checks.append(check(f"φ({n}, {n}) of {what}, {layer}", phi, **bound))
    return {"checks": checks, "tables": tables, "dimension": width(runs)}
