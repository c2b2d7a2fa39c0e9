"""Which section of SPEC.md says how a tensor is computed."""

import re
from functools import cache
from pathlib import Path

from ..model import modules
from .cases.model import config_of

SPEC = Path(__file__).parent / "SPEC.md"
MODELS = ("model", "train", "llama", "llama_train")  # kinds whose tensors have the names of a model's layers
PARTS = {"scores": "context", "probs": "context", "logits": "head"}  # outputs that have no layer of their name


@cache
def sections():
    """The headings of SPEC.md by what they are about: {"layer_norm": "4, layer_norm"}."""
    found, number = {}, ""
    for marks, heading in re.findall(r"^(##+) (.+)$", SPEC.read_text("utf-8"), re.MULTILINE):
        if marks == "##":
            number = heading.partition(".")[0]
        else:
            found |= {name: f"{number}, {heading}" for name in heading.split(", ")}
    return found


def sections_of(entry, tensor):
    """The section of a case's kind and, of a tensor in a model, that of the operation that makes it."""
    names, known = [entry["kind"]], sections()
    if entry["kind"] in MODELS:
        names.append(operation_of(entry["settings"], name_in_model(tensor)))
    return [known[name] for name in names if name in known]


def name_in_model(tensor):
    """The activation or parameter that a tensor is about: without `step.1.`, `grad.` and the like."""
    return re.sub(r"^(step\.\d+\.)?((grad|delta|merged|after)\.)?", "", tensor)


def operation_of(settings, name):
    """The operation that makes an activation, or whose parameter this is; of an adapted layer "lora" or "dora"."""
    layers, (parent, _, last) = modules(config_of(settings["model"])), name.rpartition(".")
    layer = name if name in layers else f"{parent}.{PARTS[last]}".lstrip(".") if last in PARTS else parent
    if settings["adapter"] and layer in settings["adapter"]["layers"]:
        return settings["adapter"]["kind"]
    operation = "cross_entropy" if name == "loss" else getattr(layers.get(layer), "operation", "")
    return "grouped_attention" if operation == "attention" and "n_kv_heads" in settings["model"] else operation
