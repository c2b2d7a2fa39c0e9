"""Subspaces across ranks: do r = 8 and r = 64 learn the same directions?

φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j) compares the i leading right singular vectors U_i of one adapter with the j leading
ones, V_j, of another. It is computed for A, as in the paper, and for the update ΔW = s B A. The two adapters of a pair
have different seeds; with the same seed, the first rows of A in the first layer would be identical at the start. The
control is the expected φ of two random subspaces, max(i, j)/C. On SmolLM2, training uses 2,000 snippets.
"""

from functools import partial

from ..evidence import check
from ..subspace_tables import LAYERS, WHAT, draw_tables, pairs, tables_of_pairs, width

CLAIM = """The leading directions at r = 8 and at r = 64 overlap strongly (φ > 0.5), while the other directions do not
(Hu et al. 2021, section 7.2, figure 3)."""
CAPTION = """φ(i, j): the similarity of the subspaces spanned by the i leading directions at r = 8 (i increases
downwards) and by the j leading directions at r = 64 (j increases to the right). In the paper, only the top-left corner
is bright, with φ above 0.5. The right column shows the values expected by chance."""
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
                checks.append(check(f"φ({n}, {n}) of {what} in {layer}", phi, **bound))
    return {"checks": checks, "tables": tables, "dimension": width(runs)}
