"""Llama's architecture: configuration, layers, and the forward and backward passes through a block.

    x = tok_emb[ids]
    for each block:  x = x + attention(norm1(x));  x = x + mlp(norm2(x))
    logits = head(norm_f(x))

Unlike GPT-2 (`gpt2.py`), Llama uses RMS normalisation, grouped-query attention, a gated MLP and usually no biases.
Instead of learned position embeddings, it uses rotary ones, which rotate queries and keys (Touvron et al. 2023, section
2.2; Ainslie et al. 2023). `gpt2.py` explains `run` and `back`.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from ..checked import check_fields, finite_number, instance_of
from ..ops import add
from .architecture import Architecture, LayerSpec, check_config, with_depths

INITIAL_STD = 0.02  # standard deviation of the initial weights; it is smaller in o_proj and down_proj, as in `gpt2.py`


@dataclass(frozen=True)
class LlamaConfig:
    """The configuration of a Llama-style decoder.

    Parameters
    ----------
    vocab_size : int, V
    n_positions : int, the maximum sequence length T
    d_model : int, C
    n_layers : int
    n_heads : int, H, the number of query heads
    n_kv_heads : int, K, the number of key and value heads; a divisor of n_heads
    head_size : int, D, even; H · D need not be C
    d_ff : int, F, the width of the MLP
    n_classes : int, 0 for a language model, or at least 2 for a classifier that reads the last non-padding token
    dropout : float in [0, 1), on both residual branches, during training
    rope_theta : float above 1, θ of the rotary position embedding
    rope_divisors : tuple of D/2 floats, by which a model for longer texts divides RoPE's frequencies; () if it does not
    unrotated : tuple of int, the blocks without rotary positions
    rms_norm_eps : float
    tied : bool, whether a language model's head is tied to the token embedding
    attention_bias, mlp_bias : bool, whether the linear layers of the attention and of the MLP have biases
    qkv_bias : bool, whether q_proj, k_proj and v_proj have biases without an attention_bias
    head_norm : bool, whether each head's queries and keys are normalised before the rotation
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
    n_kv_heads: int
    head_size: int
    d_ff: int
    n_classes: int = 0
    dropout: float = 0.0
    rope_theta: float = 10000.0
    rope_divisors: tuple[float, ...] = ()
    unrotated: tuple[int, ...] = ()
    rms_norm_eps: float = 1e-5
    tied: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    qkv_bias: bool = False
    head_norm: bool = False
    extra: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        sizes = "vocab_size n_positions d_model n_layers n_heads n_kv_heads head_size d_ff"
        check_config(self, *sizes.split())
        check_fields(self, finite_number, "rms_norm_eps", above=0, below=1)
        check_fields(self, finite_number, "rope_theta", above=1)
        flags = "tied", "attention_bias", "mlp_bias", "qkv_bias", "head_norm"
        check_fields(self, instance_of, *flags, type_=bool, expected="True or False")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads: {self.n_kv_heads} does not divide n_heads = {self.n_heads}")
        if self.head_size % 2:
            raise ValueError(f"head_size: got {self.head_size}, expected an even number: rotations act on pairs")
        for name in ("rope_divisors", "unrotated"):  # lists in a file
            object.__setattr__(self, name, tuple(getattr(self, name)))
        divisors = self.rope_divisors
        if len(divisors) not in (0, self.head_size // 2):
            raise ValueError(f"rope_divisors: got {len(divisors)}, expected {self.head_size // 2}, one for each pair")
        for number in divisors:
            finite_number("rope_divisors", number, above=0)


@lru_cache(maxsize=32)
def modules(config):
    """The model's layers in execution order, name -> LayerSpec; for a classifier's last block, see `gpt2.modules`."""
    V, C, F, one = config.vocab_size, config.d_model, config.d_ff, config.n_classes > 0
    Q, KV = config.n_heads * config.head_size, config.n_kv_heads * config.head_size
    std, branch_std = INITIAL_STD, INITIAL_STD / math.sqrt(2 * config.n_layers)
    layers = [LayerSpec("tok_emb", "embedding", (V, C), std, bias=False)]
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        bias, mlp_bias, last = config.attention_bias, config.mlp_bias, one and i == config.n_layers - 1
        qkv_bias, D = bias or config.qkv_bias, config.head_size
        layers += [
            LayerSpec(f"blocks.{i}.norm1", "rms_norm", (C,), bias=False),
            LayerSpec(f"{attn}.q_proj", "linear", (Q, C), std, bias=qkv_bias, one_position=last),
            LayerSpec(f"{attn}.k_proj", "linear", (KV, C), std, bias=qkv_bias),
            LayerSpec(f"{attn}.v_proj", "linear", (KV, C), std, bias=qkv_bias),
        ]
        if config.head_norm:
            layers += [LayerSpec(f"{attn}.q_norm", "head_norm", (D,), bias=False, one_position=last)]
            layers += [LayerSpec(f"{attn}.k_norm", "head_norm", (D,), bias=False)]
        if i not in config.unrotated:
            layers += [LayerSpec(f"{attn}.q_rotated", "rope", one_position=last)]
            layers += [LayerSpec(f"{attn}.k_rotated", "rope")]
        layers += [
            LayerSpec(f"{attn}.context", "attention", one_position=last),
            LayerSpec(f"{attn}.o_proj", "linear", (C, Q), branch_std, bias=bias, one_position=last),
            LayerSpec(f"{attn}.residual", "residual", width=C, one_position=last),
            LayerSpec(f"blocks.{i}.norm2", "rms_norm", (C,), bias=False, one_position=last),
            LayerSpec(f"{mlp}.gate_proj", "linear", (F, C), std, bias=mlp_bias, one_position=last),
            LayerSpec(f"{mlp}.up_proj", "linear", (F, C), std, bias=mlp_bias, one_position=last),
            LayerSpec(f"{mlp}.swiglu", "swiglu", one_position=last),
            LayerSpec(f"{mlp}.down_proj", "linear", (C, F), branch_std, bias=mlp_bias, one_position=last),
            LayerSpec(f"{mlp}.residual", "residual", width=C, one_position=last),
        ]
    layers += [LayerSpec("norm_f", "rms_norm", (C,), bias=False, one_position=one)]
    if config.n_classes:
        layers += [LayerSpec("pooled", "pool", one_position=True)]
        layers += [LayerSpec("head", "linear", (config.n_classes, C), std, bias=False, one_position=True)]
    else:
        tied_to = "tok_emb" if config.tied else None
        layers += [LayerSpec("head", "linear", (V, C), std, bias=False, tied_to=tied_to)]
    return MappingProxyType(with_depths(layers))  # read-only, because it is cached


def embed_forward(ids, run, start=0):
    """Embed token ids (B, T) as (B, T, C). The rotations encode the positions, so `start` has no effect here."""
    return run("tok_emb", ids)


def embed_backward(dx, back):
    """Compute the gradient of the token embedding."""
    back("tok_emb", dx)


def block_forward(x, i, config, run):
    """x + attention(norm1(x)), then x + mlp(norm2(x)): (B, T, C) to (B, T, C); see `gpt2.block_forward`."""
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    h = run(f"blocks.{i}.norm1", x)
    q = run(f"{attn}.q_proj", h)  # (B, T, H·D)
    k = run(f"{attn}.k_proj", h)  # (B, T, K·D)
    v = run(f"{attn}.v_proj", h)  # (B, T, K·D)
    if config.head_norm:
        q = run(f"{attn}.q_norm", q)
        k = run(f"{attn}.k_norm", k)
    if i not in config.unrotated:
        q = run(f"{attn}.q_rotated", q)
        k = run(f"{attn}.k_rotated", k)
    context = run(f"{attn}.context", q, k, v)  # (B, T, H·D)
    branch = run(f"{attn}.o_proj", context)
    x = run(f"{attn}.residual", x, branch)

    h = run(f"blocks.{i}.norm2", x)
    gate = run(f"{mlp}.gate_proj", h)  # (B, T, F)
    up = run(f"{mlp}.up_proj", h)  # (B, T, F)
    act = run(f"{mlp}.swiglu", gate, up)  # (B, T, F)
    branch = run(f"{mlp}.down_proj", act)
    return run(f"{mlp}.residual", x, branch)


def block_backward(dx, i, config, back):
    """Compute the gradient of the block's input from that of its output: `block_forward` in reverse order."""
    attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"

    # x = x + down_proj(swiglu(gate_proj(h), up_proj(h))), h = norm2(x)
    dx, dbranch = back(f"{mlp}.residual", dx)
    dact = back(f"{mlp}.down_proj", dbranch)  # (B, T, F)
    dgate, dup = back(f"{mlp}.swiglu", dact)  # (B, T, F)
    through_up = back(f"{mlp}.up_proj", dup)
    through_gate = back(f"{mlp}.gate_proj", dgate)
    dh = add(through_gate, through_up)
    dx = add(dx, back(f"blocks.{i}.norm2", dh))

    # x = x + o_proj(attention(rotated(q_proj(h)), rotated(k_proj(h)), v_proj(h))), h = norm1(x)
    dx, dbranch = back(f"{attn}.residual", dx)
    dcontext = back(f"{attn}.o_proj", dbranch)  # (B, T, H·D)
    dq, dk, dv = back(f"{attn}.context", dcontext)
    if i not in config.unrotated:
        dk = back(f"{attn}.k_rotated", dk)
        dq = back(f"{attn}.q_rotated", dq)
    if config.head_norm:
        dk = back(f"{attn}.k_norm", dk)
        dq = back(f"{attn}.q_norm", dq)
    through_v = back(f"{attn}.v_proj", dv)
    through_k = back(f"{attn}.k_proj", dk)
    through_q = back(f"{attn}.q_proj", dq)
    dh = add(through_q, through_k, through_v)
    return add(dx, back(f"blocks.{i}.norm1", dh))


def output_forward(x, config, run):
    """Apply the last norm and, for a classifier, select one position in each row: (B, T, C) or (B, C)."""
    h = run("norm_f", x)
    return run("pooled", h) if config.n_classes else h


def output_backward(dh, config, back):
    """The gradient of the last block's output."""
    if config.n_classes:
        dh = back("pooled", dh)  # (B, 1, C)
    return back("norm_f", dh)


# Each layer's name in Hugging Face files (of a model with a head), its name in GGUF, and our name for the layer; {} is
# the block's number.
FILE_NAMES = """
model.embed_tokens                        token_embd          tok_emb
model.layers.{}.input_layernorm           blk.{}.attn_norm    blocks.{}.norm1
model.layers.{}.self_attn.q_proj          blk.{}.attn_q       blocks.{}.attn.q_proj
model.layers.{}.self_attn.k_proj          blk.{}.attn_k       blocks.{}.attn.k_proj
model.layers.{}.self_attn.v_proj          blk.{}.attn_v       blocks.{}.attn.v_proj
model.layers.{}.self_attn.o_proj          blk.{}.attn_output  blocks.{}.attn.o_proj
model.layers.{}.post_attention_layernorm  blk.{}.ffn_norm     blocks.{}.norm2
model.layers.{}.mlp.gate_proj             blk.{}.ffn_gate     blocks.{}.mlp.gate_proj
model.layers.{}.mlp.up_proj               blk.{}.ffn_up       blocks.{}.mlp.up_proj
model.layers.{}.mlp.down_proj             blk.{}.ffn_down     blocks.{}.mlp.down_proj
model.norm                                output_norm         norm_f
lm_head                                   output              head
"""

LLAMA = Architecture(
    name="llama",
    config_class=LlamaConfig,
    modules=modules,
    embed_forward=embed_forward,
    embed_backward=embed_backward,
    block_forward=block_forward,
    block_backward=block_backward,
    output_forward=output_forward,
    output_backward=output_backward,
    file_names=FILE_NAMES,
    peft_targets=("q_proj", "v_proj"),
    gguf_interleaved=("q_proj", "k_proj"),
)
