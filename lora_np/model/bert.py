"""BERT's architecture (Devlin et al. 2019): an encoder, in which every token attends to all tokens of its text.

    x = norm(tok_emb[ids] + (pos_emb + type_emb[0]))
    for each block:  x = norm1(x + attention(x));  x = norm2(x + mlp(x))
    h = mean over the tokens of x,  or  tanh(pooler(x at the first token));  logits = head(h)

Unlike in GPT-2, each block applies its norms after the residual sums, GELU is exact, and there is no norm after the
last block. `modules` lists the layers; see `gpt2.py` for `run` and `back`.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from ..checked import check_fields, finite_number, one_of
from ..ops import add
from .architecture import Architecture, LayerSpec, check_config, with_depths

INITIAL_STD = 0.02  # standard deviation of the initial weights (Devlin et al. 2019, appendix A.2; as in their code)
POOLINGS = ("mean", "cls")


@dataclass(frozen=True)
class BertConfig:
    """The configuration of a BERT encoder of any size, with or without a classification head.

    Parameters
    ----------
    vocab_size : int, V
    n_positions : int, the maximum sequence length T
    d_model : int, C
    n_layers : int
    n_heads : int, H, a divisor of d_model
    d_ff : int, F, the width between the MLP's two layers
    n_types : int, the number of token types; all tokens of a text have type 0
    pooling : how the text's vector h is computed. "mean": the mean over the non-padding tokens, as in most sentence
        encoders. "cls": a linear layer and tanh of the first token, [CLS], as in BertForSequenceClassification
    n_classes : int, 0 for an encoder without a head, or at least 2 for a classifier
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
    n_types: int = 2
    pooling: str = "mean"
    n_classes: int = 0
    dropout: float = 0.0
    layer_norm_eps: float = 1e-12
    extra: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        check_config(self, "vocab_size", "n_positions", "d_model", "n_layers", "n_heads", "d_ff", "n_types")
        check_fields(self, finite_number, "layer_norm_eps", above=0, below=1)
        check_fields(self, one_of, "pooling", choices=POOLINGS)
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads: {self.n_heads} does not divide d_model = {self.d_model}")


@lru_cache(maxsize=32)
def modules(config):
    """The model's layers in execution order, name -> LayerSpec. Every layer is computed at all positions."""
    V, C, F, std = config.vocab_size, config.d_model, config.d_ff, INITIAL_STD
    layers = [
        LayerSpec("tok_emb", "embedding", (V, C), std, bias=False),
        LayerSpec("pos_emb", "embedding", (config.n_positions, C), std, bias=False),
        LayerSpec("type_emb", "embedding", (config.n_types, C), std, bias=False),
        LayerSpec("place", "residual"),
        LayerSpec("sum", "embed"),
        LayerSpec("emb_norm", "layer_norm", (C,)),
        LayerSpec("embed", "dropout", width=C),
    ]
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        layers += [
            LayerSpec(f"{attn}.q_proj", "linear", (C, C), std),
            LayerSpec(f"{attn}.k_proj", "linear", (C, C), std),
            LayerSpec(f"{attn}.v_proj", "linear", (C, C), std),
            LayerSpec(f"{attn}.context", "encoder_attention"),
            LayerSpec(f"{attn}.o_proj", "linear", (C, C), std),
            LayerSpec(f"{attn}.residual", "residual", width=C),
            LayerSpec(f"blocks.{i}.norm1", "layer_norm", (C,)),
            LayerSpec(f"{mlp}.up_proj", "linear", (F, C), std),
            LayerSpec(f"{mlp}.gelu", "gelu_erf"),
            LayerSpec(f"{mlp}.down_proj", "linear", (C, F), std),
            LayerSpec(f"{mlp}.residual", "residual", width=C),
            LayerSpec(f"blocks.{i}.norm2", "layer_norm", (C,)),
        ]
    if config.pooling == "mean":
        layers += [LayerSpec("pooled", "mean_pool")]
    else:
        layers += [LayerSpec("first", "first_token"), LayerSpec("pooler", "linear", (C, C), std)]
        layers += [LayerSpec("pooled", "tanh")]
    if config.n_classes:
        layers += [LayerSpec("head", "linear", (config.n_classes, C), std)]
    return MappingProxyType(with_depths(layers))  # read-only, because it is cached


def embed_forward(ids, run, start=0):
    """Embed token ids (B, T) as (B, T, C). `start` is always 0, because an encoder reads each text in one pass."""
    T = ids.shape[1]
    place = run("place", run("pos_emb", np.arange(T)), run("type_emb", np.zeros(T, dtype=int)))  # (T, C)
    x = run("sum", run("tok_emb", ids), place)
    return run("embed", run("emb_norm", x))


def embed_backward(dx, back):
    """Compute the gradients of the three embeddings."""
    dtok, dplace = back("sum", back("emb_norm", back("embed", dx)))  # (B, T, C), (T, C)
    dpos, dtype = back("place", dplace)
    back("type_emb", dtype)
    back("pos_emb", dpos)
    back("tok_emb", dtok)


def block_forward(x, i, config, run):
    """norm1(x + attention(x)), then norm2(x + mlp(x)): (B, T, C) to (B, T, C)."""
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    q = run(f"{attn}.q_proj", x)
    k = run(f"{attn}.k_proj", x)
    v = run(f"{attn}.v_proj", x)
    context = run(f"{attn}.context", q, k, v)
    branch = run(f"{attn}.o_proj", context)
    x = run(f"blocks.{i}.norm1", run(f"{attn}.residual", x, branch))

    up = run(f"{mlp}.up_proj", x)  # (B, T, F)
    act = run(f"{mlp}.gelu", up)  # (B, T, F)
    branch = run(f"{mlp}.down_proj", act)
    return run(f"blocks.{i}.norm2", run(f"{mlp}.residual", x, branch))


def block_backward(dx, i, config, back):
    """Compute the gradient of the block's input from that of its output: `block_forward` in reverse order.

    Each norm follows a residual sum, so the gradient passes through the norm even on the residual path.
    """
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    # x = norm2(x + down_proj(gelu(up_proj(x))))
    dx, dbranch = back(f"{mlp}.residual", back(f"blocks.{i}.norm2", dx))
    dact = back(f"{mlp}.down_proj", dbranch)  # (B, T, F)
    dup = back(f"{mlp}.gelu", dact)  # (B, T, F)
    dx = add(dx, back(f"{mlp}.up_proj", dup))

    # x = norm1(x + o_proj(attention(q_proj(x), k_proj(x), v_proj(x))))
    dx, dbranch = back(f"{attn}.residual", back(f"blocks.{i}.norm1", dx))
    dcontext = back(f"{attn}.o_proj", dbranch)
    dq, dk, dv = back(f"{attn}.context", dcontext)
    through_v = back(f"{attn}.v_proj", dv)
    through_k = back(f"{attn}.k_proj", dk)
    through_q = back(f"{attn}.q_proj", dq)
    return add(dx, through_q, through_k, through_v)


def output_forward(x, config, run):
    """Pool the vectors of each text's tokens into one vector h: (B, T, C) to (B, C)."""
    return run("pooled", x if config.pooling == "mean" else run("pooler", run("first", x)))


def output_backward(dh, config, back):
    """The gradient of the last block's output."""
    dx = back("pooled", dh)
    return dx if config.pooling == "mean" else back("first", back("pooler", dx))


# See `gpt2.py`. llama.cpp's names are those of its BERT models, which this package neither reads nor writes.
FILE_NAMES = """
bert.embeddings.word_embeddings                  token_embd                 tok_emb
bert.embeddings.position_embeddings              position_embd              pos_emb
bert.embeddings.token_type_embeddings            token_types                type_emb
bert.embeddings.LayerNorm                        token_embd_norm            emb_norm
bert.encoder.layer.{}.attention.self.query       blk.{}.attn_q              blocks.{}.attn.q_proj
bert.encoder.layer.{}.attention.self.key         blk.{}.attn_k              blocks.{}.attn.k_proj
bert.encoder.layer.{}.attention.self.value       blk.{}.attn_v              blocks.{}.attn.v_proj
bert.encoder.layer.{}.attention.output.dense     blk.{}.attn_output         blocks.{}.attn.o_proj
bert.encoder.layer.{}.attention.output.LayerNorm blk.{}.attn_output_norm    blocks.{}.norm1
bert.encoder.layer.{}.intermediate.dense         blk.{}.ffn_up              blocks.{}.mlp.up_proj
bert.encoder.layer.{}.output.dense               blk.{}.ffn_down            blocks.{}.mlp.down_proj
bert.encoder.layer.{}.output.LayerNorm           blk.{}.layer_output_norm   blocks.{}.norm2
bert.pooler.dense                                cls                        pooler
classifier                                       cls.output                 head
"""

BERT = Architecture(
    name="bert",
    config_class=BertConfig,
    modules=modules,
    embed_forward=embed_forward,
    embed_backward=embed_backward,
    block_forward=block_forward,
    block_backward=block_backward,
    output_forward=output_forward,
    output_backward=output_backward,
    file_names=FILE_NAMES,
    peft_targets=("query", "value"),
    writes=False,
)
