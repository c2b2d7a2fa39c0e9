"""Llamas: Hugging Face's files, read and written, and GGUF files, read.

Only the q and k projections differ in layout: GGUF has the rows of each head in the order in which neighbours are
rotated together, (0, D/2, 1, D/2 + 1, …); Hugging Face and we have (0, 1, 2, …). The rows are put back in order when
they are read. That is exact, also for blocks of codes, which run along a row.
"""

import re
from dataclasses import replace

import numpy as np

from ..checked import quoted
from ..compress import BlockWeight
from ..model import LlamaConfig, parameter_shapes
from .atomic import of_one_version
from .checkpoint import check_depth, read_object
from .hugging_face import (
    FIXED,
    NO_IDS,
    HFModel,
    check_fixed,
    label_list,
    our_config,
    params_of,
    read_hf_tensors,
    save_hf,
)
from .names import layer_names

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
ROPE = ("default", None)  # kinds of rotary positions that we have: unscaled ones
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


# ---------------------------------------------------------------- Hugging Face


@of_one_version
def load_llama(path, dtype=np.float32):
    """Read a Llama language model or sequence classifier; parameters, result and errors as in `load_gpt2`."""
    file, tensors = read_hf_tensors(path)
    fields_path = file.parent / "config.json"
    fields = {"model_type": "llama"} | read_object(fields_path)
    config = config_from_fields(fields_path, fields, tensors)
    tensors = {n: a for n, a in tensors.items() if not n.endswith("rotary_emb.inv_freq")}  # which old files contain
    return HFModel(params_of(file, tensors, config, dtype), config, label_list(fields_path, fields, config))


def config_from_fields(path, fields, tensors):
    """Our configuration from the fields of a Llama's `config.json`, of transformers 4 or 5."""
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


def save_llama(folder, params, config, tokenizer=None, labels=None, files=None):
    """Write a model for `transformers`: a LlamaForCausalLM or LlamaForSequenceClassification; see `save_gpt2`."""
    fields = {
        "model_type": "llama",
        **{theirs: getattr(config, ours) for theirs, ours in (SIZES | OPTIONAL | NUMBERS).items()},
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # of transformers 5, above is 4's
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
    }
    save_hf(folder, params, config, "Llama", NO_IDS, fields, (tokenizer, labels, files), load_llama)


# ---------------------------------------------------------------- GGUF


def llama_from_gguf(path, fields, tensors, dtype=np.float32):
    """The weights and configuration of a Llama in a GGUF file.

    Parameters
    ----------
    path : of the file, for messages
    fields, tensors : from `read_gguf`; matrices may be blocks, and stay so
    dtype : np.float32 or np.float64, that of arrays and of what blocks are expanded to

    Returns
    -------
    params : dict, in execution order
    config : LlamaConfig

    Raises
    ------
    ValueError
        If the file has another architecture, something that we do not compute, or a field or tensor that is missing or
        of a wrong shape.
    """
    config = config_from_gguf(path, fields, tensors)
    shapes, params = parameter_shapes(config), {}
    names = {ours: theirs for theirs, (ours,) in layer_names(shapes, "gguf").items()}
    expected = {f"{names[layer]}.{leaf}": f"{layer}.{leaf}" for layer, leaf in (n.rsplit(".", 1) for n in shapes)}
    unexpected = [name for name in tensors if name not in expected]
    if unexpected:
        raise ValueError(f"{path}: unexpected tensor {quoted(unexpected[0])}")
    for theirs, ours in expected.items():
        if theirs not in tensors:
            raise ValueError(f"{path}: {theirs} is missing")
        weight = tensors[theirs]
        if weight.shape != shapes[ours]:
            raise ValueError(f"{path}: {theirs} has shape {weight.shape}, expected {shapes[ours]}")
        if is_rotated(ours):
            weight = in_rotation_order(weight, config.head_size)
        is_block = isinstance(weight, BlockWeight)
        params[ours] = replace(weight, dtype=np.dtype(dtype)) if is_block else weight.astype(dtype, copy=False)
    return params, config


def is_rotated(name):
    """Whether a parameter's rows are in another order in GGUF."""
    return ".attn.q_proj." in name or ".attn.k_proj." in name


def in_rotation_order(weight, head_size, back=False):
    """The rows (or biases) of q or k in the order (0, 1, 2, …) of each head, from GGUF's (0, D/2, 1, D/2 + 1, …).

    `back` is the way back, to GGUF's order.
    """
    pairs = (2, head_size // 2) if back else (head_size // 2, 2)
    order = np.arange(weight.shape[0]).reshape(-1, *pairs).swapaxes(1, 2).reshape(-1)
    if isinstance(weight, BlockWeight):
        return replace(weight, blocks=weight.blocks[order])
    return weight[order]


def gguf_numbers(config):
    """The fields ``llama.*`` of a configuration."""
    return {f"llama.{name}": getattr(config, ours) for name, ours in (GGUF_NUMBERS | GGUF_MORE).items()}


def config_from_gguf(path, fields, tensors):
    """Our configuration from a GGUF file's metadata."""
    if fields.get("general.type") == "adapter":
        raise ValueError(f"{path}: got an adapter, expected a model; doctor says what it does on its base")
    kind = fields.get("general.architecture")
    if kind != "llama":
        raise ValueError(f"{path}: general.architecture is {quoted(kind)}, expected 'llama'")
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
