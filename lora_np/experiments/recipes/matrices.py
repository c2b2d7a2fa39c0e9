"""Is LoRA on q and v better than on q alone, with the same number of trainable parameters?

On MiniLM, rank 16 on one of W_q, W_k, W_v, W_o, rank 8 on W_q and W_v and rank 4 on all four have the same number of
parameters; rank 3 on the MLP has 6 % fewer. In SmolLM2, keys and values are a third as wide as queries. There, rank 20
on W_q, 30 on W_k or W_v, 12 on W_q and W_v, and 6 on all four have the same number of parameters, and adapters on the
MLP have 0.8 % more; training uses 2,000 snippets.
"""

import numpy as np

from ..design import Design, Recipe, accuracies, accuracy
from ..drawing import COLOURS, OTHERS, beside_differences, dots
from ..methods import SOME, label
from ..tables import means_of, score_table
from .rank_sweep import PILOT

FAMILIES = {  # how the names of methods that adapt one attention matrix, several, or the MLP begin -> colour
    ("q_", "k_", "v_", "o_"): OTHERS[3],
    ("qv_", "qkvo_"): COLOURS["lora_qv"],
    ("mlp_", "gated_mlp"): OTHERS[1],
}


def families(outcome):
    """The keys of each family's methods, as a list of lists."""
    return [[key for key in outcome["accuracy"] if key.startswith(starts)] for starts in FAMILIES]


def conclude(outcome):
    (q, *ones), (qv, qkvo), mlps = families(outcome)
    pairs = [(qv, one) for one in ones] + [(qkvo, qv), *((mlp, qv) for mlp in mlps)]
    mean = {key: value for key, value in means_of(outcome["accuracy"]).items() if key != "full"}
    shown = [f"{label(key)} {mean[key]:.1f} %" for key in (qv, q, max(mean, key=mean.get), min(mean, key=mean.get))]
    finding = "With the same number of parameters: {}, {}; the best is {}, the worst {}.".format(*shown)
    return accuracy(outcome, qv, q), accuracies(outcome, pairs), finding


def draw(outcome):
    figure, axes = beside_differences(outcome, "The same number of parameters, in which matrices?", 5.4)
    values, rows = outcome["accuracy"], []
    for keys, shade in zip(families(outcome), FAMILIES.values()):
        rows += [(label(key), values[key], shade) for key in keys]
    dots(axes, rows, "test accuracy in %")
    if "full" in values:
        axes.axvline(np.mean(values["full"]), color=COLOURS["full"], linestyle="--", label="full fine-tuning")
        axes.legend()
    return figure


RECIPE = Recipe(
    claim="""With the same number of parameters, adapting W_q and W_v, or all four attention matrices, is better than
    adapting only W_q or only W_k at a higher rank (Hu et al. 2021, table 5: accuracies of 73.7 % for q,v and for
    q,k,v,o, 70.4 % for q and 70.0 % for k).""",
    design={
        "minilm": Design("LoRA q,v r=8 − LoRA q r=16: test accuracy", expected="more", scatter=0.79, pilot=PILOT),
        "smollm2": Design("LoRA q,v r=12 − LoRA q r=20: test accuracy", expected="more"),
    },
    keys={
        "minilm": ("q_r16", "k_r16", "v_r16", "o_r16", "qv_r8", "qkvo_r4", "mlp_r3", "full"),
        "smollm2": ("q_r20", "k_r30", "v_r30", "qv_r12", "qkvo_r6", "gated_mlp"),
    },
    on={"minilm": {"keep": False}, "smollm2": SOME | {"keep": False}},
    table=score_table,
    caption="""Test accuracy of LoRA on different matrices with the same number of trainable parameters. If the claim
    holds, the orange rows (several attention matrices) are to the right of the black rows for q and k. Light blue: the
    MLP. Right panel: the differences for each seed, which decide.""",
)
