"""Llamas in GGUF files: names, the order of q's and k's rows, blocks, and what we do not have."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lora_np.compress import BlockWeight, quantise_q4_1, quantise_q8_0
from lora_np.formats.model import model_from_gguf
from lora_np.model import LlamaConfig, forward

from .tiny import random_params, same_bits

CONFIG = LlamaConfig(11, 16, 64, 2, 6, 2, 6, 96, rope_theta=777.0, rms_norm_eps=0.25, extra={"model_type": "llama"})
NAMES = {
    "tok_emb": "token_embd",
    "norm_f": "output_norm",
    "head": "output",
    "norm1": "attn_norm",
    "norm2": "ffn_norm",
    "attn.q_proj": "attn_q",
    "attn.k_proj": "attn_k",
    "attn.v_proj": "attn_v",
    "attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
FIELDS = {
    "general.architecture": "llama",
    "llama.context_length": 16,
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 6,
    "llama.attention.head_count_kv": 2,
    "llama.attention.key_length": 6,
    "llama.attention.value_length": 6,
    "llama.attention.layer_norm_rms_epsilon": 0.25,
    "llama.rope.freq_base": 777.0,
    "llama.rope.dimension_count": 6,
}


def theirs(name):
    """GGUF's name of one of our parameters."""
    layer, leaf = name.rsplit(".", 1)
    block = re.fullmatch(r"blocks\.(\d+)\.(.*)", layer)
    return f"blk.{block[1]}.{NAMES[block[2]]}.{leaf}" if block else f"{NAMES[layer]}.{leaf}"


def tensors_of(params, head_size=6):
    """The tensors of a GGUF file: of each head of q and k, row i and row i + D/2 come one after the other."""
    tensors = {}
    for name, array in params.items():
        if "q_proj" in name or "k_proj" in name:
            half = head_size // 2
            heads = range(0, len(array), head_size)
            array = np.stack([array[h + j] for h in heads for i in range(half) for j in (i, i + half)])
        tensors[theirs(name)] = array
    return tensors


@pytest.mark.parametrize("changes", [{}, {"tied": False, "attention_bias": True, "mlp_bias": True}])
def test_a_file_becomes_the_model(changes):
    config = replace(CONFIG, **changes)
    params = random_params(config, np.float32)
    got, its_config = model_from_gguf("f.gguf", FIELDS, tensors_of(params))
    assert its_config == config and same_bits(got, params)


def test_blocks_stay_blocks_and_compute_the_same():
    """Rows of q and k are put in order without expanding them."""
    config = replace(CONFIG, n_heads=16, n_kv_heads=8)  # so that blocks divide all rows
    fields = {**FIELDS, "llama.attention.head_count": 16, "llama.attention.head_count_kv": 8}
    params = random_params(config, np.float32)
    tensors = tensors_of(params)
    for name, array in tensors.items():
        if array.ndim == 2:
            tensors[name] = (quantise_q8_0 if name == "token_embd.weight" else quantise_q4_1)(array)
    blocks, _ = model_from_gguf("f.gguf", fields, tensors)
    dense, _ = model_from_gguf("f.gguf", fields, {name: np.asarray(array) for name, array in tensors.items()})
    assert all(isinstance(blocks[name], BlockWeight) for name, array in params.items() if array.ndim == 2)
    ids = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(forward(blocks, ids, config)[0], forward(dense, ids, config)[0])
    double, _ = model_from_gguf("f.gguf", fields, tensors, np.float64)
    assert double["blocks.0.attn.q_proj.weight"].dtype == np.float64


ABSENT = object()


@pytest.mark.parametrize(
    "fields, tensors, says",
    [
        ({"general.architecture": "gpt2"}, {}, "general.architecture is 'gpt2', expected 'llama'"),
        ({"general.architecture": ABSENT}, {}, "general.architecture is None"),
        ({"llama.block_count": ABSENT}, {}, "llama.block_count is missing"),
        ({"llama.block_count": 10**9}, {}, "llama.block_count is 1000000000, but the model has only 20 tensors"),
        ({"llama.attention.head_count": 0}, {}, "n_heads: got 0"),
        ({"llama.attention.head_count_kv": 4}, {}, "n_kv_heads: 4 does not divide n_heads = 6"),
        ({"llama.attention.head_count": [6, 6]}, {}, "n_heads: got"),
        ({"llama.rope.scaling.type": "yarn"}, {}, "llama.rope.scaling.type is 'yarn'"),
        ({"llama.rope.scaling.factor": 4.0}, {}, "llama.rope.scaling.factor is 4.0"),
        ({"llama.expert_count": 8}, {}, "llama.expert_count is 8"),
        ({"llama.rope.dimension_count": 4}, {}, "llama.rope.dimension_count is 4, expected the head size 6"),
        ({"llama.rope.freq_base": float("nan")}, {}, "rope_theta: got nan"),
        ({}, {"rope_freqs.weight": np.ones(3, np.float32)}, "scaled rotary positions, which we do not have"),
        ({}, {"token_embd.weight": ABSENT}, "token_embd.weight is missing"),
        ({}, {"blk.1.ffn_up.weight": ABSENT}, "blk.1.ffn_up.weight is missing"),
        ({}, {"blk.1.ffn_up.weight": np.ones((96, 63), np.float32)}, "has shape (96, 63), expected (96, 64)"),
        ({}, {"blk.2.ffn_up.weight": np.ones((96, 64), np.float32)}, "unexpected tensor blk.2.ffn_up.weight"),
        ({}, {"token_embd.weight": np.float32(1)}, "token_embd.weight"),
    ],
)
def test_what_we_do_not_have(fields, tensors, says):
    fields = {name: value for name, value in {**FIELDS, **fields}.items() if value is not ABSENT}
    all_tensors = {**tensors_of(random_params(CONFIG, np.float32)), **tensors}
    all_tensors = {name: array for name, array in all_tensors.items() if array is not ABSENT}
    with pytest.raises(ValueError, match="^f.gguf: ") as error:
        model_from_gguf("f.gguf", fields, all_tensors)
    assert says in str(error.value) and "\n" not in str(error.value)
