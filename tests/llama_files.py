"""Tiny Llamas as Hugging Face's directories and as GGUF files, written without these libraries."""

import numpy as np

from lora_np.compress import FORMATS
from lora_np.formats import write_json, write_tensors
from lora_np.formats.hugging_face import layout
from lora_np.formats.names import layer_names

from .chat_templates import metadata, write_tokenizer
from .test_gguf import BLOCK_TYPES, F16, F32, container, field
from .tiny import random_params, tiny_llama

TOKENS = metadata()["tokenizer.ggml.tokens"]
INT32, UINT32, FLOAT32, BOOL, TEXT, ARRAY = 5, 4, 6, 7, 8, 9  # types of fields


def small_llama(**changes):
    """A configuration with the tokenizer of `chat_templates.py`; most rows are multiples of 32."""
    sizes = {"vocab_size": len(TOKENS), "n_positions": 64, "d_model": 96, "d_ff": 64, "tied": False}
    return tiny_llama(**sizes | changes)


def write_hf(folder, params, config, **fields):
    """A Llama's directory, with a tokenizer; `fields` are further ones of config.json."""
    folder.mkdir()
    fields = {
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.n_positions,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.d_ff,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        **fields,
    }
    write_json(folder / "config.json", fields)
    write_tensors(folder / "model.safetensors", {theirs: params[ours] for ours, theirs in names(config, "hf")})
    write_tokenizer(folder)
    return folder


def names(config, which):
    """(our name, the file's) of every parameter, all of them weights."""
    if which == "hf":
        return [(ours, theirs) for theirs, (ours,), *_ in layout(config)]
    layers = layer_names(config, which).items()
    return [(f"{ours}.weight", f"{theirs}.weight") for theirs, (ours,) in layers]


def write_gguf(path, params, config, matrices=F32):
    """A GGUF file, with a tokenizer; matrices are of the given type, or of F16 if that does not fit their rows."""
    numbers = {"context_length": config.n_positions, "embedding_length": config.d_model}
    numbers |= {"block_count": config.n_layers, "feed_forward_length": config.d_ff}
    numbers |= {"attention.head_count": config.n_heads, "attention.head_count_kv": config.n_kv_heads}
    numbers |= {"attention.key_length": config.head_size, "attention.value_length": config.head_size}
    fields = [(f"llama.{name}", field(UINT32, value)) for name, value in numbers.items()]
    reals = {"rope.freq_base": config.rope_theta, "attention.layer_norm_rms_epsilon": config.rms_norm_eps}
    fields += [(f"llama.{name}", field(FLOAT32, value)) for name, value in reals.items()]
    for name, value in metadata().items():
        if isinstance(value, list):
            fields.append((name, field(ARRAY, (TEXT if isinstance(value[0], str) else INT32, value))))
        else:
            fields.append((name, field(TEXT if isinstance(value, str) else UINT32, value)))
    fields.append(("general.architecture", field(TEXT, "llama")))
    tensors = []
    for ours, theirs in names(config, "gguf"):
        array = params[ours].astype(np.float32)
        if "attn.q_proj" in ours or "attn.k_proj" in ours:  # as llama.cpp's converter does
            array = array.reshape(-1, 2, config.head_size // 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        kind = F32 if array.ndim == 1 else matrices
        if kind in BLOCK_TYPES and array.shape[1] % 32:
            kind = F16
        if kind in BLOCK_TYPES:
            content = FORMATS[BLOCK_TYPES[kind]](array).blocks.tobytes()
        else:
            content = array.astype(np.float16 if kind == F16 else np.float32).tobytes()
        tensors.append((theirs, array.shape[::-1], kind, content))
    path.write_bytes(container(fields, tensors))
    return path


def written_gguf(path, seed=0, matrices=F32, **changes):
    """Such a file with random weights; returns them and their configuration."""
    config = small_llama(**changes)
    params = random_params(config, np.float32, seed)
    write_gguf(path, params, config, matrices)
    return params, config
