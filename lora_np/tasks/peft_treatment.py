"""What PEFT does with each tensor of an adapter's file, whatever is in it.

PEFT ignores names that it does not know. Targets without tensors stay as they begin: A random, B zero, DoRA's m the
norms of W's rows. A tensor with the name of one of the base's weights replaces it. Shapes that do not fit are an error;
so is a module to be loaded as a whole that is missing. (peft.utils.save_and_load.set_peft_model_state_dict)
"""

import re

import numpy as np

from ..adapters import HEAD
from ..adapters.dora import MAGNITUDE, row_norms
from ..formats.hugging_face import bare
from ..formats.names import is_llama, layer_names
from ..formats.peft import BASE, FACTORS
from ..formats.peft_config import DEFAULT_TARGETS, as_list, is_target, match_fields, rank_and_scale
from .treatment import (
    APPLIED,
    IGNORED,
    NO_TENSORS,
    REFUSED,
    Layer,
    Treatment,
    fault_of_shapes,
    in_order,
    is_linear,
    misnamed,
    scale_source,
)

OF_EMBEDDING = {"lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}  # PEFT's names of an embedding's factors
PEFT_NAME = re.compile(rf"(.+)\.({'|'.join([*FACTORS, *OF_EMBEDDING, MAGNITUDE])})((?:\.[^.]+){{0,2}})")
PEFT_ENDS = {**dict.fromkeys(FACTORS, (".weight",)), **dict.fromkeys(OF_EMBEDDING, ("",)), MAGNITUDE: ("", ".weight")}
DEFAULT_NAME = "'.default.' in the tensors' names, which only newer versions of PEFT read"
RANDOM = "no lora_A, which PEFT then draws at random"
TIED = "tied: merged or exported, it changes the embedding and the head; llama.cpp refuses it"


def by_peft(path, fields, tensors, base):
    """The Treatment by PEFT.

    Parameters
    ----------
    path : of `adapter_config.json`, for messages
    fields : what `read_fields` gives for it
    tensors : dict, those of `adapter_model.safetensors`
    base : Task

    Raises
    ------
    ValueError
        For a pattern of the configuration that is none.
    """
    names, tied = peft_names(fields, base)
    if fields.get("target_modules") is None:
        fields = {**fields, "target_modules": DEFAULT_TARGETS["llama" if is_llama(base.params) else "gpt2"]}
    found, all_linear = match_fields(path, fields, names), fields["target_modules"] == "all-linear"
    targets = [n for n in names if is_target(fields, found, n) and (is_linear(names[n]) or not all_linear)]
    saved = as_list(fields.get("modules_to_save") or [])
    saved += ["classifier", "score"] if fields.get("task_type") == "SEQ_CLS" else []
    wrapped = [name for name in names if any(name.endswith(ending) for ending in saved)]
    factors, ends, others = by_module(tensors)
    layers = [whole_weight(key, array, names, wrapped, tied, base) for key, array in others.items()]
    meant = set()
    for module, arrays in factors.items():
        name, note = module.removeprefix(BASE), None
        if not module.startswith(BASE) or name not in names:
            name, note = misnamed(module, names, base.params, BASE)
        elif unread := [leaf + end for leaf, end in ends.get(module, {}).items() if not end.startswith(".default")]:
            note = f"PEFT does not read names that end in {unread[0]!r}"
        elif name not in targets:
            note = "not a target of the configuration"
        meant.add(name)
        if note:
            rank = next((len(A) for leaf, A in arrays.items() if leaf.endswith("_A") and A.ndim), None)
            layers.append(Layer(name if module == f"{BASE}{name}" else module, IGNORED, (note,), rank=rank))
            continue
        layer = peft_layer(path, fields, found, name, arrays, names[name], base.params)
        notes = (DEFAULT_NAME,) * (module in ends) + (TIED,) * (name in tied)
        layers.append(layer._replace(notes=layer.notes + notes, alone=name in tied))
    layers += [Layer(n, NO_TENSORS, ("a target, which stays as it is",)) for n in targets if n not in meant]
    layers += missing_modules(wrapped, names, tensors, base.params)
    refused = [] if targets else ["target_modules fits no layer of the base"]
    norms = [n for n in targets if not is_linear(names[n]) and names[n][0] not in ("tok_emb", "pos_emb", "head")]
    refused += [f"target_modules fits {norms[0]}, and PEFT has no LoRA for norms"] if norms else []
    return Treatment("PEFT", "dora" if fields.get("use_dora") else "lora", in_order(layers, names), refused)


def by_module(tensors):
    """The factors {module: {"lora_A": …}}; unusual ends of their names {module: {"lora_A": end}}; the other tensors."""
    factors, ends, others = {}, {}, {}
    for key, array in tensors.items():
        if match := PEFT_NAME.fullmatch(key):
            module, leaf, end = match.groups()
            factors.setdefault(module, {})[leaf] = array
            if end not in PEFT_ENDS[leaf]:
                ends.setdefault(module, {})[leaf] = end
        else:
            others[key] = array
    return factors, ends, others


def missing_modules(wrapped, names, tensors, params):
    """The modules that PEFT wants to load as a whole and the file lacks, each a refused Layer."""
    for name in wrapped:
        leaves = ["weight"] + ["bias"] * (f"{names[name][0]}.bias" in params)
        missing = [f"{BASE}{name}.{leaf}" for leaf in leaves if f"{BASE}{name}.{leaf}" not in tensors]
        if missing:
            yield Layer(name, REFUSED, (f"to be loaded as a whole, but {missing[0]} is missing",))


def peft_names(fields, base):
    """The names of the base's layers in the model class that PEFT gets, with ours; and those that share a weight."""
    names = {name: tuple(ours) for name, ours in layer_names(base.params, "hf").items() if name != "lm_head"}
    if fields.get("task_type") == "SEQ_CLS" or base.config.n_classes:
        return {**names, "score": ("head",)}, ()
    if fields.get("task_type") == "FEATURE_EXTRACTION":  # the model without a head
        return {bare(name): ours for name, ours in names.items()}, ()
    is_tied = HEAD not in base.params
    return {**names, "lm_head": ("tok_emb",) if is_tied else ("head",)}, (next(iter(names)), "lm_head") * is_tied


def peft_layer(path, fields, found, name, arrays, ours, params):
    """A Layer with tensors that is a target."""
    weights = [params[f"{layer}.weight"] for layer in ours]
    n_out, n_in = sum(weight.shape[0] for weight in weights), weights[0].shape[-1]
    expected = {leaf: leaf for leaf in (*FACTORS, MAGNITUDE)}
    if ours[0] in ("tok_emb", "pos_emb") and name != "lm_head":
        n_out, n_in, expected = n_in, n_out, OF_EMBEDDING
    arrays = {expected[leaf]: array for leaf, array in arrays.items() if leaf in expected}
    if not arrays:
        return Layer(name, IGNORED, (f"PEFT reads {' and '.join(list(expected)[:2])} here",))
    try:
        rank, scale = rank_and_scale(path, fields, found, name)
    except ValueError as error:
        return Layer(name, REFUSED, (str(error).removeprefix(f"{path}: "),))
    source = scale_source(fields, "r", "lora_alpha", 8, lambda field, key: name in found[field, key], "use_rslora")
    layer = Layer(name, APPLIED, (), ours, {}, rank, scale, source)
    fault = fault_of_shapes(arrays, n_out, n_in, rank)
    if fault:
        return layer._replace(status=REFUSED, notes=(fault,))
    notes = []
    if MAGNITUDE in arrays and not fields.get("use_dora"):
        notes.append(f"use_dora is false: {MAGNITUDE} is ignored")
        arrays = {leaf: array for leaf, array in arrays.items() if leaf != MAGNITUDE}
    if "lora_A" not in arrays:
        is_used = "lora_B" in arrays and arrays["lora_B"].any()
        notes.append(RANDOM if is_used else "no lora_A")
    if "lora_B" not in arrays:
        notes.append("no lora_B, which stays zero")
    whole = {"lora_A": np.zeros((rank, n_in), np.float32), "lora_B": np.zeros((n_out, rank), np.float32)}
    if fields.get("use_dora"):
        if MAGNITUDE not in arrays:
            notes.append(f"no {MAGNITUDE}: m stays the norms of the base's rows")
        whole[MAGNITUDE] = np.concatenate([row_norms(np.asarray(weight)) for weight in weights])
    return layer._replace(notes=tuple(notes), arrays=whole | arrays)


def whole_weight(key, array, names, wrapped, tied, base):
    """The Layer of a tensor that is no factor: PEFT loads it if the base has a weight of this name."""
    module, _, leaf = key.removeprefix(BASE).rpartition(".")
    name = module.removesuffix(".base_layer")
    ours = [f"{layer}.{leaf}" for layer in names.get(name, ())]
    if not key.startswith(BASE) or not ours or not (ours[0] in base.params or ours == [HEAD]):
        note = "PEFT reads no tensor of this name"
        if re.search(r"(^|\.)(score|classifier|head)\.", key):
            wanted = f"expected {BASE}score.weight" if "score" in names else "the model has no classifier's head"
            note = f"a head that is not read: {wanted}"
        return Layer(key, IGNORED, (note,))
    notes = () if name in wrapped else ("overwrites the base's own, though modules_to_save does not name it",)
    notes += (TIED,) * (name in tied)
    if is_linear(names[name]):  # which GPT-2 has in another layout
        return Layer(name, APPLIED, notes, names[name], alone=True)
    expected = (*array.shape[:1], base.config.d_model) if name == "score" else base.params[ours[0]].shape
    if array.shape != expected:
        return Layer(name, REFUSED, (f"{leaf} {array.shape}, expected {expected}",))
    alone = name in tied and name in wrapped or name == "score" and len(array) < 2
    return Layer(name, APPLIED, notes, names[name], {leaf: array}, alone=alone)
