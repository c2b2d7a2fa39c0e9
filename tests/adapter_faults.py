"""Adapters with a fault each, and what the doctor has to say of it: changes of healthy ones of tiny models."""

import numpy as np

from .adapter_files import BASE, R

LAYER = "model.layers.0.self_attn.q_proj"
OURS = "blocks.0.attn.q_proj"
QV = ["q_proj", "v_proj"]


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): array for name, array in tensors.items()}


def changed(end, change, layer=LAYER):
    """A change of the tensors of a layer whose name ends so; None takes them out."""

    def apply(tensors):
        new = {n: change(a) if layer in n and n.endswith(end) else a for n, a in tensors.items()}
        return {name: array for name, array in new.items() if array is not None}

    return apply


def ones(**shapes):
    """Arrays of ones are added, by name with "__" for its dots."""
    return lambda tensors: tensors | {name.replace("__", "."): np.ones(s, np.float32) for name, s in shapes.items()}


def peft_ones(**shapes):
    return ones(**{BASE + name: shape for name, shape in shapes.items()})


def exchanged(a, b):
    """A and B of the layers change places."""
    return lambda tensors: {n.replace(a, "?").replace(b, a).replace("?", b): array for n, array in tensors.items()}


def gone(array):
    return None


same = dict  # no change
EMBED, M = "model.embed_tokens", "lora_magnitude_vector"
SEQ_CLS = {"task_type": "SEQ_CLS"}
LM_HEAD = peft_ones(lm_head__lora_A__weight=(R, 12), lm_head__lora_B__weight=(13, R))
NINTH = peft_ones(model__layers__9__self_attn__q_proj__lora_A__weight=(R, 12))
M_OF_LAYER = peft_ones(model__layers__0__self_attn__q_proj__lora_magnitude_vector=(36,))
PEFT_FAULTS = {  # name: (base, change of the tensors, fields, layer with the note, its status, note, exit code)
    "no second model.": ("llama", renamed("model.model.model", "model.model"), {}, "q_proj", "ignored",
        "begins with 'base_model.model.', expected 'base_model.model.model.'", 1),
    "no base_model.model.": ("llama", renamed(BASE, ""), {}, "q_proj", "ignored",
        "begins with 'model.', expected 'base_model.model.model.'", 1),
    "names of the bare GPT-2": ("gpt2", renamed("transformer.", ""), {}, "c_attn", "ignored",
        "expected 'base_model.model.transformer.'", 1),
    "names of GGUF": ("llama", renamed(LAYER, "blk.0.attn_q"), {}, "blk.0.attn_q", "ignored",
        "its name in the base is 'base_model.model.model.layers.N.self_attn.q_proj'", 0),
    "our names": ("llama", renamed(BASE + LAYER, OURS), {}, OURS, "ignored", "its name in the base is", 0),
    ".default.": ("llama", renamed(".weight", ".default.weight"), {}, LAYER, "applied", "'.default.' in the", 0),
    "another adapter's name": ("llama", renamed(".weight", ".mine.weight"), {}, "A.mine.weight", "ignored",
        "tensors with this name", 1),
    "B zero": ("llama", changed("lora_B.weight", np.zeros_like, ""), {}, LAYER, "applied", "B is zero", 1),
    "A zero in a layer": ("llama", changed("lora_A.weight", np.zeros_like), {}, LAYER, "applied", "A is zero", 0),
    "NaN": ("llama", changed("lora_A.weight", lambda a: a * np.nan), {}, LAYER, "applied", "NaN", 1),
    "infinite": ("llama", changed("lora_B.weight", lambda b: b / 0.0), {}, LAYER, "applied", "infinite", 1),
    "overflow": ("llama", changed("weight", lambda x: x * np.float32(1e30)), {}, LAYER, "applied", "larger than", 1),
    "transposed": ("llama", changed("weight", np.transpose), {}, LAYER, "refused", "transposed", 1),
    "exchanged": ("llama", exchanged("lora_A", "lora_B"), {}, LAYER, "refused", "swapped", 1),
    "another rank": ("llama", same, {"r": 3}, LAYER, "refused", "have rank 4, but the configuration says 3", 1),
    "rank 0": ("llama", same, {"r": 0}, LAYER, "refused", "rank: got 0, expected", 1),
    "another base": ("llama", changed("lora_A.weight", lambda a: a[:, :-1], ""), {}, LAYER, "refused",
        "wrong shape for this base", 1),
    "no such layer": ("llama", NINTH, {}, "layers.9.self_attn.q_proj", "ignored", "no such layer", 0),
    "no B": ("llama", changed("lora_B.weight", gone), {}, LAYER, "ignored", "lora_B is missing", 0),
    "no B anywhere": ("llama", changed("lora_B.weight", gone, ""), {}, LAYER, "ignored", "lora_B is missing", 1),
    "no A": ("llama", changed("lora_A.weight", gone), {}, LAYER, "applied", "initialises it randomly", 1),
    "not a target": ("llama", same, {"target_modules": ["v_proj"]}, LAYER, "ignored", "not a target", 0),
    "no tensors": ("llama", changed("weight", gone), {}, LAYER, "no tensors", "a target", 0),
    "no target": ("llama", same, {"target_modules": ["query"]}, LAYER, "ignored", "not a target", 1),
    "a norm as target": ("llama", same, {"target_modules": [*QV, "norm"]}, "model.norm", "refused", "LoRA on norms", 1),
    "alpha 0": ("llama", same, {"lora_alpha": 0}, LAYER, "applied", "scale 0", 1),
    "large alpha": ("llama", same, {"lora_alpha": 5e3}, LAYER, "applied", "larger than the weight itself", 0),
    "tied head": ("llama", LM_HEAD, {"target_modules": [*QV, "lm_head"]}, "lm_head", "applied", "tied", 0),
    "tied embedding": ("llama", peft_ones(model__embed_tokens__weight=(13, 12)), {"modules_to_save": ["embed_tokens"]},
        EMBED, "applied", "tied", 0),
    "to be saved and missing": ("llama", same, {"modules_to_save": ["embed_tokens"]}, EMBED, "refused", "missing", 1),
    "head of no classifier": ("llama", peft_ones(score__weight=(3, 12)), {}, "score.weight", "ignored",
        "a head that PEFT ignores", 0),
    "head of another name": ("gpt2", peft_ones(classifier__weight=(3, 12)), SEQ_CLS, "classifier.weight", "ignored",
        "expected base_model.model.score.weight", 1),
    "no head": ("gpt2", same, SEQ_CLS, "score", "refused", "its weight is missing", 1),
    "head of another width": ("gpt2", peft_ones(score__weight=(3, 11)), SEQ_CLS, "score", "refused",
        "(3, 11), expected (3, 12)", 1),
    "magnitudes without DoRA": ("llama", M_OF_LAYER, {}, LAYER, "applied", f"{M} is ignored", 0),
    "DoRA without magnitudes": ("llama", same, {"use_dora": True}, LAYER, "applied", f"{M} is missing", 0),
    "a list of layers": ("llama", same, {"layers_to_transform": [1], "target_modules": QV}, LAYER, "ignored",
        "not a target", 0),
}  # fmt: skip
FIRST, UINT32 = "blk.0.attn_q", np.array([3], np.uint32)
GGUF_FAULTS = {  # name: (change of the tensors, fields, layer, status, note, exit code)
    "no half": (changed("lora_b", gone, FIRST), {}, FIRST, "refused", "lora_b is missing", 1),
    "names of Hugging Face": (renamed(FIRST, LAYER), {}, LAYER, "refused", "its name in the base is 'blk.N.attn_q'", 1),
    "no such layer": (renamed("blk.1", "blk.7"), {}, "blk.7.attn_q", "refused", "no such layer", 1),
    "shape": (changed("lora_a", lambda a: a[:, :-1], FIRST), {}, FIRST, "refused", "wrong shape", 1),
    "exchanged": (exchanged("lora_a", "lora_b"), {}, FIRST, "refused", "swapped", 1),
    "head of a tied base": (ones(output__weight__lora_a=(R, 12), output__weight__lora_b=(13, R)), {}, "output",
        "refused", "tied", 1),
    "embedding of a tied base": (ones(token_embd__weight__lora_a=(13, R), token_embd__weight__lora_b=(12, R)), {},
        "token_embd", "refused", "tied", 1),
    "magnitudes": (ones(blk__0__attn_q__weight__lora_magnitude_vector=36), {}, M, "refused", "does not end in", 1),
    "a norm": (ones(blk__0__attn_norm__weight=12), {}, "attn_norm.weight", "ignored", "norms", 0),
    "factors of a norm": (ones(output_norm__weight__lora_a=(R, 12), output_norm__weight__lora_b=(12, R)), {},
        "output_norm", "refused", "no such layer to adapt", 1),
    "NaN": (changed("lora_a", lambda a: a * np.nan, FIRST), {}, FIRST, "applied", "NaN", 1),
    "alpha NaN": (same, {"adapter_lora_alpha": np.nan}, FIRST, "applied", "NaN", 1),
    "B zero": (changed("lora_b", np.zeros_like, ""), {}, FIRST, "applied", "B is zero", 1),
    "alpha 0": (same, {"adapter_lora_alpha": 0.0}, FIRST, "applied", "adapter.lora.alpha is 0: the scale is 1", 0),
    "no alpha": (same, {"adapter_lora_alpha": None}, FIRST, "applied", "alpha is missing: the scale is 1", 0),
    "activated": (same, {"adapter.alora.invocation_tokens": UINT32}, FIRST, "applied", "only after these tokens", 0),
    "rows of q in the wrong order": (same, {}, FIRST, "applied", "read in GGUF's order", 0),
    "large alpha": (same, {"adapter_lora_alpha": 5e3}, FIRST, "applied", "larger than the weight", 0),
}  # fmt: skip
REFUSED_GGUF = {
    "architecture": ({"general_architecture": "qwen2"}, "general.architecture is 'qwen2', expected 'llama'"),
    "type": ({"general_type": "model"}, "general.type is 'model'"),
    "kind": ({"adapter_type": None}, "adapter.type is None"),
    "tokens of another type": ({"adapter.alora.invocation_tokens": [3]}, "expected an array of uint32"),
}
OUR_FAULTS = {  # name: (change of the tensors, fields, layer, status, note)
    "no half": (changed("lora_B", gone, OURS), {}, OURS, "refused", "lora_B is missing"),
    "prefix": (renamed("blocks.", "model.blocks."), {}, f"model.{OURS}", "refused", "begins with 'model.'"),
    "not a target": (same, {"targets": ["v_proj"]}, OURS, "refused", "not a target"),
    "no tensors": (same, {"targets": ["all-linear"]}, "blocks.0.mlp.up_proj", "no tensors", "a target"),
    "NaN": (changed("lora_A", lambda a: a * np.nan, OURS), {}, OURS, "applied", "NaN"),
    "another rank": (same, {"r": 3}, OURS, "refused", "have rank 4, but the configuration says 3"),
    "scale 0": (same, {"alpha": 0.0}, OURS, "applied", "scale 0"),
    "B zero": (changed("lora_B", np.zeros_like, ""), {}, OURS, "applied", "B is zero"),
    "a foreign tensor": (ones(x=3), {}, "x", "refused", "not a tensor"),
}
