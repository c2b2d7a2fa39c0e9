"""Which matrices: one budget of parameters, spent on one attention matrix or shared among several.

Rank 8 on one of W_q, W_k, W_v, W_o, rank 4 on two of them and rank 2 on all four have the same number of parameters:
8 (C + C) a block. They share the learning rate that was chosen for LoRA on q and v.
"""

from ..drawing import COLOURS, PALETTE, dots, mark_mean, panels
from ..evidence import ahead
from ..methods import METHODS, by_method

CLAIM = (
    "With one budget it is better to adapt W_q and W_v together, or all four, than W_q or W_k alone at a higher rank "
    "(Hu et al. 2021, table 5: 73.7 for q,v and for q,k,v,o, 70.4 and 70.0 for q and k)."
)
CAPTION = (
    "Test accuracy of LoRA with the same number of trained parameters in different places. The claim is that the "
    "orange rows, which spread them over several matrices, are to the right of the blue ones."
)
PLACES = ("q_r8", "k_r8", "v_r8", "o_r8", "qk_r4", "qv_r4", "qkvo_r2")
KEYS = (*PLACES, "full")


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    checks = [
        ahead(f"{METHODS[several].label} less {METHODS[one].label}", accuracy, several, one)
        for several in ("qv_r4", "qkvo_r2")
        for one in ("q_r8", "k_r8")
    ]
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in PLACES}
    return {"checks": checks, "accuracy": accuracy, "trainable": trained}


def draw(outcome):
    accuracy, budget = outcome["accuracy"], outcome["trainable"]["q_r8"]
    figure, axes = panels(outcome, f"{budget:,} trained parameters, in which matrices?", 9, 5)
    colours = [PALETTE[key.startswith("q") and key != "q_r8"] for key in PLACES]
    dots(axes, [METHODS[key].label for key in PLACES], [accuracy[key] for key in PLACES], colours, "test accuracy in %")
    mark_mean(axes, accuracy["full"], COLOURS["full"], "full fine-tuning")
    axes.legend(loc="upper left")
    return figure
