"""Which matrices: one attention matrix or several, with the same number of trainable parameters.

On the small base, rank 8 on one of W_q, W_k, W_v, W_o, rank 4 on two of them and rank 2 on all four have the same
number of parameters: 8 (C + C) per block, where C is the model's width. In SmolLM2, keys and values are a third as wide
as queries. There, rank 20 on W_q, 30 on W_k or W_v, 12 on W_q and W_v, and 6 on all four have the same number of
parameters; adapters on the MLP have 0.8 % more. LoRA on attention uses the learning rate that was chosen for q and v,
and LoRA on the MLP uses the rate chosen for all linear layers. On SmolLM2, training uses 2,000 snippets.
"""

from ..drawing import OTHERS, method_dots, panels
from ..evidence import ahead
from ..methods import METHODS, SOME, by_method

CLAIM = """With the same number of parameters, adapting W_q and W_v, or all four attention matrices, is better than
adapting only W_q or only W_k at a higher rank (Hu et al. 2021, table 5: accuracies of 73.7 % for q,v and for q,k,v,o,
70.4 % for q and 70.0 % for k)."""
CAPTION = """Test accuracy of LoRA on different matrices with the same number of trainable parameters. If the claim
holds, the orange rows (several attention matrices) are to the right of the blue rows for q and k. Green: the MLP
(SmolLM2 only)."""
ON = {"smollm2": SOME | {"keep": False}}
KEYS = {
    "pretrained": ("q_r8", "k_r8", "v_r8", "o_r8", "qk_r4", "qv_r4", "qkvo_r2", "full"),
    "smollm2": ("q_r20", "k_r30", "v_r30", "qv_r12", "qkvo_r6", "gated_mlp"),
}


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    places = [key for key in accuracy if key != "full"]
    of = {key.partition("_r")[0]: key for key in places}
    pairs = [(of[several], of[one]) for several in ("qv", "qkvo") for one in ("q", "k")]
    checks = [ahead(f"{METHODS[a].label} − {METHODS[b].label}: test accuracy", accuracy, a, b) for a, b in pairs]
    text = f"LoRA on the MLP − {METHODS[of['qkvo']].label}: test accuracy"
    asides = [ahead(text, accuracy, "gated_mlp", of["qkvo"])] if "gated_mlp" in of else []
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in places}
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "trainable": trained}


def draw(outcome):
    trained = outcome["trainable"]
    budget = " to ".join(f"{n:,}" for n in sorted({min(trained.values()), max(trained.values())}))
    figure, axes = panels(outcome, f"{budget} trained parameters, in which matrices?\n", 9, 5)
    colours = [OTHERS[2 if key == "gated_mlp" else key.startswith(("qk", "qv"))] for key in trained]
    method_dots(axes, {key: METHODS[key].label for key in trained}, outcome["accuracy"], colours, "upper left")
    return figure
