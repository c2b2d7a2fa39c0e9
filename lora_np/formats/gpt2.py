"""Read and write Hugging Face's GPT-2: `config.json` and `model.safetensors`.

The model is the same as ours; names and layout differ. GPT-2 stores a linear layer's weight as (in, out), and q, k
and v as one layer `c_attn` of (C, 3C), q | k | v along the last axis. A file of the bare model has names such as
`h.0.attn.c_attn.weight`; a language model or classifier has the prefix `transformer.`.
"""

import re

import numpy as np

from ..checked import quoted
from ..model import ModelConfig
from .atomic import of_one_version
from .checkpoint import read_object
from .hugging_face import (
    FIXED,
    NO_IDS,
    HFModel,
    check_fixed,
    label_list,
    our_config,
    params_of,
    read_hf_tensors,
    save_hf,
)

MASK_BUFFER = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, in old files

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


# ---------------------------------------------------------------- reading


@of_one_version
def load_gpt2(path, dtype=np.float32):
    """Read a GPT-2 language model or sequence classifier.

    Parameters
    ----------
    path : a directory with `config.json` and either `model.safetensors` or `model.safetensors.index.json` and the
        files that it names; or the path of one of those two files
    dtype : np.float32 or np.float64, of the returned arrays; the file may have float16, bfloat16, float32 or float64

    Returns
    -------
    HFModel

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, a tensor is missing, unexpected or of another shape, an index
        names a file outside its directory, or the model computes something that ours does not.
    """
    file, tensors = read_hf_tensors(path)
    tensors = {name: array for name, array in tensors.items() if not MASK_BUFFER.fullmatch(name)}
    fields_path = file.parent / "config.json"
    fields = read_object(fields_path)
    config = config_from_fields(fields_path, fields, tensors)
    if not (fields.get("tie_word_embeddings", True) or config.n_classes or "lm_head.weight" in tensors):
        raise ValueError(f"{file}: lm_head.weight is missing, but config.json does not tie it to wte.weight")
    return HFModel(params_of(file, tensors, config, dtype), config, label_list(fields_path, fields, config))


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
    used = (*GPT2_FIXED, "n_inner", "n_ctx")
    return our_config(ModelConfig, path, fields, SIZES | OPTIONAL, tensors, used, d_ff=d_ff)


# ---------------------------------------------------------------- writing


def save_gpt2(folder, params, config, tokenizer=None, labels=None, files=None):
    """Write a model for `transformers`: a GPT2LMHeadModel or GPT2ForSequenceClassification.

    Parameters
    ----------
    folder : folder to write; created if needed
    params : dict of the weights, written in their own dtype
    config : ModelConfig
    tokenizer : the tokenizer of `load_tokenizer`, or None
    labels : list of str, a classifier's, or None
    files : dict of the tokenizer's files, name -> bytes, as in `Task`; None: those of a new tokenizer
    """
    fields = {
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "n_inner": config.d_ff,
        "activation_function": TANH_GELU[0],
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
    }
    defaults = {"attn_pdrop": 0.0, **NO_IDS, "embd_pdrop": config.dropout}  # we have no dropout inside attention
    save_hf(folder, params, config, "GPT2", defaults, fields, (tokenizer, labels, files), load_gpt2)


def gguf_numbers(config):
    """The fields ``gpt2.*`` of a GGUF file for a configuration."""
    return {f"gpt2.{name}": getattr(config, ours) for name, ours in GGUF_NUMBERS.items()}
