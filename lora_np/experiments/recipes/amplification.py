"""Amplification: does ΔW repeat what W has already, or bring out what W hardly uses?

U and V are the r leading singular vectors of ΔW_q at r = 4 and r = 64, and ‖Uᵀ W V‖_F is how much of W is in these
directions. It is compared with W's own leading directions, which give the largest possible value, and with random ones.
The amplification factor is ‖ΔW‖_F / ‖Uᵀ W V‖_F. It grows with the learning rate and with s, which are the same for both
ranks. All are means over the blocks.
"""

import numpy as np

from ...adapters import Adapter, adapter_deltas
from ...analysis import Amplification, amplification
from ..drawing import GREY, PALETTE, dots, new_figure, seeds_text
from ..evidence import check
from ..methods import tuned_runs
from ..runs.classify import starting_point

CLAIM = (
    "W has more in ΔW's directions than in random ones, but far less than in its own leading ones. In these directions "
    "ΔW is larger than W, most at a low rank: 21.5 times at r = 4, 1.9 times at r = 64 (Hu et al. 2021, table 7)."
)
CAPTION = (
    "Left: how much of W_q is in the leading directions of ΔW_q, of W_q itself, and in random directions. Right: how "
    "many times larger ΔW_q is than W_q in ΔW_q's directions (colour) and in random directions (grey). A ΔW_q of noise "
    "would reach the grey marks. Look at how far below them it stays, and whether it is above 1."
)
RANKS = (4, 64)
COLUMNS = {"update": "of ΔW", "base": "of W itself", "random": "random"}


def runs(seeds, quick):
    return tuned_runs([f"qv_r{r}" for r in RANKS], seeds, quick)


def measure(results, runs, seeds, quick):
    tables = {r: [] for r in RANKS}
    for (_, seed), run in runs.items():
        params, _, start = starting_point(run)
        trained = {name: array.astype(np.float64) for name, array in results.arrays(run).items()}
        deltas = adapter_deltas(params, Adapter(start.config, trained))  # in float64: of rank r up to 1e-16
        rows = [
            amplification(params[name], delta, run.adapter.r, np.random.default_rng(seed))
            for name, delta in deltas.items()
            if "q_proj" in name
        ]
        tables[run.adapter.r].append(np.mean(rows, axis=0))
    measured = {
        str(r): {name: [float(row[i]) for row in rows] for i, name in enumerate(Amplification._fields)}
        for r, rows in tables.items()
    }
    checks = []
    for r, of_r in measured.items():
        of_r["chance_factor"] = [norm / random for norm, random in zip(of_r["update_norm"], of_r["random"])]
        to_random, to_own = ([a / b for a, b in zip(of_r["update"], of_r[name])] for name in ("random", "base"))
        checks.append(check(f"r = {r}: W in ΔW's directions, to random ones", to_random, at_least=1.0, unit="times"))
        checks.append(check(f"r = {r}: W in ΔW's directions, to its own", to_own, at_most=0.5, unit="times"))
        checks.append(check(f"r = {r}: ΔW to W in ΔW's directions", of_r["factor"], at_least=1.0, unit="times"))
    return {"checks": checks, "measured": measured}


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
    rows = [
        (f"{text}, r={r}", measured[str(r)][name], colour)
        for r in RANKS
        for text, name, colour in (("of ΔW", "factor", PALETTE[0]), ("random", "chance_factor", GREY))
    ]
    dots(right, *zip(*rows), "‖ΔW‖ / ‖Uᵀ W V‖")
    right.axvline(1, color="black", linewidth=1)
    right.set_xscale("log")
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set_title("amplification")
    figure.suptitle(f"What ΔW_q has to do with W_q ({seeds_text(outcome)})", fontsize=14)
    return figure
