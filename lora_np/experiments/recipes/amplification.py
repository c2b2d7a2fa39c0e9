"""Does ΔW amplify directions that W already has?

U and V contain the r leading left and right singular vectors of ΔW_q, with r = 8 or r = 64, so ‖Uᵀ W V‖_F measures how
large W is in these directions. This norm is compared with the norm in W's own leading directions, which is the
largest possible, and with the norm in random directions. The amplification factor is ‖ΔW‖_F / ‖Uᵀ W V‖_F. All values
are means over the blocks. The factor grows with the learning rate and with s, and exceeds 1 whenever ΔW is large
enough. On SmolLM2, both ranks have the same learning rate, and training uses 2,000 snippets."""

import numpy as np

from ..design import Recipe, ratio
from ..drawing import COLOURS, OTHERS, dots, panels, plain_numbers
from ..evidence import mean_ratio
from ..methods import SOME
from ..tables import by_method, gathered
from ..updates import mean_amplification

TO_RANDOM = "‖W‖ in ΔW's directions / ‖W‖ in random directions"
TO_OWN = "‖W‖ in ΔW's directions / ‖W‖ in W's leading directions"


def measure(results, runs, seeds, quick):
    of_keys = by_method(results, runs, lambda run: mean_amplification(results, run))
    measured = {key.removeprefix("qv_r"): gathered(of_seeds) for key, of_seeds in of_keys.items()}
    for of_r in measured.values():
        for name, of in (("factor", "update"), ("chance_factor", "random")):
            of_r[name] = np.divide(of_r["update_norm"], of_r[of]).tolist()
    return {"measured": measured}


def conclude(outcome):
    (low, of_low), (high, of_high) = outcome["measured"].items()
    to_random, to_own = (np.divide(of_low["update"], of_low[name]) for name in ("random", "base"))
    others = [
        (ratio(f"r = {low}: ‖ΔW‖ / ‖W‖ in ΔW's directions", (1, None)), of_low["factor"]),
        (ratio(f"the same at r = {low} / at r = {high}", (1, None)), np.divide(of_low["factor"], of_high["factor"])),
        (ratio(f"r = {low}: {TO_OWN}", (None, 0.5)), to_own),
        (ratio(f"r = {high}: {TO_RANDOM}", (1, None)), np.divide(of_high["update"], of_high["random"])),
        (ratio(f"r = {high}: {TO_OWN}", (None, 0.5)), np.divide(of_high["update"], of_high["base"])),
    ]
    finding = (
        f"At rank {low}, W is {mean_ratio(to_random):.2g} times as large in ΔW's directions as in random ones, "
        f"{mean_ratio(to_own):.2g} times as large as in its own leading ones, and ΔW is "
        f"{mean_ratio(of_low['factor']):.2g} times as large there as W."
    )
    return to_random, others, finding


def draw(outcome):
    from matplotlib.ticker import LogLocator

    figure, (left, right) = panels(outcome, "ΔW_q and W_q", 12, 4.6, 2, width_ratios=(3, 2))
    lora, random = COLOURS["lora_qv"], OTHERS[3]
    norms = ("of ΔW", "update", lora), ("of W itself", "base", COLOURS["base"]), ("random", "random", random)
    factors = ("of ΔW", "factor", lora), ("random", "chance_factor", random)
    for axes, marks, unit in ((left, norms, "‖Uᵀ W V‖ in Frobenius norm"), (right, factors, "‖ΔW‖ / ‖Uᵀ W V‖")):
        of_ranks = outcome["measured"].items()
        rows = [(f"{mark}, r={r}", of_r[name], shade) for r, of_r in of_ranks for mark, name, shade in marks]
        dots(axes, rows, unit, log=True)
    left.set_title("how much of W_q is in these directions")
    right.set_title("how many times larger ΔW_q is there")
    right.axvline(1, color="black", linewidth=1)
    for axes in (left, right):
        axes.set_xscale("log", subs=[])  # no minor ticks
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        plain_numbers(axes.xaxis)
    return figure


RECIPE = Recipe(
    claim="""W is larger in ΔW's directions than in random directions, but far smaller than in its own leading
    directions. In ΔW's directions, ΔW is larger than W, especially at a low rank: 21.5 times as large at r = 4, and 1.9
    times as large at r = 64 (Hu et al. 2021, table 7).""",
    design=ratio(f"r = 8: {TO_RANDOM}", (1, None)),
    keys=dict.fromkeys(("minilm", "smollm2"), ("qv_r8", "qv_r64")),
    on={"smollm2": SOME},
    caption="""Left panel: how large W_q is in the leading directions of ΔW_q, in those of W_q itself, and in random
    directions. Right panel: the norm of ΔW_q divided by that of W_q in ΔW_q's directions or in random directions. For a
    random ΔW_q, both would coincide. Compare ΔW_q's directions with the random ones and with the value 1.""",
)
