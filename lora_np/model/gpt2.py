"""GPT-2's architecture: configuration, layers, and the forward and backward passes through a block.

    x = tok_emb[ids] + pos_emb
    for each block:  x = x + attention(ln1(x));  x = x + mlp(ln2(x))
    logits = head(ln_f(x))

`modules` lists the layers. `block_forward` and `block_backward` connect the layers of a block: `run(name, *inputs)`
computes a layer, and `back(name, dy)` computes the gradients of its inputs. `layers.py` defines both for training,
`decoder.py` defines a `run` for one token at a time, and `analysis/costs.py` wraps `run` and `back`.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from ..checked import check_fields, finite_number
from ..ops import add
from .architecture import Architecture, LayerSpec, check_config, with_depths

INITIAL_STD = 0.02  # standard deviation of the initial weights (Radford et al. 2019, section 2.3)


@dataclass(frozen=True)
class GPT2Config:
    """The configuration of a pre-norm, decoder-only transformer with learned position embeddings: GPT-2 of any size.

    Parameters
    ----------
    vocab_size : int, V
    n_positions : int, the maximum sequence length T
    d_model : int, C
    n_layers : int
    n_heads : int, H, a divisor of d_model
    d_ff : int, F, the width between the MLP's two layers (4 C in GPT-2)
    n_classes : int, 0 for a language model, whose head is tied to the token embedding, or at least 2 for a
        classifier that reads the last non-padding token
    dropout : float in [0, 1), on the embeddings and on both residual branches, during training
    layer_norm_eps : float
    extra : dict, fields of a configuration file that this package does not use but writes back

    Raises
    ------
    ValueError
        If a field is invalid; the message names the field, its value and what was expected.
    """

    vocab_size: int
    n_positions: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    n_classes: int = 0
    dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    extra: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        check_config(self, "vocab_size", "n_positions", "d_model", "n_layers", "n_heads", "d_ff")
        check_fields(self, finite_number, "layer_norm_eps", above=0, below=1)
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads: {self.n_heads} does not divide d_model = {self.d_model}")


@lru_cache(maxsize=32)
def modules(config):
    """The model's layers in execution order, name -> LayerSpec.

    A classifier reads one position of the last block's output. The last block therefore computes keys and values at all
    positions, but the query and all later activations only at that position.

    The outputs of o_proj and down_proj are added to the residual stream. The stream is the sum of 2 · n_layers such
    outputs. To keep its variance from growing with depth, the initial weights of o_proj and down_proj are smaller than
    those of the other layers by a factor of √(2 · n_layers).
    """
    V, C, F, one = config.vocab_size, config.d_model, config.d_ff, config.n_classes > 0
    std, branch_std = INITIAL_STD, INITIAL_STD / math.sqrt(2 * config.n_layers)
    layers = [
        LayerSpec("tok_emb", "embedding", (V, C), std, bias=False),
        LayerSpec("pos_emb", "embedding", (config.n_positions, C), std, bias=False),
        LayerSpec("embed", "embed", width=C),
    ]
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        last = one and i == config.n_layers - 1
        layers += [
            LayerSpec(f"blocks.{i}.ln1", "layer_norm", (C,)),
            LayerSpec(f"{attn}.q_proj", "linear", (C, C), std, one_position=last),
            LayerSpec(f"{attn}.k_proj", "linear", (C, C), std),
            LayerSpec(f"{attn}.v_proj", "linear", (C, C), std),
            LayerSpec(f"{attn}.context", "attention", one_position=last),
            LayerSpec(f"{attn}.o_proj", "linear", (C, C), branch_std, one_position=last),
            LayerSpec(f"{attn}.residual", "residual", width=C, one_position=last),
            LayerSpec(f"blocks.{i}.ln2", "layer_norm", (C,), one_position=last),
            LayerSpec(f"{mlp}.up_proj", "linear", (F, C), std, one_position=last),
            LayerSpec(f"{mlp}.gelu", "gelu", one_position=last),
            LayerSpec(f"{mlp}.down_proj", "linear", (C, F), branch_std, one_position=last),
            LayerSpec(f"{mlp}.residual", "residual", width=C, one_position=last),
        ]
    layers += [LayerSpec("ln_f", "layer_norm", (C,), one_position=one)]
    if config.n_classes:
        layers += [LayerSpec("pooled", "pool", one_position=True)]
        layers += [LayerSpec("head", "linear", (config.n_classes, C), std, bias=False, one_position=True)]
    else:  # tied: the head uses the token embedding
        layers += [LayerSpec("head", "linear", (V, C), std, bias=False, tied_to="tok_emb")]
    return MappingProxyType(with_depths(layers))  # read-only, because it is cached


def embed_forward(ids, run, start=0):
    """Embed token ids (B, T) as (B, T, C); `start` is the position of each row's first id."""
    positions = np.arange(start, start + ids.shape[1])  # (T,)
    return run("embed", run("tok_emb", ids), run("pos_emb", positions))


def embed_backward(dx, back):
    """Compute the gradients of the token and position embeddings."""
    dtok, dpos = back("embed", dx)  # (B, T, C), (T, C)
    back("pos_emb", dpos)
    back("tok_emb", dtok)


def block_forward(x, i, config, run):
    """x + attention(ln1(x)), then x + mlp(ln2(x)): (B, T, C) to (B, T, C).

    In a classifier's last block, `run` computes the query and everything after it at only one position in each row, so
    the block's output is (B, 1, C).
    """
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    h = run(f"blocks.{i}.ln1", x)
    q = run(f"{attn}.q_proj", h)
    k = run(f"{attn}.k_proj", h)
    v = run(f"{attn}.v_proj", h)
    context = run(f"{attn}.context", q, k, v)
    branch = run(f"{attn}.o_proj", context)
    x = run(f"{attn}.residual", x, branch)

    h = run(f"blocks.{i}.ln2", x)
    up = run(f"{mlp}.up_proj", h)  # (B, T, F)
    act = run(f"{mlp}.gelu", up)  # (B, T, F)
    branch = run(f"{mlp}.down_proj", act)
    return run(f"{mlp}.residual", x, branch)


def block_backward(dx, i, config, back):
    """Compute the gradient of the block's input from that of its output: `block_forward` in reverse order.

    The gradient of a residual sum x + f(x) reaches x along two paths: unchanged, and through f. If several layers read
    an array, the array's gradient is the sum of the gradients from all of them.
    """
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    # x = x + down_proj(gelu(up_proj(ln2(x))))
    dx, dbranch = back(f"{mlp}.residual", dx)
    dact = back(f"{mlp}.down_proj", dbranch)  # (B, T, F)
    dup = back(f"{mlp}.gelu", dact)  # (B, T, F)
    dh = back(f"{mlp}.up_proj", dup)
    dx = add(dx, back(f"blocks.{i}.ln2", dh))

    # x = x + o_proj(attention(q_proj(h), k_proj(h), v_proj(h))), h = ln1(x)
    dx, dbranch = back(f"{attn}.residual", dx)
    dcontext = back(f"{attn}.o_proj", dbranch)
    dq, dk, dv = back(f"{attn}.context", dcontext)
    through_v = back(f"{attn}.v_proj", dv)
    through_k = back(f"{attn}.k_proj", dk)
    through_q = back(f"{attn}.q_proj", dq)
    dh = add(through_q, through_k, through_v)
    return add(dx, back(f"blocks.{i}.ln1", dh))


def output_forward(x, config, run):
    """Apply the last norm and, for a classifier, select one position in each row: (B, T, C) or (B, C)."""
    h = run("ln_f", x)
    return run("pooled", h) if config.n_classes else h


def output_backward(dh, config, back):
    """The gradient of the last block's output."""
    if config.n_classes:
        dh = back("pooled", dh)  # (B, 1, C)
    return back("ln_f", dh)


# Each layer's name in Hugging Face files (of a model with a head), its name in GGUF, and our names for the layers that
# it contains; {} is the block's number. Both formats store q, k and v as one fused layer.
FILE_NAMES = """
transformer.wte               token_embd          tok_emb
transformer.wpe               position_embd       pos_emb
transformer.h.{}.ln_1         blk.{}.attn_norm    blocks.{}.ln1
transformer.h.{}.attn.c_attn  blk.{}.attn_qkv     blocks.{}.attn.q_proj blocks.{}.attn.k_proj blocks.{}.attn.v_proj
transformer.h.{}.attn.c_proj  blk.{}.attn_output  blocks.{}.attn.o_proj
transformer.h.{}.ln_2         blk.{}.ffn_norm     blocks.{}.ln2
transformer.h.{}.mlp.c_fc     blk.{}.ffn_up       blocks.{}.mlp.up_proj
transformer.h.{}.mlp.c_proj   blk.{}.ffn_down     blocks.{}.mlp.down_proj
transformer.ln_f              output_norm         ln_f
lm_head                       output              head
"""

GPT2 = Architecture(
    name="gpt2",
    config_class=GPT2Config,
    modules=modules,
    embed_forward=embed_forward,
    embed_backward=embed_backward,
    block_forward=block_forward,
    block_backward=block_backward,
    output_forward=output_forward,
    output_backward=output_backward,
    file_names=FILE_NAMES,
    peft_targets=("c_attn",),
    hf_transposed=("c_attn", "c_proj", "c_fc"),
)
