"""Subspaces across seeds: what two trainings of r = 64 that began differently have in common.

The same φ(i, j) as between ranks, between the adapters of seeds s and s + 1: other random A, other heads, other order
of the same snippets. The control is two random subspaces. Where two seeds have more in common than the control, the
task has asked for those directions.
"""

import numpy as np

from ..evidence import check
from ..subspace_tables import LAYERS, draw_tables, mean_tables, over_pairs
from ..tuned import differences, tuned_runs

CLAIM = (
    "Two seeds share directions that two random subspaces do not, and ΔW_q shares more of them than ΔW_v: its "
    "intrinsic rank is higher (Hu et al. 2021, section 7.2, figure 4)."
)
CAPTION = (
    "φ(i, j) between the leading directions of two seeds at r = 64. What is brighter than the right column was asked "
    "for by the task, and not by chance."
)
RANK, SHOWN = 64, 8


def runs(seeds, quick):
    return list(tuned_runs([f"qv_r{RANK}"], [*seeds, seeds[-1] + 1], quick).values())


def measure(results, seeds, quick):
    trained = [results.arrays(run) for run in runs(seeds, quick)]
    tables = [
        mean_tables(first, second, (RANK, RANK), np.random.default_rng(seed))
        for seed, first, second in zip(seeds, trained, trained[1:])
    ]

    tables = over_pairs(tables)

    def phi(what, layer=None):
        of_pairs = tables["equal"][what] if layer is None else tables["equal"][what][layer]
        return [of_pair[SHOWN - 1] for of_pair in of_pairs]

    name = f"φ({SHOWN}, {SHOWN})"
    parts = []
    for layer in LAYERS:
        more = differences(phi("ΔW", layer), phi("random"))
        parts.append(check(f"{name} of ΔW, {layer}, less that of random directions", more, at_least=0.0))
    more_in_q = differences(phi("ΔW", "q_proj"), phi("ΔW", "v_proj"))
    parts.append(check(f"{name} of ΔW, q_proj less v_proj", more_in_q, at_least=0.0))
    return {"checks": parts, "tables": tables}


def draw(outcome):
    return draw_tables(outcome, "i, of one seed", "j, of the next", f"What two seeds learn in common at r = {RANK}")
