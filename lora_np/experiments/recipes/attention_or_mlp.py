"""Attention or MLP: which is better to adapt with a given number of trainable parameters?

The model's width is C = 256, and the MLP's is 4 C. LoRA with r = 45 on the four attention matrices and LoRA with r = 36
on the two MLP matrices have 92,160 parameters per block each; with r = 5 and r = 4, respectively, they have 10,240
each. One method adapts all six matrices, with r = 36. Each method has its own learning rate.
"""

from ..drawing import OTHERS, method_dots, panels
from ..evidence import ahead, as_good
from ..methods import METHODS, by_method

CLAIM = """Adapters on the MLP matter most: they outperform adapters on attention with the same number of parameters,
and adding adapters on attention brings no further gain (Schulman et al. 2025, LoRA Without Regret)."""
CAPTION = """Test accuracy by adapted layers, at two parameter budgets; adapters on both attention and the MLP have 1.8
times as many parameters as the larger budget allows. If the claim holds, each MLP row is to the right of the attention
row with the same budget, and the MLP row with the larger budget is as far right as the row in which both are
adapted."""
PLACES = ("attention_r45", "mlp_r36", "all_r36", "attention_r5", "mlp_r4")
KEYS = {"pretrained": (*PLACES, "full")}


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    checks = [
        ahead("MLP r = 36 − attention r = 45: test accuracy", accuracy, "mlp_r36", "attention_r45"),
        ahead("MLP r = 4 − attention r = 5: test accuracy", accuracy, "mlp_r4", "attention_r5"),
        as_good("MLP r = 36 − MLP and attention r = 36: test loss", loss, "mlp_r36", "all_r36"),
    ]
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in PLACES}
    return {"checks": checks, "accuracy": accuracy, "trainable": trained}


def draw(outcome):
    figure, axes = panels(outcome, "Attention, MLP, or both?", 9, 4.4)
    labels = {key: f"{METHODS[key].label}\n{n:,} parameters" for key, n in outcome["trainable"].items()}
    method_dots(axes, labels, outcome["accuracy"], [OTHERS[1]] * 3 + [OTHERS[2]] * 2)
    return figure
