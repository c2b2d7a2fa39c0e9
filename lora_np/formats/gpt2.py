"""GPT-2 in the files of transformers and llama.cpp: the fields that configure it.

transformers stores a linear layer's weight as (in, out), and q, k and v as one layer `c_attn` of (C, 3C), q | k | v
along the last axis. A file of the bare model has names such as `h.0.attn.c_attn.weight`; a language model or
classifier has the prefix `transformer.`.
"""

from ..checked import quoted
from ..model import ModelConfig
from .hugging_face import FIXED, NO_IDS, FileFormat, check_fixed, our_config

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")
# Fields that change what the model computes, with the values that we support.
GPT2_FIXED = FIXED | {
    "model_type": ("gpt2",),
    "activation_function": TANH_GELU,
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
}
SIZES = {
    "vocab_size": "vocab_size",
    "n_embd": "d_model",
    "n_layer": "n_layers",
    "n_head": "n_heads",
    "n_positions": "n_positions",
}
ALIASES = {  # GPT2Config.attribute_map: other names of sizes, which transformers prefers
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
OPTIONAL = {"layer_norm_epsilon": "layer_norm_eps", "resid_pdrop": "dropout"}
GGUF_NUMBERS = {  # "gpt2." + name -> ours
    "context_length": "n_positions",
    "embedding_length": "d_model",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "feed_forward_length": "d_ff",
    "attention.layer_norm_epsilon": "layer_norm_eps",
}


def config_from_fields(path, fields, tensors):
    """Our configuration from the fields of a GPT-2 `config.json`."""
    check_fixed(path, fields, GPT2_FIXED)
    for alias, name in ALIASES.items():
        first, second = fields.get(alias), fields.get(name)
        if alias in fields and name in fields and first != second:
            raise ValueError(f"{path}: {alias} is {quoted(first)}, but {name} is {quoted(second)}; expected one size")
    fields = {"model_type": "gpt2"} | {ALIASES.get(name, name): value for name, value in fields.items()}
    d_ff, C = fields.get("n_inner"), fields.get("n_embd")
    if d_ff is None:
        d_ff = 4 * C if isinstance(C, int) else C
    if not (fields.get("tie_word_embeddings", True) or "score.weight" in tensors or "lm_head.weight" in tensors):
        raise ValueError(f"{path}: tie_word_embeddings is false, but the file has no lm_head.weight")
    used = (*GPT2_FIXED, "n_inner", "n_ctx")
    return our_config(ModelConfig, path, fields, SIZES | OPTIONAL, tensors, used, d_ff=d_ff)


def fields_of(config):
    """The fields of `config.json`, as two dicts: those that an import's fields replace, and the others."""
    defaults = {"attn_pdrop": 0.0, **NO_IDS, "embd_pdrop": config.dropout}  # we have no dropout inside attention
    return defaults, {
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "n_inner": config.d_ff,
        "activation_function": TANH_GELU[0],
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
    }


def gguf_fields(config):
    """The fields ``gpt2.*`` of a GGUF file."""
    return {f"gpt2.{name}": getattr(config, ours) for name, ours in GGUF_NUMBERS.items()}


FORMAT = FileFormat(
    hf_classes=("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
    buffers=r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask
    config_from_fields=config_from_fields,
    fields_of=fields_of,
    gguf_fields=gguf_fields,
)
