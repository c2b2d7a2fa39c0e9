"""What PEFT does with each tensor of an adapter's file. `load_peft` and the doctor both follow this.

PEFT ignores names that it does not know. Targets without tensors keep their initial values: A is random, B zero, and
DoRA's m the norms of W's rows. A tensor with the name of one of the base's weights replaces it. Shapes that do not fit
are an error; so is a missing module that should be loaded whole. (peft.utils.save_and_load.set_peft_model_state_dict)
"""

import re

from ..adapters import HEAD
from ..adapters.dora import MAGNITUDE
from ..model import architecture
from .adapter_report import (
    APPLIED,
    IGNORED,
    LEAVES,
    REFUSED,
    AdapterReport,
    LayerReport,
    Rules,
    base_array,
    is_adaptable,
    report_layers,
    split_by_layer,
)
from .names import layer_names
from .peft_config import as_list, is_target, match_fields, rank_and_scale

BASE = "base_model.model."
PEFT_NAME = re.compile(rf"(.+)\.(lora_[AB](?=\.weight$)|lora_embedding_[AB]|{MAGNITUDE})(?:\.weight)?")
DEFAULT = re.compile(r"\.default(?=(\.weight)?$)")  # the adapter's own name, which PEFT leaves out
DEFAULT_NOTE = "'.default.' in the tensors' names, which only newer versions of PEFT read"
RANDOM = "lora_A is missing, and PEFT draws it at random"
TIED = "embedding and head are tied: merged, the adapter changes both; llama.cpp refuses it"
MISSING = {
    "lora_B": (IGNORED, "lora_B is missing, and PEFT leaves it zero"),
    "lora_A": (APPLIED, RANDOM),
    MAGNITUDE: (APPLIED, f"{MAGNITUDE} is missing, and PEFT takes the norms of the base's rows"),
}


def peft_report(path, fields, tensors, params, config, names=None):
    """What PEFT does with an adapter on a base.

    Parameters
    ----------
    path, fields : `adapter_config.json`, for messages, and what `read_fields` returned for it
    tensors : dict, those of `adapter_model.safetensors`
    params, config : the base's
    names : dict, name of a layer in the file, without PEFT's prefix -> our layers in it; None: Hugging Face's names

    Returns
    -------
    AdapterReport
    """
    kind = "dora" if fields.get("use_dora") else "lora"
    names = layer_names(config, "hf") if names is None else names
    names = {name: tuple(ours) for name, ours in names.items() if ours != ["head"]}
    saved, tied = saved_modules(fields), ()
    if fields.get("task_type") == "SEQ_CLS" or config.n_classes:
        names["score"] = ("head",)
    else:
        names["lm_head"] = ("head",)
        tied = (next(iter(names)), "lm_head") if HEAD not in params else ()
    if fields.get("target_modules") is None:
        fields = {**fields, "target_modules": list(architecture(config).peft_targets)}
    found, all_linear = match_fields(path, fields, names), fields["target_modules"] == "all-linear"
    targets = [n for n in names if is_target(fields, found, n) and (is_adaptable(names[n]) or not all_linear)]
    norms = [
        name for name in targets if not is_adaptable(names[name]) and not names[name][0].endswith(("_emb", "head"))
    ]

    def scale_of(name, arrays):
        try:
            return *rank_and_scale(path, fields, found, name), scale_source(fields, found, name)
        except ValueError as error:  # the same text for all layers
            raise ValueError(str(error).removeprefix(f"{path}: ").replace(f" of {name}", "")) from None

    note = (DEFAULT_NOTE,) * any(DEFAULT.search(key) for key in tensors)
    notes = {name: note + (TIED,) * (name in tied) for name in names}
    factors, others = split_by_layer({DEFAULT.sub("", key): array for key, array in tensors.items()}, PEFT_NAME)
    layers = [whole_weight(key, array, names, notes, params) for key, array in others.items()]
    for name in names:
        if any(name.endswith(ending) for ending in saved) and f"{BASE}{name}.weight" not in others:
            layers.append(LayerReport(name, REFUSED, ("must be loaded whole, but its weight is missing",)))
    layers += [LayerReport(name, REFUSED, ("a target, but PEFT has no LoRA for norms",)) for name in norms]
    refused = [] if targets else ["target_modules fits no layer of the base"]
    targets = [name for name in targets if name not in norms]
    missing = {leaf: why for leaf, why in MISSING.items() if leaf in LEAVES[kind]}
    rules = Rules(names, targets, missing, scale_of, fields.get("use_rslora", False), IGNORED, BASE, notes)
    return AdapterReport("PEFT", kind, report_layers(rules, factors, params, config, layers), refused)


def saved_modules(fields):
    """The ends of names of modules that PEFT loads whole."""
    saved = as_list(fields.get("modules_to_save") or [])
    return saved + ["classifier", "score"] * (fields.get("task_type") == "SEQ_CLS")


def scale_source(fields, found, name):
    """The patterns and defaults that a layer's scale comes from, such as "alpha_pattern q_proj"."""
    sources = []
    for field, plain in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        key = next((key for key in fields.get(field) or {} if name in found[field, key]), None)
        sources += [f"{field} {key}"] if key is not None else [f"default {plain}"] * (plain not in fields)
    return ", ".join(sources)


def whole_weight(key, array, names, notes, params):
    """The LayerReport of a tensor that is no factor: PEFT loads it if the base has a weight of this name."""
    module, _, leaf = key.removeprefix(BASE).rpartition(".")
    name = module.removesuffix(".base_layer")
    old = base_array(params, names[name], leaf) if key.startswith(BASE) and name in names else None
    if old is None:
        note = "PEFT reads no tensor of this name"
        if re.search(r"(^|\.)(score|classifier|head)\.", key):
            wanted = f"expected {BASE}score.weight" if "score" in names else "the model has no classifier's head"
            note = f"a head that is not read: {wanted}"
        return LayerReport(key, IGNORED, (note,))
    layer = LayerReport(name, APPLIED, notes[name], names[name])
    expected = (*array.shape[:1], *old.shape[1:]) if name == "score" else old.shape
    if is_adaptable(layer.ours):  # GPT-2 stores them in a different layout
        return layer
    if array.shape != expected:
        return layer._replace(status=REFUSED, notes=(f"{leaf} {array.shape}, expected {expected}",))
    return layer if name == "score" and len(array) < 2 else layer._replace(arrays={leaf: array})
