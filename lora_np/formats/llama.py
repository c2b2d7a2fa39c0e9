"""Llama in the files of transformers and llama.cpp: the fields that configure it."""

import re

from ..checked import quoted
from ..model import LlamaConfig
from .checkpoint import check_depth
from .hugging_face import FIXED, NO_IDS, FileFormat, check_fixed, our_config

HF_FIXED = FIXED | {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "rope_interleaved": (None, False),
    "partial_rotary_factor": (None, 1.0),
}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "d_ff",
}
OPTIONAL = {
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_size",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
}
NUMBERS = {"max_position_embeddings": "n_positions", "rms_norm_eps": "rms_norm_eps", "rope_theta": "rope_theta"}
DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}  # LlamaConfig's
ROPE = ("default", None)  # supported kinds of rotary positions: unscaled ones
GGUF_NUMBERS = {  # "llama." + name -> ours
    "context_length": "n_positions",
    "embedding_length": "d_model",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "feed_forward_length": "d_ff",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
GGUF_MORE = {  # that may be missing
    "attention.head_count_kv": "n_kv_heads",
    "attention.key_length": "head_size",
    "attention.value_length": "head_size",
    "rope.dimension_count": "head_size",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}


def config_from_fields(path, fields, tensors):
    """Our configuration from the fields of a Llama's `config.json`, of transformers 4 or 5."""
    fields = {"model_type": "llama"} | fields
    check_fixed(path, fields, HF_FIXED)
    given = {**DEFAULTS, **{name: fields[name] for name in DEFAULTS if fields.get(name) is not None}}
    for name in ("rope_scaling", "rope_parameters"):
        rope = fields.get(name) or {}
        kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else rope
        if not isinstance(rope, dict) or kind not in ROPE:
            expected = "expected unscaled rotary positions, 'default'"
            raise ValueError(f"{path}: {name} is {quoted(fields[name])}, {expected}")
        given["rope_theta"] = rope.get("rope_theta", given["rope_theta"])
    fields = {name: value for name, value in fields.items() if name not in OPTIONAL or value is not None}
    heads, width = fields.get("num_attention_heads"), fields.get("hidden_size")
    whole = isinstance(heads, int) and isinstance(width, int) and heads > 0
    fields = {"num_key_value_heads": heads, "head_dim": width // heads if whole else 1, **fields}
    used = (*HF_FIXED, *DEFAULTS, "rope_scaling", "rope_parameters")
    more = {ours: given[name] for name, ours in NUMBERS.items()} | {"tied": fields.get("tie_word_embeddings", False)}
    return our_config(LlamaConfig, path, fields, SIZES | OPTIONAL, tensors, used, **more)


def fields_of(config):
    """The fields of `config.json`, as two dicts; see `FileFormat`."""
    return NO_IDS, {
        "model_type": "llama",
        **{theirs: getattr(config, ours) for theirs, ours in (SIZES | OPTIONAL | NUMBERS).items()},
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
        },  # for version 5
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
    }


def gguf_fields(config):
    """The fields ``llama.*`` of a GGUF file."""
    return {f"llama.{name}": getattr(config, ours) for name, ours in (GGUF_NUMBERS | GGUF_MORE).items()}


def config_from_gguf(path, fields, tensors):
    """Our configuration from a GGUF file's metadata."""
    for name in fields:
        if re.fullmatch(r"llama\.rope\.scaling\..*|llama\.expert_.*", name) and fields[name] not in ("none", 0, 1.0):
            raise ValueError(f"{path}: {name} is {quoted(fields[name])}, which we do not have")
    if "rope_freqs.weight" in tensors:
        raise ValueError(f"{path}: has rope_freqs.weight, scaled rotary positions, which we do not have")
    values = {}
    for name, ours in GGUF_NUMBERS.items():
        if f"llama.{name}" not in fields:
            raise ValueError(f"{path}: llama.{name} is missing")
        values[ours] = fields[f"llama.{name}"]
    check_depth(path, "llama.block_count", values["n_layers"], tensors)
    heads = values["n_heads"]
    size = values["d_model"] // heads if isinstance(heads, int) and heads > 0 else 1
    values["n_kv_heads"] = fields.get("llama.attention.head_count_kv", heads)
    values["head_size"] = fields.get("llama.attention.key_length", size)
    for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if fields.get(name, values["head_size"]) != values["head_size"]:
            raise ValueError(f"{path}: {name} is {quoted(fields[name])}, expected the head size {values['head_size']}")
    table = tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        found = "missing" if table is None else f"of shape {table.shape}"
        raise ValueError(f"{path}: token_embd.weight is {found}, expected a matrix")
    try:
        return LlamaConfig(
            vocab_size=table.shape[0],
            **values,
            rope_theta=fields.get("llama.rope.freq_base", 10000.0),
            tied="output.weight" not in tensors,
            attention_bias="blk.0.attn_q.bias" in tensors,
            mlp_bias="blk.0.ffn_up.bias" in tensors,
            extra={"model_type": "llama"},
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


FORMAT = FileFormat(
    hf_classes=("LlamaForCausalLM", "LlamaForSequenceClassification"),
    buffers=r".*rotary_emb\.inv_freq",
    config_from_fields=config_from_fields,
    fields_of=fields_of,
    gguf_fields=gguf_fields,
    config_from_gguf=config_from_gguf,
)
