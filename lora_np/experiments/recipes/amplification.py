"""Does ΔW repeat the leading directions of W, or amplify directions that W hardly uses?

U and V contain the r leading left and right singular vectors of ΔW_q, with r = 8 or r = 64, so ‖Uᵀ W V‖_F measures how
large W is in these directions. It is compared with the norm in W's own leading directions, which is the largest
possible norm, and with the norm in random directions. The amplification factor is ‖ΔW‖_F / ‖Uᵀ W V‖_F. All values are
means over the blocks. The factor grows with the learning rate and with s. On SmolLM2, both ranks have the same learning
rate, and training uses 2,000 snippets."""

import numpy as np

from ...analysis import Amplification
from ..design import Design, Recipe
from ..drawing import COLOURS, OTHERS, dots, panels
from ..evidence import compare as judge
from ..methods import SOME
from ..updates import mean_amplification


def measure(results, runs, seeds, quick):
    measured = {}
    for run in runs.values():
        for name, mean in zip(Amplification._fields, results.measured(mean_amplification, run)):
            measured.setdefault(str(run.adapter.r), {}).setdefault(name, []).append(mean)
    for of_r in measured.values():
        for name, of in (("factor", "update"), ("chance_factor", "random")):
            of_r[name] = np.divide(of_r["update_norm"], of_r[of]).tolist()
    return {"measured": measured}


def compare(outcome):
    (low, of_low), (high, of_high) = outcome["measured"].items()
    factors = np.divide(of_low["factor"], of_high["factor"])
    text = f"‖ΔW‖ / ‖W‖ in ΔW's directions: the ratio at r = {low} / the ratio at r = {high}"
    others = [judge(text, factors, None, "times", expected=(1, np.inf))]
    for r, of_r in outcome["measured"].items():
        text = f"r = {r}: ‖W‖ in ΔW's directions / ‖W‖ in"
        for name, words, bounds in (
            ("random", "random directions", (1, np.inf)),
            ("base", "W's leading directions", (0, 0.5)),
        ):
            ratio = np.divide(of_r["update"], of_r[name])
            others.append(judge(f"{text} {words}", ratio, None, "times", expected=bounds))
    return (of_low["factor"],), others


def finding(outcome):
    (low, of_low), (high, of_high) = outcome["measured"].items()
    factors = [np.exp(np.mean(np.log(of["factor"]))) for of in (of_low, of_high)]
    return (
        f"In ΔW's own directions, ΔW is {factors[0]:.2g} times as large as W at rank {low}, and {factors[1]:.2g} times "
        f"at rank {high}."
    )


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


RECIPE = Recipe(
    claim="""W is larger in ΔW's directions than in random directions, but far smaller than in its own leading
    directions. In ΔW's directions, ΔW is larger than W, especially at a low rank: 21.5 times as large at r = 4, and 1.9
    times as large at r = 64 (Hu et al. 2021, table 7).""",
    design=Design("r = 8: ‖ΔW‖ / ‖W‖ in ΔW's directions", None, "times", expected=(1, np.inf)),
    keys=dict.fromkeys(("minilm", "smollm2"), ("qv_r8", "qv_r64")),
    on={"smollm2": SOME},
    measure=measure,
    compare=compare,
    finding=finding,
    draw=draw,
    caption="""Left panel: how large W_q is in the leading directions of ΔW_q, in those of W_q itself, and in random
    directions. Right panel: the norm of ΔW_q divided by that of W_q in ΔW_q's directions or in random directions. For a
    random ΔW_q, both would coincide. Compare ΔW_q's directions with the random ones and with the value 1.""",
)
