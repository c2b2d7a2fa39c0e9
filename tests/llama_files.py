"""Tiny Llamas and relatives as Hugging Face's directories and GGUF files, written without these libraries or ours."""

import re

import numpy as np

from lora_np.compress import FORMATS
from lora_np.formats import write_json, write_tensors
from lora_np.model import LlamaConfig, Qwen2Config, Qwen3Config, SmolLM3Config

from .chat_templates import metadata, write_tokenizer
from .test_gguf import BLOCK_TYPES, F16, F32, container, field
from .tiny import random_params, tiny_llama

TOKENS = metadata()["tokenizer.ggml.tokens"]
KINDS = {Qwen2Config: "qwen2", Qwen3Config: "qwen3", SmolLM3Config: "smollm3"}
TYPES = {bool: 7, int: 4, float: 6, str: 8}  # of GGUF's fields; llama.cpp expects uint32
NAMES = {  # our layer: Hugging Face's, GGUF's
    "tok_emb": ("model.embed_tokens", "token_embd"),
    "norm_f": ("model.norm", "output_norm"),
    "head": ("lm_head", "output"),
    "norm1": ("input_layernorm", "attn_norm"),
    "norm2": ("post_attention_layernorm", "ffn_norm"),
    **{f"attn.{x}_proj": (f"self_attn.{x}_proj", f"attn_{x}") for x in "qkv"},
    **{f"attn.{x}_norm": (f"self_attn.{x}_norm", f"attn_{x}_norm") for x in "qk"},
    "attn.o_proj": ("self_attn.o_proj", "attn_output"),
    **{f"mlp.{x}_proj": (f"mlp.{x}_proj", f"ffn_{x}") for x in ("gate", "up", "down")},
}
FIELDS = {  # Hugging Face's: ours
    **{"vocab_size": "vocab_size", "max_position_embeddings": "n_positions", "hidden_size": "d_model"},
    **{"num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "num_key_value_heads": "n_kv_heads"},
    **{"head_dim": "head_size", "intermediate_size": "d_ff", "tie_word_embeddings": "tied"},
    **{"rms_norm_eps": "rms_norm_eps", "rope_theta": "rope_theta"},
}


def small_llama(kind=LlamaConfig, **changes):
    """A configuration with the tokenizer of `chat_templates.py`; most rows are multiples of 32."""
    sizes = {"vocab_size": len(TOKENS), "n_positions": 64, "d_model": 96, "d_ff": 64, "tied": False}
    return kind(**vars(tiny_llama(**sizes)) | {"qkv_bias": kind.qkv_bias, "head_norm": kind.head_norm} | changes)


def theirs(name, which):
    """The name of one of our parameters in a file of Hugging Face ("hf") or in a GGUF file ("gguf")."""
    layer, leaf = name.rsplit(".", 1)
    place, blocks = (0, "model.layers") if which == "hf" else (1, "blk")
    block = re.fullmatch(r"blocks\.(\d+)\.(.*)", layer)
    return f"{blocks}.{block[1]}.{NAMES[block[2]][place]}.{leaf}" if block else f"{NAMES[layer][place]}.{leaf}"


def write_hf(folder, params, config, **fields):
    """A Llama's directory, with a tokenizer; `fields` are further ones of config.json."""
    folder.mkdir()
    fields = (
        {"model_type": KINDS.get(type(config), "llama")}
        | {name: getattr(config, ours) for name, ours in FIELDS.items()}
        | fields
    )
    write_json(folder / "config.json", fields)
    tensors = {theirs(name, "hf"): array for name, array in params.items()}
    if config.n_classes:
        tensors["score.weight"] = tensors.pop("lm_head.weight")
    write_tensors(folder / "model.safetensors", tensors)
    write_tokenizer(folder)
    return folder


def in_gguf_order(name, array, head_size):
    """Of each head of q and k, row i and row i + D/2 come one after the other: they are rotated together."""
    if not re.search(r"attn[._][qk]", name):
        return array
    half, heads = head_size // 2, range(0, len(array), head_size)
    return np.stack([array[h + j] for h in heads for i in range(half) for j in (i, i + half)])


def typed(value):
    """A field's type and value, as bytes; a list of integers is one of int32, an array one of uint32."""
    if isinstance(value, np.ndarray):
        return field(9, (4, value.tolist()))
    if isinstance(value, list):
        return field(9, (5 if isinstance(value[0], int) else TYPES[type(value[0])], value))  # int32
    return field(TYPES[type(value)], value)


def write_gguf(path, params, config, matrices=F32, fields=None, tensors=None):
    """A GGUF file, with a tokenizer; matrices are of the given type, or of F16 if that does not fit their rows.

    `fields` and `tensors` are changes by GGUF's names; None takes one out.
    """
    numbers = {"context_length": config.n_positions, "embedding_length": config.d_model}
    numbers |= {"block_count": config.n_layers, "feed_forward_length": config.d_ff}
    numbers |= {"attention.head_count": config.n_heads, "attention.head_count_kv": config.n_kv_heads}
    numbers |= {"attention.key_length": config.head_size, "attention.value_length": config.head_size}
    numbers |= {"rope.freq_base": config.rope_theta, "attention.layer_norm_rms_epsilon": config.rms_norm_eps}
    kind = KINDS.get(type(config), "llama")
    all_fields = {f"{kind}.{name}": value for name, value in numbers.items()} | metadata()
    all_fields |= {"general.architecture": kind} | (fields or {})
    order = (lambda name, array, size: array) if kind in ("qwen2", "qwen3") else in_gguf_order
    arrays = {theirs(n, "gguf"): order(n, array, config.head_size) for n, array in params.items()}
    written = []
    for name, array in (arrays | (tensors or {})).items():
        if array is None:
            continue
        kind = F32 if array.ndim == 1 else matrices
        if kind in BLOCK_TYPES and array.shape[1] % 32:
            kind = F16
        if kind in BLOCK_TYPES:
            content = FORMATS[BLOCK_TYPES[kind]](array.astype(np.float32)).blocks.tobytes()
        else:
            content = array.astype(np.float16 if kind == F16 else np.float32).tobytes()
        written.append((name, array.shape[::-1], kind, content))
    path.write_bytes(container([(n, typed(v)) for n, v in all_fields.items() if v is not None], written))
    return path


def written_gguf(path, seed=0, matrices=F32, **changes):
    """Such a file with random weights; returns them and their configuration."""
    config = small_llama(**changes)
    params = random_params(config, np.float32, seed)
    write_gguf(path, params, config, matrices)
    return params, config
