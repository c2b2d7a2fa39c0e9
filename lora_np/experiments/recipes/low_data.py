"""Few examples: LoRA and full fine-tuning on 10 to 6,528 training snippets.

The seed determines the random choice of snippets, which is the same for all methods. With few snippets, there are more
epochs, so that training has at least 20 steps. The learning rates were chosen for one epoch on many snippets. On the
small base, models are evaluated on 1,000 validation snippets twice during training, and the best checkpoint is
evaluated on the test set, as in the other experiments. In practice, 1,000 validation snippets are rarely available if
there are only 10 for training; here, all methods benefit from them. On SmolLM2, the only evaluation is at the end.
"""

import numpy as np

from ..drawing import COLOURS, log_axis, mean_line, panels
from ..evidence import ahead, as_good
from ..methods import by_method, tuned_runs

CLAIM = """With 100 examples, LoRA is better than full fine-tuning, and with 1,000 or all examples, it is at least as
good (Hu et al. 2021, table 16: accuracies on MNLI of 63.8 % against 60.2 % with 100 examples, 85.6 % against 85.8 %
with 1,000, and 91.7 % against 89.5 % with all)."""
CAPTION = """Test accuracy against the number of training snippets. Check which line is highest on the left, and whether
the intervals overlap."""
BASES = ("pretrained", "smollm2")
EPOCHS = {"pretrained": {10: 30, 100: 12, 1000: 4}, "smollm2": {10: 20, 100: 6, 1000: 2}}  # base -> snippets -> epochs
EVALUATIONS = {"pretrained": 2, "smollm2": 1}
ALL = 6528
SERIES = {
    "qv_r8": ("LoRA on q and v, r=8", "lora_qv", "o"),
    "full": ("full fine-tuning", "full", "s"),
    "head": ("head only", "head", "v"),
}


def runs(seeds, quick, base="pretrained"):
    """A dict, (method, number of snippets, seed) -> run."""
    grid = {(key, ALL, seed): run for (key, seed), run in tuned_runs(SERIES, seeds, quick, base=base).items()}
    for n, epochs in EPOCHS[base].items():
        more = {"epochs": epochs, "examples": n, "evaluations": EVALUATIONS[base], "keep": False}
        some = tuned_runs(SERIES, seeds, quick, base=base, **more)
        grid |= {(key, n, seed): run for (key, seed), run in some.items()}
    return grid


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")

    def part(judge, what, n, table):
        rows = {key: of_key[str(n)] for key, of_key in table.items()}
        return judge(f"{n:,} snippets, LoRA − full fine-tuning: test {what}", rows, "qv_r8", "full")

    checks = [part(ahead, "accuracy", 100, accuracy), *(part(as_good, "loss", n, loss) for n in (1000, ALL))]
    asides = [part(ahead, "accuracy", 10, accuracy)]
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "loss": loss}


def draw(outcome):
    figure, axes = panels(outcome, "How much data does it take?", 9, 5.2)
    for shift, (key, (label, colour, marker)) in zip((0.94, 1.0, 1.06), SERIES.items()):  # so that bars do not overlap
        numbers, rows = zip(*sorted((int(n), values) for n, values in outcome["accuracy"][key].items()))
        mean_line(axes, shift * np.array(numbers), rows, COLOURS[colour], label, marker)
    axes.axhline(50, color="black", linestyle=":")
    axes.annotate("chance", (1000, 50), xytext=(0, 4), textcoords="offset points")
    log_axis(axes, numbers, "training snippets")
    axes.set_ylabel("test accuracy in %")
    axes.legend(loc="upper left")
    return figure
