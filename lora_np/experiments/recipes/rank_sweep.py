"""Rank sweep: accuracy against the rank, from 1 to 64.

The base is taught Rotten Tomatoes' sentiment with LoRA on q and v at ranks 1 to 64, with LoRA on all linear layers at
four of them, in full, and with a head alone, in one pass over the snippets. α = 2r, so that s = 2 throughout. The
learning rates were chosen on the validation split, one for all ranks of a placement. Test accuracy is compared seed by
seed.
"""

from ..drawing import COLOURS, GREY, band, mean_line, new_figure, seeds_text
from ..evidence import check
from ..tuned import by_method, differences, tuned_runs

CLAIM = (
    "The rank barely matters: on q and v, r = 1 does nearly what r = 64 does (Hu et al. 2021, table 6: 73.4 against "
    "73.5 on WikiSQL)."
)
CAPTION = (
    "Test accuracy against the rank. Look at how little a line rises from left to right, next to its intervals, and at "
    "what the layers that are adapted change."
)
QV, ALL = (1, 2, 4, 8, 16, 64), (1, 4, 16, 64)
KEYS = (*(f"qv_r{r}" for r in QV), *(f"all_r{r}" for r in ALL), "full", "head")


def runs(seeds, quick):
    return list(tuned_runs(KEYS, seeds, quick).values())


def measure(results, seeds, quick):
    accuracy = by_method(results, tuned_runs(KEYS, seeds, quick), "test_accuracy", 100)
    trainable = by_method(results, tuned_runs(KEYS, seeds, quick), "trainable")
    parts = []
    for key, label in (("qv", "q and v"), ("all", "all linear layers")):
        less = differences(accuracy[f"{key}_r1"], accuracy[f"{key}_r64"])
        parts.append(check(f"{label}: r = 1 less r = 64", less, at_least=-1.0, unit="points"))
    return {"checks": parts, "accuracy": accuracy, "trainable": {key: int(n[0]) for key, n in trainable.items()}}


def draw(outcome):
    accuracy, figure = outcome["accuracy"], new_figure(9, 5.4)
    axes = figure.subplots()
    mean_line(axes, QV, [accuracy[f"qv_r{r}"] for r in QV], COLOURS["lora_qv"], "LoRA on q and v")
    mean_line(axes, ALL, [accuracy[f"all_r{r}"] for r in ALL], COLOURS["lora_all"], "LoRA on all linear layers", "D")
    band(axes, accuracy["full"], COLOURS["full"], "full fine-tuning")
    band(axes, accuracy["head"], GREY, "head only")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("rank r")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(f"How much does the rank matter? ({seeds_text(outcome)})")
    figure.legend(loc="outside lower center", ncols=4, fontsize=11)
    return figure
