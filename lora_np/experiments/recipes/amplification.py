"""Amplification: does ΔW repeat what W has already, or bring out what W hardly uses?

U and V are the r leading singular vectors of ΔW_q at r = 4 and r = 64, and ‖Uᵀ W V‖_F is how much of W there is between
them. It is compared with W's own leading directions, the most that is possible, and with random ones. The
amplification factor is ‖ΔW‖_F / ‖Uᵀ W V‖_F. Means over the blocks.
"""

import numpy as np

from ...adapters import Adapter, adapter_deltas
from ...analysis import amplification
from ..drawing import PALETTE, dots, new_figure, seeds_text
from ..evidence import check
from ..runs.classify import starting_point
from ..tuned import differences, tuned_runs

CLAIM = (
    "ΔW has more to do with W than random directions have, but does not repeat W's leading ones; it amplifies its own "
    "strongly, the more the lower the rank: 21.5 times at r = 4, 1.9 times at r = 64 (Hu et al. 2021, table 7)."
)
CAPTION = (
    "Left: how much of W_q lies in the leading directions of ΔW_q, of W_q itself, and in random ones. Right: how many "
    "times larger ΔW_q is in its directions than W_q is there."
)
RANKS = (4, 64)
COLUMNS = {"update": "of ΔW", "base": "of W itself", "random": "random"}


def runs(seeds, quick):
    return list(tuned_runs([f"qv_r{r}" for r in RANKS], seeds, quick).values())


def measure(results, seeds, quick):
    found = {r: [] for r in RANKS}
    for (_, seed), run in tuned_runs([f"qv_r{r}" for r in RANKS], seeds, quick).items():
        params, _, start = starting_point(run)
        trained = {name: array.astype(np.float64) for name, array in results.arrays(run).items()}
        deltas = adapter_deltas(params, Adapter(start.config, trained))  # in float64: of rank r but for 1e-16
        rows = [
            amplification(params[name], delta, run.adapter.r, np.random.default_rng(seed))
            for name, delta in deltas.items()
            if "q_proj" in name
        ]
        found[run.adapter.r].append(np.mean(rows, axis=0))
    measured = {
        str(r): {name: [float(row[i]) for row in rows] for i, name in enumerate(FIELDS)} for r, rows in found.items()
    }
    small, large = (measured[str(r)] for r in RANKS)
    parts = []
    for r in RANKS:
        of_r = measured[str(r)]
        ratio = [a / b for a, b in zip(of_r["update"], of_r["random"])]
        parts.append(check(f"r = {r}: W in ΔW's directions, to random ones", ratio, at_least=1.0, unit="times"))
        ratio = [a / b for a, b in zip(of_r["update"], of_r["base"])]
        parts.append(check(f"r = {r}: W in ΔW's directions, to its own leading ones", ratio, at_most=0.5, unit="times"))
    parts.append(check("amplification at r = 4", small["factor"], at_least=2.0, unit="times"))
    more = differences(small["factor"], large["factor"])
    parts.append(check("amplification at r = 4 less that at r = 64", more, at_least=0.0, unit="times"))
    return {"checks": parts, "measured": measured}


FIELDS = ("update", "base", "random", "base_norm", "update_norm", "factor")


def draw(outcome):
    figure = new_figure(12, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    measured = outcome["measured"]
    rows = [
        (f"{text}, r={r}", measured[str(r)][name], colour)
        for r in RANKS
        for (name, text), colour in zip(COLUMNS.items(), PALETTE)
    ]
    dots(left, *zip(*rows), "‖Uᵀ W V‖ in Frobenius norm")
    left.set_title("W_q in the directions")
    dots(right, [f"r={r}" for r in RANKS], [measured[str(r)]["factor"] for r in RANKS], PALETTE[0], "‖ΔW‖ / ‖Uᵀ W V‖")
    right.set_title("amplification")
    figure.suptitle(f"What ΔW_q has to do with W_q ({seeds_text(outcome)})", fontsize=14)
    return figure
