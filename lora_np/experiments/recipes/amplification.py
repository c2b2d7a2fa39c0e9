"""Amplification: does ΔW repeat the leading directions of W, or amplify directions that W hardly uses?

U and V contain the r leading left and right singular vectors of ΔW_q, with r = 4 (r = 8 on SmolLM2) or r = 64, so
‖Uᵀ W V‖_F measures how large W is in these directions. It is compared with the norm in W's own leading directions,
which is the largest possible norm, and with the norm in random directions. The amplification factor is ‖ΔW‖_F /
‖Uᵀ W V‖_F. All values are means over the blocks. The factor grows with the learning rate and with s, which are the same
for both ranks. On SmolLM2, training uses 2,000 snippets.
"""

import numpy as np

from ...analysis import Amplification
from ..drawing import COLOURS, OTHERS, dots, panels
from ..evidence import check
from ..methods import SOME
from ..updates import mean_amplification

CLAIM = """W is larger in ΔW's directions than in random directions, but far smaller than in its own leading directions.
In ΔW's directions, ΔW is larger than W, especially at a low rank: 21.5 times as large at r = 4, and 1.9 times as large
at r = 64 (Hu et al. 2021, table 7)."""
CAPTION = """Left panel: how large W_q is in the leading directions of ΔW_q, in those of W_q itself, and in random
directions. Right panel: the norm of ΔW_q divided by that of W_q in ΔW_q's directions or in random directions.
For a random ΔW_q, both would coincide. Compare ΔW_q's directions with the random ones and with the value 1."""
ON = {"smollm2": SOME}
KEYS = {"pretrained": ("qv_r4", "qv_r64"), "smollm2": ("qv_r8", "qv_r64")}


def measure(results, runs, seeds, quick):
    measured, checks = {}, []
    for run in runs.values():
        for name, mean in zip(Amplification._fields, results.measured(mean_amplification, run)):
            measured.setdefault(str(run.adapter.r), {}).setdefault(name, []).append(mean)
    for r, of_r in measured.items():
        for name, of in (("factor", "update"), ("chance_factor", "random")):
            of_r[name] = np.divide(of_r["update_norm"], of_r[of]).tolist()
        to_random, to_own = (np.divide(of_r["update"], of_r[name]) for name in ("random", "base"))
        text = f"r = {r}: ‖W‖ in ΔW's directions / ‖W‖ in"
        checks.append(check(f"{text} random directions", to_random, at_least=1.0, unit="times"))
        checks.append(check(f"{text} W's leading directions", to_own, at_most=0.5, unit="times"))
        checks.append(check(f"r = {r}: ‖ΔW‖ / ‖W‖ in ΔW's directions", of_r["factor"], at_least=1.0, unit="times"))
    low, high = measured
    text = f"‖ΔW‖ / ‖W‖ in ΔW's directions: the ratio at r = {low} / the ratio at r = {high}"
    factors = np.divide(measured[low]["factor"], measured[high]["factor"])
    checks.append(check(text, factors, at_least=1.0, unit="times"))
    return {"checks": checks, "measured": measured}


def draw(outcome):
    from matplotlib.ticker import LogLocator

    figure, (left, right) = panels(outcome, "ΔW_q and W_q", 12, 4.6, 2, width_ratios=(3, 2))
    lora, random = COLOURS["lora_qv"], OTHERS[1]
    norms = ("of ΔW", "update", lora), ("of W itself", "base", COLOURS["base"]), ("random", "random", random)
    factors = ("of ΔW", "factor", lora), ("random", "chance_factor", random)
    for axes, marks, unit in ((left, norms, "‖Uᵀ W V‖ in Frobenius norm"), (right, factors, "‖ΔW‖ / ‖Uᵀ W V‖")):
        of_ranks = outcome["measured"].items()
        rows = [(f"{mark}, r={r}", of_r[name], shade) for r, of_r in of_ranks for mark, name, shade in marks]
        dots(axes, *zip(*rows), unit, log=True)
    left.set_title("how much of W_q is in these directions")
    right.set_title("how many times larger ΔW_q is there")
    right.axvline(1, color="black", linewidth=1)
    for axes in (left, right):
        axes.set_xscale("log", subs=[])  # no minor ticks
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return figure
