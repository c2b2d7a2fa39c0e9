"""Decoders that differ from Llama (`llama.py`) only in details of the attention.

    Qwen 2 and 2.5   biases in q_proj, k_proj and v_proj (Qwen team 2024, Qwen2 technical report)
    Qwen 3           RMS normalisation of each head's queries and keys (Qwen team 2025, Qwen3 technical report)
    SmolLM3          no rotary positions in some blocks (Yang et al. 2025, Rope to Nope and Back Again)

Mistral's models are Llamas, except that some attend to a window of tokens only; see `formats/config_fields.py`.
"""

from dataclasses import dataclass

from .llama import FILE_NAMES, LLAMA, LlamaConfig

HEAD_NORMS = """
model.layers.{}.self_attn.q_norm          blk.{}.attn_q_norm  blocks.{}.attn.q_norm
model.layers.{}.self_attn.k_norm          blk.{}.attn_k_norm  blocks.{}.attn.k_norm
model.layers.{}.self_attn.o_proj"""


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """A `LlamaConfig` for Qwen 2 and 2.5."""

    qkv_bias: bool = True


@dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """A `LlamaConfig` for Qwen 3."""

    head_norm: bool = True


@dataclass(frozen=True)
class SmolLM3Config(LlamaConfig):
    """A `LlamaConfig` for SmolLM3."""


QWEN2 = LLAMA._replace(name="qwen2", config_class=Qwen2Config, gguf_interleaved=())
QWEN3 = LLAMA._replace(
    name="qwen3",
    config_class=Qwen3Config,
    file_names=FILE_NAMES.replace("\nmodel.layers.{}.self_attn.o_proj", HEAD_NORMS),
    gguf_interleaved=(),
)
SMOLLM3 = LLAMA._replace(name="smollm3", config_class=SmolLM3Config)
