"""Few examples: LoRA and full fine-tuning from 10 training snippets to all of them.

The seed draws the snippets, the same for both methods. With few snippets there are more passes, so that there are at
least 30 steps, and two evaluations along the way. The learning rates are those that were chosen with all snippets. The
best of the evaluations on 1,000 validation snippets is tested, as everywhere here. Nobody with 10 examples has so many
for validation; it helps both methods.
"""

from ..drawing import COLOURS, GREY, log_axis, mean_line, new_figure, seeds_text
from ..evidence import EQUAL, check, differences
from ..methods import QUICK, by_method, tuned_runs

CLAIM = (
    "With 100 examples LoRA is ahead of full fine-tuning, with 1,000 or all of them as good or better (Hu et al. 2021, "
    "table 16: 63.8 against 60.2 on MNLI with 100 examples, 85.6 against 85.8 with 1,000, 91.7 against 89.5 with all)."
)
CAPTION = (
    "Test accuracy against the number of training snippets. Look at which line is higher on the left, and whether the "
    "intervals overlap."
)
EPOCHS = {10: 30, 100: 12, 1000: 4, None: 1}  # None: all 6,528
KEYS = {
    "qv_r8": ("LoRA on q and v, r=8", "lora_qv", "o"),
    "full": ("full fine-tuning", "full", "s"),
    "head": ("head only", "head", "v"),
}
ALL = 6528


def runs(seeds, quick):
    """(number of snippets, method, seed) -> run."""
    grid = {}
    for n, epochs in EPOCHS.items():
        more = {} if n is None else {"epochs": epochs, "examples": n, "evaluations": 2, "keep": False}
        if quick and n is not None:
            more["examples"] = min(n, QUICK["limit"])
        for (key, seed), run in tuned_runs(KEYS, seeds, quick, **more).items():
            grid[n or ALL, key, seed] = run
    return grid


def measure(results, runs, seeds, quick):
    measured = {name: {key: {} for key in KEYS} for name in ("accuracy", "loss")}
    runs_of = {}  # number of snippets -> the grid of its methods
    for (n, key, seed), run in runs.items():
        runs_of.setdefault(str(n), {})[key, seed] = run
    for n, of_n in runs_of.items():
        for name, factor in (("accuracy", 100), ("loss", 1.0)):
            for key, values in by_method(results, of_n, f"test_{name}", factor).items():
                measured[name][key][n] = values

    def less(name, n):
        return differences(measured[name]["qv_r8"][str(n)], measured[name]["full"][str(n)])

    checks = [check("100 snippets: accuracy of LoRA less full's", less("accuracy", 100), at_least=0.0, unit="points")]
    for n in (1000, ALL):
        checks.append(check(f"{n:,} snippets: loss of LoRA less full's", less("loss", n), at_most=EQUAL, unit="nats"))
    asides = [check("10 snippets: accuracy of LoRA less full's", less("accuracy", 10), at_least=0.0, unit="points")]
    return {"checks": checks, "asides": asides, **measured}


def draw(outcome):
    figure = new_figure(9, 5.2)
    axes = figure.subplots()
    for key, (label, colour, marker) in KEYS.items():
        of = outcome["accuracy"][key]
        mean_line(axes, [int(n) for n in of], list(of.values()), COLOURS[colour], label, marker)
    axes.axhline(50, color=GREY, linestyle=":")
    axes.annotate("chance", (1000, 50), xytext=(0, 4), textcoords="offset points", color=GREY)
    log_axis(axes, [n or ALL for n in EPOCHS], "training snippets")
    axes.set_ylabel("test accuracy in %")
    axes.legend(loc="upper left", fontsize=11)
    axes.set_title(f"How much data does it take? ({seeds_text(outcome)})")
    return figure
