"""Few examples: LoRA and full fine-tuning from 10 training snippets to all of them.

The snippets are drawn by the seed, the same for both methods; with few of them there are more epochs, so that there
are at least 30 steps. The learning rates are those that were chosen with all snippets. The best evaluation on the
validation split is tested, as everywhere here: with 10 examples that helps more than a practitioner's own data could,
and it helps both methods.
"""

from ..drawing import COLOURS, GREY, mean_line, new_figure, seeds_text
from ..evidence import check
from ..tuned import QUICK, differences, tuned_runs

CLAIM = (
    "With few examples LoRA is ahead of full fine-tuning, and with all of them no worse (Hu et al. 2021, table 16: "
    "63.8 against 60.2 on MNLI with 100 examples, 91.7 against 89.5 with all)."
)
CAPTION = (
    "Test accuracy against the number of training snippets. Look at which line is on top on the left, and whether the "
    "intervals are apart."
)
EPOCHS = {10: 30, 100: 12, 1000: 4, None: 1}  # None: all 6,528
KEYS = {
    "qv_r8": ("LoRA on q and v, r=8", "lora_qv", "o"),
    "full": ("full fine-tuning", "full", "s"),
    "head": ("head only", "head", "v"),
}
ALL = 6528


def grid(seeds, quick):
    """(number of snippets, method, seed) -> run."""
    found = {}
    for n, epochs in EPOCHS.items():
        more = {"epochs": epochs} if n is None else {"epochs": epochs, "examples": n, "keep": False}
        if quick and n is not None:
            more["examples"] = min(n, QUICK["limit"])
        for (key, seed), run in tuned_runs(KEYS, seeds, quick, **more).items():
            found[n or ALL, key, seed] = run
    return found


def runs(seeds, quick):
    return list(grid(seeds, quick).values())


def measure(results, seeds, quick):
    accuracy = {key: {} for key in KEYS}
    for (n, key, _), run in grid(seeds, quick).items():
        accuracy[key].setdefault(n, []).append(100 * results[run]["test_accuracy"])
    lora, full = accuracy["qv_r8"], accuracy["full"]
    bounds = {10: 0.0, 100: 0.0, 1000: 0.0, ALL: -1.0}
    parts = [
        check(f"LoRA less full, {n:,} snippets", differences(lora[n], full[n]), at_least=bound, unit="points")
        for n, bound in bounds.items()
    ]
    return {"checks": parts, "accuracy": {k: {str(n): v for n, v in of.items()} for k, of in accuracy.items()}}


def draw(outcome):
    figure = new_figure(9, 5.2)
    axes = figure.subplots()
    for key, (label, colour, marker) in KEYS.items():
        of = outcome["accuracy"][key]
        mean_line(axes, [int(n) for n in of], list(of.values()), COLOURS[colour], label, marker)
    axes.axhline(50, color=GREY, linestyle=":")
    axes.annotate("chance", (10, 50), xytext=(0, 4), textcoords="offset points", color=GREY)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("training snippets")
    axes.set_ylabel("test accuracy in %")
    axes.legend(loc="lower right", fontsize=11)
    axes.set_title(f"How much data does it take? ({seeds_text(outcome)})")
    return figure
