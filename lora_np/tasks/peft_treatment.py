"""What PEFT does with each tensor of an adapter's file, whatever is in it.

PEFT ignores names that it does not know. Targets without tensors stay as they begin: A random, B zero, DoRA's m the
norms of W's rows. A tensor with the name of one of the base's weights replaces it. Shapes that do not fit are an error;
so is a module to be loaded as a whole that is missing. (peft.utils.save_and_load.set_peft_model_state_dict)
"""

import re

from ..adapters import HEAD
from ..adapters.dora import MAGNITUDE
from ..formats.names import is_llama, layer_names
from ..formats.peft import BASE, LEAVES
from ..formats.peft_config import DEFAULT_TARGETS, as_list, is_target, match_fields, rank_and_scale
from .treatment import APPLIED, IGNORED, REFUSED, Layer, Program, Treatment, base_array, by_layer, is_linear, treat

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


def by_peft(path, fields, tensors, base):
    """The Treatment by PEFT.

    Parameters
    ----------
    path, fields : `adapter_config.json`, for messages, and what `read_fields` gives for it
    tensors : dict, those of `adapter_model.safetensors`
    base : Task
    """
    params, kind = base.params, "dora" if fields.get("use_dora") else "lora"
    names = {name: tuple(ours) for name, ours in layer_names(params, "hf").items() if name != "lm_head"}
    saved, tied = as_list(fields.get("modules_to_save") or []), ()
    if fields.get("task_type") == "SEQ_CLS" or base.config.n_classes:
        names["score"] = ("head",)
        saved += ["classifier", "score"] * (fields.get("task_type") == "SEQ_CLS")
    else:
        names["lm_head"] = ("head",)
        tied = (next(iter(names)), "lm_head") if HEAD not in params else ()
    if fields.get("target_modules") is None:
        fields = {**fields, "target_modules": DEFAULT_TARGETS["llama" if is_llama(params) else "gpt2"]}
    found, all_linear = match_fields(path, fields, names), fields["target_modules"] == "all-linear"
    targets = [n for n in names if is_target(fields, found, n) and (is_linear(names[n]) or not all_linear)]
    norms = [name for name in targets if not names[name][0].endswith(("_proj", "_emb", "head"))]

    def scale_of(name, arrays):
        try:
            return *rank_and_scale(path, fields, found, name), scale_source(fields, found, name)
        except ValueError as error:  # the same text for all layers
            raise ValueError(str(error).removeprefix(f"{path}: ").replace(f" of {name}", "")) from None

    note = (DEFAULT_NOTE,) * any(DEFAULT.search(key) for key in tensors)
    notes = {name: note + (TIED,) * (name in tied) for name in names}
    factors, others = by_layer({DEFAULT.sub("", key): array for key, array in tensors.items()}, PEFT_NAME)
    layers = [whole_weight(key, array, names, notes, params) for key, array in others.items()]
    for name in names:
        if any(name.endswith(ending) for ending in saved) and f"{BASE}{name}.weight" not in others:
            layers.append(Layer(name, REFUSED, ("to be loaded as a whole, but its weight is missing",)))
    layers += [Layer(name, REFUSED, ("a target, but PEFT has no LoRA for norms",)) for name in norms]
    refused = [] if targets else ["target_modules fits no layer of the base"]
    targets = [name for name in targets if name not in norms]
    missing = {leaf: why for leaf, why in MISSING.items() if leaf in LEAVES[kind]}
    program = Program(names, targets, missing, scale_of, fields.get("use_rslora", False), IGNORED, BASE, notes)
    return Treatment("PEFT", kind, treat(program, factors, params, layers), refused)


def scale_source(fields, found, name):
    """The patterns and defaults that a layer's scale comes from, such as "alpha_pattern q_proj"."""
    sources = []
    for field, plain in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        key = next((key for key in fields.get(field) or {} if name in found[field, key]), None)
        sources += [f"{field} {key}"] if key is not None else [f"default {plain}"] * (plain not in fields)
    return ", ".join(sources)


def whole_weight(key, array, names, notes, params):
    """The Layer of a tensor that is no factor: PEFT loads it if the base has a weight of this name."""
    module, _, leaf = key.removeprefix(BASE).rpartition(".")
    name = module.removesuffix(".base_layer")
    old = base_array(params, names[name], leaf) if key.startswith(BASE) and name in names else None
    if old is None:
        note = "PEFT reads no tensor of this name"
        if re.search(r"(^|\.)(score|classifier|head)\.", key):
            wanted = f"expected {BASE}score.weight" if "score" in names else "the model has no classifier's head"
            note = f"a head that is not read: {wanted}"
        return Layer(key, IGNORED, (note,))
    layer = Layer(name, APPLIED, notes[name], names[name])
    expected = (*array.shape[:1], *old.shape[1:]) if name == "score" else old.shape
    if is_linear(layer.ours):  # which GPT-2 has in another layout
        return layer
    if array.shape != expected:
        return layer._replace(status=REFUSED, notes=(f"{leaf} {array.shape}, expected {expected}",))
    return layer if name == "score" and len(array) < 2 else layer._replace(arrays={leaf: array})
