"""A new architecture is one record: an encoder that looks both ways and pools by the mean, defined in this file."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest

from lora_np.model import ARCHITECTURES, Architecture, GPT2Config, LayerSpec, generate, with_depths
from lora_np.ops import add

from .architecture_checks import check_costs, check_gradients, check_own_data, check_padding, command
from .tiny import random_params


@dataclass(frozen=True)
class EncoderConfig(GPT2Config):
    """norm1(x + attention(x)), then norm2(x + mlp(x)): BERT's blocks."""


@lru_cache
def modules(config):
    C, F = config.d_model, config.d_ff
    layers = [
        LayerSpec("tok_emb", "embedding", (config.vocab_size, C), 0.02, bias=False),
        LayerSpec("pos_emb", "embedding", (config.n_positions, C), 0.02, bias=False),
        LayerSpec("embed", "embed", width=C),
    ]
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        layers += [
            *(LayerSpec(f"{attn}.{name}_proj", "linear", (C, C), 0.02) for name in "qkv"),
            LayerSpec(f"{attn}.context", "encoder_attention"),
            LayerSpec(f"{attn}.o_proj", "linear", (C, C), 0.02),
            LayerSpec(f"{attn}.residual", "residual", width=C),
            LayerSpec(f"blocks.{i}.norm1", "layer_norm", (C,)),
            LayerSpec(f"{mlp}.up_proj", "linear", (F, C), 0.02),
            LayerSpec(f"{mlp}.gelu", "gelu"),
            LayerSpec(f"{mlp}.down_proj", "linear", (C, F), 0.02),
            LayerSpec(f"{mlp}.residual", "residual", width=C),
            LayerSpec(f"blocks.{i}.norm2", "layer_norm", (C,)),
        ]
    head = [LayerSpec("head", "linear", (config.n_classes, C), 0.02, bias=False)] if config.n_classes else []
    return with_depths([*layers, LayerSpec("pooled", "mean_pool"), *head])


def embed_forward(ids, run, start=0):
    return run("embed", run("tok_emb", ids), run("pos_emb", np.arange(ids.shape[1])))


def embed_backward(dx, back):
    dtok, dpos = back("embed", dx)
    back("pos_emb", dpos)
    back("tok_emb", dtok)


def block_forward(x, i, config, run):
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
    q, k, v = (run(f"{attn}.{name}_proj", x) for name in "qkv")
    branch = run(f"{attn}.o_proj", run(f"{attn}.context", q, k, v))
    x = run(f"blocks.{i}.norm1", run(f"{attn}.residual", x, branch))
    branch = run(f"{mlp}.down_proj", run(f"{mlp}.gelu", run(f"{mlp}.up_proj", x)))
    return run(f"blocks.{i}.norm2", run(f"{mlp}.residual", x, branch))


def block_backward(dx, i, config, back):
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
    dx, dbranch = back(f"{mlp}.residual", back(f"blocks.{i}.norm2", dx))
    dx = add(dx, back(f"{mlp}.up_proj", back(f"{mlp}.gelu", back(f"{mlp}.down_proj", dbranch))))
    dx, dbranch = back(f"{attn}.residual", back(f"blocks.{i}.norm1", dx))
    dqkv = back(f"{attn}.context", back(f"{attn}.o_proj", dbranch))
    return add(dx, *(back(f"{attn}.{name}_proj", d) for name, d in zip("qkv", dqkv)))


ENCODER = Architecture(
    name="encoder",
    config_class=EncoderConfig,
    modules=modules,
    embed_forward=embed_forward,
    embed_backward=embed_backward,
    block_forward=block_forward,
    block_backward=block_backward,
    output_forward=lambda x, config, run: run("pooled", x),
    output_backward=lambda dh, config, back: back("pooled", dh),
    file_names="""
        bert.words               token_embd          tok_emb
        bert.positions           position_embd       pos_emb
        bert.layer.{}.query      blk.{}.attn_q       blocks.{}.attn.q_proj
        bert.layer.{}.key        blk.{}.attn_k       blocks.{}.attn.k_proj
        bert.layer.{}.value      blk.{}.attn_v       blocks.{}.attn.v_proj
        bert.layer.{}.attn       blk.{}.attn_output  blocks.{}.attn.o_proj
        bert.layer.{}.norm1      blk.{}.attn_norm    blocks.{}.norm1
        bert.layer.{}.mlp.up     blk.{}.ffn_up       blocks.{}.mlp.up_proj
        bert.layer.{}.mlp.down   blk.{}.ffn_down     blocks.{}.mlp.down_proj
        bert.layer.{}.norm2      blk.{}.ffn_norm     blocks.{}.norm2
        classifier               cls                 head
    """,
    peft_targets=("query", "value"),
    writes=False,
)
CONFIG = EncoderConfig(7, 5, 6, 2, 3, 8, n_classes=4)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "encoder", ENCODER)


def test_it_learns_and_sees_no_padding():
    check_gradients(CONFIG, seed=0)
    check_costs(CONFIG)
    check_padding(CONFIG)


def test_it_classifies_a_users_texts_and_refuses_to_write(tmp_path):
    check_own_data(CONFIG, tmp_path)
    command(["generate", "--base", tmp_path / "base", "--prompt", "a film"], code=2)
    base = replace(CONFIG, n_classes=0)
    with pytest.raises(ValueError, match="encoder is an encoder, expected a language model"):
        generate(random_params(base), np.array([[1]]), base, 3)
