"""Subspaces across ranks: how much of what r = 8 learns is in what r = 64 learns.

φ(i, j) = ‖U_iᵀ V_j‖²_F / min(i, j) compares the i leading right singular vectors of one adapter with the j leading
ones of another: of A, as in the paper, and of ΔW = s B A, which the model adds. The two adapters of a pair come from
different seeds; from one seed, the first rows of A in their first layer would be the same from the start. The control
is what two random subspaces of the same dimensions have in common on average, max(i, j)/C.
"""

from ..evidence import check
from ..runs import load_base
from ..subspace_tables import LAYERS, WHAT, draw_tables, pairs, tables_of_pairs

CLAIM = (
    "The leading directions of r = 8 and of r = 64 are nearly the same, with φ > 0.5, and the rest of the two spaces "
    "has little in common (Hu et al. 2021, section 7.2, figure 3)."
)
CAPTION = (
    "φ(i, j) between the i leading directions of r = 8 (downwards) and the j leading ones of r = 64 (to the right). A "
    "bright top left corner that fades is what the paper found; the right column is what chance gives."
)
RANKS = SMALL, LARGE = 8, 64


def runs(seeds, quick):
    return pairs(RANKS, seeds, quick)


def measure(results, runs, seeds, quick):
    tables, checks = tables_of_pairs(results, runs, RANKS), []
    for what in WHAT:
        for layer in LAYERS:
            first, every = ([of_pair[n - 1] for of_pair in tables["equal"][what][layer]] for n in (1, SMALL))
            checks.append(check(f"φ(1, 1) of {what}, {layer}", first, at_least=0.5))
            checks.append(check(f"φ({SMALL}, {SMALL}) of {what}, {layer}", every, at_most=0.5))
    return {"checks": checks, "tables": tables, "dimension": load_base()[1].d_model}


def draw(outcome):
    return draw_tables(
        outcome, f"i, of r = {SMALL}", f"j, of r = {LARGE}", f"How much of r = {SMALL} is in r = {LARGE}?"
    )
