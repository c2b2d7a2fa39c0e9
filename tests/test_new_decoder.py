"""A new architecture is one record: a decoder with attention and MLP in parallel (GPT-J), defined in this file."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest

from lora_np.model import ARCHITECTURES, Architecture, LayerSpec, LlamaConfig, forward, generate, with_depths
from lora_np.ops import add

from .architecture_checks import check_costs, check_gradients, check_own_data, check_padding, command
from .tiny import random_params


@dataclass(frozen=True)
class ParallelConfig(LlamaConfig):
    """x + attention(norm(x)) + mlp(norm(x)), with rotary positions and grouped keys."""


@lru_cache
def modules(config):
    C, F, one = config.d_model, config.d_ff, config.n_classes > 0
    Q, KV = config.n_heads * config.head_size, config.n_kv_heads * config.head_size
    layers = [LayerSpec("tok_emb", "embedding", (config.vocab_size, C), 0.02, bias=False)]
    for i in range(config.n_layers):
        attn, mlp, last = f"blocks.{i}.attn", f"blocks.{i}.mlp", one and i == config.n_layers - 1
        layers += [
            LayerSpec(f"blocks.{i}.norm", "rms_norm", (C,), bias=False),
            LayerSpec(f"{attn}.q_proj", "linear", (Q, C), 0.02, one_position=last),
            LayerSpec(f"{attn}.k_proj", "linear", (KV, C), 0.02),
            LayerSpec(f"{attn}.v_proj", "linear", (KV, C), 0.02),
            LayerSpec(f"{attn}.q_rotated", "rope", one_position=last),
            LayerSpec(f"{attn}.k_rotated", "rope"),
            LayerSpec(f"{attn}.context", "attention", one_position=last),
            LayerSpec(f"{attn}.o_proj", "linear", (C, Q), 0.02, one_position=last),
            LayerSpec(f"{attn}.residual", "residual", width=C, one_position=last),
            LayerSpec(f"{mlp}.up_proj", "linear", (F, C), 0.02, one_position=last),
            LayerSpec(f"{mlp}.gelu", "gelu", one_position=last),
            LayerSpec(f"{mlp}.down_proj", "linear", (C, F), 0.02, one_position=last),
            LayerSpec(f"{mlp}.residual", "residual", width=C, one_position=last),
        ]
    layers += [LayerSpec("pooled", "pool", one_position=True)] if one else []
    size, tied = (config.n_classes, None) if one else (config.vocab_size, "tok_emb")
    return with_depths([*layers, LayerSpec("head", "linear", (size, C), 0.02, False, one, tied)])


def block_forward(x, i, config, run):
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
    h = run(f"blocks.{i}.norm", x)
    q, k, v = (run(f"{attn}.{name}_proj", h) for name in "qkv")
    context = run(f"{attn}.context", run(f"{attn}.q_rotated", q), run(f"{attn}.k_rotated", k), v)
    x = run(f"{attn}.residual", x, run(f"{attn}.o_proj", context))
    branch = run(f"{mlp}.down_proj", run(f"{mlp}.gelu", run(f"{mlp}.up_proj", h)))
    return run(f"{mlp}.residual", x, branch)


def block_backward(dx, i, config, back):
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
    dx, dbranch = back(f"{mlp}.residual", dx)
    through_mlp = back(f"{mlp}.up_proj", back(f"{mlp}.gelu", back(f"{mlp}.down_proj", dbranch)))
    dx, dbranch = back(f"{attn}.residual", dx)
    dq, dk, dv = back(f"{attn}.context", back(f"{attn}.o_proj", dbranch))
    dq, dk = back(f"{attn}.q_rotated", dq), back(f"{attn}.k_rotated", dk)
    through_qkv = [back(f"{attn}.{name}_proj", d) for name, d in zip("qkv", (dq, dk, dv))]
    return add(dx, back(f"blocks.{i}.norm", add(through_mlp, *through_qkv)))


PARALLEL = Architecture(
    name="parallel",
    config_class=ParallelConfig,
    modules=modules,
    embed_forward=lambda ids, run, start=0: run("tok_emb", ids),
    embed_backward=lambda dx, back: back("tok_emb", dx),
    block_forward=block_forward,
    block_backward=block_backward,
    output_forward=lambda x, config, run: run("pooled", x) if config.n_classes else x,
    output_backward=lambda dh, config, back: back("pooled", dh) if config.n_classes else dh,
    file_names="""
        parallel.wte          token_embd          tok_emb
        parallel.h.{}.norm    blk.{}.attn_norm    blocks.{}.norm
        parallel.h.{}.q       blk.{}.attn_q       blocks.{}.attn.q_proj
        parallel.h.{}.kv      blk.{}.attn_kv      blocks.{}.attn.k_proj  blocks.{}.attn.v_proj
        parallel.h.{}.o       blk.{}.attn_output  blocks.{}.attn.o_proj
        parallel.h.{}.up      blk.{}.ffn_up       blocks.{}.mlp.up_proj
        parallel.h.{}.down    blk.{}.ffn_down     blocks.{}.mlp.down_proj
        lm_head               output              head
    """,
    peft_targets=("q",),
)
LANGUAGE = ParallelConfig(7, 7, 6, 2, 4, 2, 4, 8, rope_theta=3.0)
CLASSIFIER = replace(LANGUAGE, n_classes=3)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "parallel", PARALLEL)


@pytest.mark.parametrize("config, seed", [(LANGUAGE, 0), (CLASSIFIER, 1)])
def test_it_learns(config, seed):
    check_gradients(config, seed)
    check_costs(config)


def test_it_writes_what_whole_passes_write():
    params, ids = random_params(LANGUAGE), np.array([[1, 2], [3, 4]])
    text = generate(params, ids, LANGUAGE, 5)
    for t in range(2, 7):
        assert np.array_equal(forward(params, text[:, :t], LANGUAGE)[0][:, -1].argmax(axis=1), text[:, t])


def test_it_classifies_a_users_texts_and_writes(tmp_path):
    check_padding(CLASSIFIER)
    check_own_data(LANGUAGE, tmp_path)
    command(["generate", "--base", tmp_path / "base", "--prompt", "a film", "--tokens", 3])
