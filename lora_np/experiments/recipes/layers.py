"""Which blocks: the first, middle or last third, or all blocks, with the same number of trainable parameters.

LoRA on all linear layers is trained for one epoch on 2,000 snippets, at rank 6 in ten of SmolLM2's thirty blocks or at
rank 2 in all thirty, so that the number of parameters is the same. All methods use the learning rate that was chosen
for LoRA on all linear layers.
"""

from ..drawing import COLOURS, method_dots, panels
from ..evidence import ahead
from ..methods import METHODS, SOME, TEN_BLOCKS, by_method

CLAIM = "LoRA is more effective in the last blocks than in the first blocks (Zhang et al. 2023, AdaLoRA, figure 1)."
CAPTION = """Test accuracy of LoRA in different blocks with the same number of trainable parameters: in ten of the
thirty blocks (blue), or in all of them (orange)."""
ON = {"smollm2": SOME | {"keep": False}}
KEYS = {"smollm2": (*(f"{name}_r6" for name in TEN_BLOCKS), "all_r2")}


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    text = "last 10 blocks − {} 10 blocks: test accuracy"
    checks = [ahead(text.format(name), accuracy, "last_r6", f"{name}_r6") for name in ("first", "middle")]
    asides = [ahead("all 30 blocks − last 10 blocks: test accuracy", accuracy, "all_r2", "last_r6")]
    trained = results[runs["all_r2", seeds[0]]]["trainable"]
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "trainable": trained}


def draw(outcome):
    figure, axes = panels(outcome, f"{outcome['trainable']:,} trained parameters, in which blocks?\n", 9, 4)
    labels = {key: METHODS[key].label for key in outcome["accuracy"]}
    method_dots(axes, labels, outcome["accuracy"], COLOURS["lora_qv"])
    return figure
