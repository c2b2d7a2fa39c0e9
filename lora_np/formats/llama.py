"""Read a Llama from Hugging Face's files or from a GGUF file.

The three name the same layers, and only the q and k projections differ in layout: GGUF has the rows of each head in the
order in which neighbours are rotated together, (0, D/2, 1, D/2 + 1, …); Hugging Face and we have (0, 1, 2, …). The rows
are put back in order when they are read. That is exact, also for blocks of codes, which run along a row.
"""

import re
from dataclasses import replace

import numpy as np

from ..checked import quoted
from ..compress import BlockWeight
from ..model import LlamaConfig, parameter_shapes
from .atomic import of_one_version
from .checkpoint import check_depth, read_as, read_object
from .hugging_face import FIXED, HFModel, check_fixed, label_list, our_config, read_hf_tensors

LAYERS = {  # of a block: ours -> (Hugging Face's, GGUF's)
    "norm1": ("input_layernorm", "attn_norm"),
    "attn.q_proj": ("self_attn.q_proj", "attn_q"),
    "attn.k_proj": ("self_attn.k_proj", "attn_k"),
    "attn.v_proj": ("self_attn.v_proj", "attn_v"),
    "attn.o_proj": ("self_attn.o_proj", "attn_output"),
    "norm2": ("post_attention_layernorm", "ffn_norm"),
    "mlp.gate_proj": ("mlp.gate_proj", "ffn_gate"),
    "mlp.up_proj": ("mlp.up_proj", "ffn_up"),
    "mlp.down_proj": ("mlp.down_proj", "ffn_down"),
}
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


def layer_names(config, which):
    """Our name -> the files' name of every layer with parameters; `which` is 0 for Hugging Face, 1 for GGUF."""
    block = ("model.layers.{}.{}", "blk.{}.{}")[which]
    first, norm, head = (
        {"tok_emb": ("model.embed_tokens", "token_embd")[which]},
        {"norm_f": ("model.norm", "output_norm")[which]},
        {"head": "score" if config.n_classes else ("lm_head", "output")[which]},
    )
    pairs = [(i, ours, block.format(i, names[which])) for i in range(config.n_layers) for ours, names in LAYERS.items()]
    names = {f"blocks.{i}.{ours}": theirs for i, ours, theirs in pairs}
    return first | names | norm | head


# ---------------------------------------------------------------- Hugging Face


@of_one_version
def load_llama(path, dtype=np.float32):
    """Read a Llama language model or sequence classifier; parameters, result and errors as in `load_gpt2`."""
    file, tensors = read_hf_tensors(path)
    fields_path = file.parent / "config.json"
    fields = {"model_type": "llama"} | read_object(fields_path)
    config = config_from_fields(fields_path, fields, tensors)
    lm_head = tensors.get("lm_head.weight")
    if not config.n_classes and config.tied and lm_head is not None:
        if not np.array_equal(lm_head, tensors.get("model.embed_tokens.weight")):
            expected = "expected the same, because config.json ties them"
            raise ValueError(f"{file}: lm_head.weight is not model.embed_tokens.weight; {expected}")
        del tensors["lm_head.weight"]
    names = layer_names(config, 0)
    tensors = {n: a for n, a in tensors.items() if not n.endswith("rotary_emb.inv_freq")}  # which old files contain
    theirs = {f"{names[layer]}.{leaf}": f"{layer}.{leaf}" for layer, leaf in leaves(config)}
    shapes = parameter_shapes(config)
    tensors = read_as(file, tensors, {name: shapes[ours] for name, ours in theirs.items()}, dtype)
    params = {theirs[name]: array for name, array in tensors.items()}
    return HFModel(params, config, label_list(fields_path, fields, config))


def leaves(config):
    """(layer, "weight" or "bias") of every parameter, in execution order."""
    return [name.rsplit(".", 1) for name in parameter_shapes(config)]


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
    names = {"max_position_embeddings": "n_positions", "rms_norm_eps": "rms_norm_eps", "rope_theta": "rope_theta"}
    more = {ours: given[name] for name, ours in names.items()} | {"tied": fields.get("tie_word_embeddings", False)}
    return our_config(LlamaConfig, path, fields, SIZES | OPTIONAL, tensors, used, **more)


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
    names, params = layer_names(config, 1), {}
    shapes = parameter_shapes(config)
    expected = {f"{names[layer]}.{leaf}": f"{layer}.{leaf}" for layer, leaf in leaves(config)}
    unexpected = [name for name in tensors if name not in expected]
    if unexpected:
        raise ValueError(f"{path}: unexpected tensor {quoted(unexpected[0])}")
    for theirs, ours in expected.items():
        if theirs not in tensors:
            raise ValueError(f"{path}: {theirs} is missing")
        weight = tensors[theirs]
        if weight.shape != shapes[ours]:
            raise ValueError(f"{path}: {theirs} has shape {weight.shape}, expected {shapes[ours]}")
        if ".attn.q_proj." in ours or ".attn.k_proj." in ours:
            weight = in_rotation_order(weight, config.head_size)
        is_block = isinstance(weight, BlockWeight)
        params[ours] = replace(weight, dtype=np.dtype(dtype)) if is_block else weight.astype(dtype, copy=False)
    return params, config


def in_rotation_order(weight, head_size):
    """The rows (or biases) of q or k in the order (0, 1, 2, …) of each head, from GGUF's (0, D/2, 1, D/2 + 1, …)."""
    order = np.arange(weight.shape[0]).reshape(-1, head_size // 2, 2).swapaxes(1, 2).reshape(-1)
    if isinstance(weight, BlockWeight):
        return replace(weight, blocks=weight.blocks[order])
    return weight[order]


def config_from_gguf(path, fields, tensors):
    """Our configuration from a GGUF file's metadata."""
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
