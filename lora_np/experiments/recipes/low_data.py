"""Few examples: LoRA and full fine-tuning from 10 training snippets to all of them.

The seed draws the snippets, the same for both methods. With few snippets there are more passes, so that there are at
least 30 steps, and two evaluations along the way. The learning rates are those that were chosen with all snippets. The
best of the evaluations on 1,000 validation snippets is tested, as everywhere here. Nobody with 10 examples has so many
for validation; it helps both methods.
"""

from ..drawing import COLOURS, GREY, log_axis, mean_line, panels
from ..evidence import ahead, as_good
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
    """(method, number of snippets, seed) -> run."""
    grid = {}
    for n, epochs in EPOCHS.items():
        few = min(n, QUICK["limit"]) if quick and n is not None else n
        more = {} if n is None else {"epochs": epochs, "examples": few, "evaluations": 2, "keep": False}
        for (key, seed), run in tuned_runs(KEYS, seeds, quick, **more).items():
            grid[key, n or ALL, seed] = run
    return grid


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")

    def part(judge, what, n, table):
        rows = {key: of_key[str(n)] for key, of_key in table.items()}
        return judge(f"{n:,} snippets: {what} of LoRA less full's", rows, "qv_r8", "full")

    checks = [part(ahead, "accuracy", 100, accuracy), *(part(as_good, "loss", n, loss) for n in (1000, ALL))]
    asides = [part(ahead, "accuracy", 10, accuracy)]
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "loss": loss}


def draw(outcome):
    figure, axes = panels(outcome, "How much data does it take?", 9, 5.2)
    for key, (label, colour, marker) in KEYS.items():
        rows = outcome["accuracy"][key]
        mean_line(axes, [int(n) for n in rows], list(rows.values()), COLOURS[colour], label, marker)
    axes.axhline(50, color=GREY, linestyle=":")
    axes.annotate("chance", (1000, 50), xytext=(0, 4), textcoords="offset points", color=GREY)
    log_axis(axes, [n or ALL for n in EPOCHS], "training snippets")
    axes.set_ylabel("test accuracy in %")
    axes.legend(loc="upper left")
    return figure
