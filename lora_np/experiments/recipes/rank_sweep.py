"""Does a higher rank make LoRA more accurate?

A base model is trained for one epoch to predict the sentiment of Rotten Tomatoes snippets: with LoRA on q and v, and on
all linear layers, at ranks from 1 to 64, by full fine-tuning, and by training only the head. All LoRA runs have α = 2r,
so that s = 2 at every rank. On MiniLM, every rank has its own learning rate. On SmolLM2, the ranks share the rate that
was chosen on 2,000 snippets.
"""

from ..design import Design, Recipe, accuracies, accuracy
from ..drawing import band, beside_differences, colour, legend_below, log_axis, marker, mean_line
from ..evidence import minus
from ..methods import by_rank
from ..tables import means_of, score_table


def conclude(outcome):
    mean = means_of(outcome["accuracy"])
    (one, *_, high), (low, *_, most) = (by_rank(mean, of) for of in ("qv", "all"))
    pairs = (f"all_r{most}", f"all_r{low}"), (f"all_r{low}", f"qv_r{one}"), (f"qv_r{high}", "full"), ("full", "head")
    finding = (
        f"On q and v, rank {high} changes the accuracy of rank {one} by "
        f"{change(mean, f'qv_r{one}', f'qv_r{high}')}; on all linear layers, rank {most} changes that of rank {low} by "
        f"{change(mean, f'all_r{low}', f'all_r{most}')}."
    )
    return accuracy(outcome, f"qv_r{high}", f"qv_r{one}"), accuracies(outcome, pairs), finding


def change(mean, before, after):
    """Format the change in accuracy from one method to another."""
    points = minus(mean[after] - mean[before], "+.1f")
    return f"{points} points (from {mean[before]:.1f} to {mean[after]:.1f} %)"


def draw(outcome):
    figure, axes = beside_differences(outcome, "How much does the rank matter?", 5.4)
    values = outcome["accuracy"]
    for placement, where in (("qv", "q and v"), ("all", "all linear layers")):
        mean_line(axes, by_rank(values, placement), colour(placement), f"LoRA on {where}", marker(placement))
    band(axes, values["full"], colour("full"), "full fine-tuning")
    band(axes, values["head"], colour("head"), "head only")
    log_axis(axes, sorted({*by_rank(values, "qv"), *by_rank(values, "all")}), "rank r")
    axes.set_ylabel("test accuracy in %")
    legend_below(figure, axes, 4)
    return figure


PILOT = "LoRA q,v r=8 − LoRA q,v r=1, three seeds"
KEYS = "head", "qv_r1", "qv_r8", "qv_r64", "all_r1"
RECIPE = Recipe(
    claim="""The rank barely matters: on q and v, r = 1 is nearly as good as r = 64 (Hu et al. 2021, table 6: accuracies
    of 73.4 % and 73.5 % on WikiSQL).""",
    design=Design("LoRA q,v r=64 − LoRA q,v r=1: test accuracy", expected="equal", scatter=0.79, pilot=PILOT),
    keys={"minilm": (*KEYS, "all_r8", "all_r64", "full"), "smollm2": (*KEYS, "all_r4", "all_r16", "full")},
    on={"smollm2": {"tuned_on": 2000}},
    table=score_table,
    caption="""Test accuracy against the rank. For each line, compare the change from left to right with the distance to
    full fine-tuning, and with the gain from adapting more layers. Right panel: the same as differences for each seed,
    which decide.""",
)
