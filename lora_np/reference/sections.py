"""Find the section of SPEC.md that defines a tensor."""

import re
from functools import cache
from pathlib import Path

from ..model import modules
from .cases.model import config_of

SPEC = Path(__file__).parent / "SPEC.md"
# Kinds of cases whose tensors are named after a model's layers.
MODELS = ("model", "train", "llama", "llama_train", "bert")
LAYERS = {"scores": "context", "probs": "context", "logits": "head"}  # output -> its layer, if the names differ


@cache
def sections():
    """The numbered headings of SPEC.md by subject: {"layer_norm": "4, layer_norm"}."""
    headings, number = {}, ""
    for marks, heading in re.findall(r"^(##+) (.+)$", SPEC.read_text("utf-8"), re.MULTILINE):
        if marks == "##":
            number = heading.partition(".")[0]
        else:
            headings |= {name: f"{number}, {heading}" for name in heading.split(", ")}
    return headings


def sections_of(entry, tensor):
    """List the sections that define a tensor: that of its case and, in a model, that of its operation."""
    names, known = [entry["kind"]], sections()
    if entry["kind"] in MODELS:
        names.append(operation_of(entry["settings"], name_in_model(tensor)))
    return [known[name] for name in names if name in known]


def name_in_model(tensor):
    """The name of the activation or parameter, without prefixes such as `step.1.` and `grad.`."""
    return re.sub(r"^(step\.\d+\.)?((grad|delta|merged|after)\.)?", "", tensor)


def operation_of(settings, name):
    """Name the operation that computes an activation or uses a parameter; "lora" or "dora" for an adapted layer."""
    layers, (parent, _, last) = modules(config_of(settings["model"])), name.rpartition(".")
    layer = name if name in layers else f"{parent}.{LAYERS[last]}".lstrip(".") if last in LAYERS else parent
    if settings["adapter"] and layer in settings["adapter"]["layers"]:
        return settings["adapter"]["kind"]
    operation = "cross_entropy" if name == "loss" else getattr(layers.get(layer), "operation", "")
    return "grouped_attention" if operation == "attention" and "n_kv_heads" in settings["model"] else operation
