"""Read and write Hugging Face's GPT-2: `config.json` and `model.safetensors`.

The model is the same as ours; names and layout differ. GPT-2 stores a linear layer's weight as (in, out), and q, k
and v as one layer `c_attn` of (C, 3C), q | k | v along the last axis. A file of the bare model has names such as
`h.0.attn.c_attn.weight`; a language model or classifier has the prefix `transformer.`.
"""

import re

import numpy as np

from ..checked import quoted, shown
from ..data import new_files
from ..data.tokenizer_files import SETTINGS, TOKENIZER, new_settings
from ..model import ModelConfig, parameter_shapes
from .atomic import of_one_version
from .checkpoint import read_as, read_object, reader, write_pair
from .hugging_face import (
    FIXED,
    HFModel,
    check_fixed,
    default_labels,
    label_list,
    our_config,
    read_hf_tensors,
    special_ids,
)

# The linear layers of a GPT-2 block, and the layers of ours that each contains.
LINEAR = {
    "attn.c_attn": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "attn.c_proj": ("attn.o_proj",),
    "mlp.c_fc": ("mlp.up_proj",),
    "mlp.c_proj": ("mlp.down_proj",),
}
NORMS = {"ln_1": ("ln1",), "ln_2": ("ln2",)}
PREFIX = "transformer."
MASK_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which old files contain

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
    tensors, fields_path = bare_names(file, tensors), file.parent / "config.json"
    fields = read_object(fields_path)
    config = config_from_fields(fields_path, fields, tensors)
    if not config.n_classes:
        is_tied = fields.get("tie_word_embeddings", True)
        lm_head = tensors.pop("lm_head.weight", tensors.get("wte.weight") if is_tied else None)
        if lm_head is None:
            raise ValueError(f"{file}: lm_head.weight is missing, but config.json does not tie it to wte.weight")
        if not np.array_equal(lm_head, tensors.get("wte.weight")):
            raise ValueError(f"{file}: lm_head.weight is not wte.weight; expected a head tied to the embedding")
    tensors = read_as(file, tensors, {theirs: shape for theirs, _, shape, _ in layout(config)}, dtype)
    params = {}
    for theirs, names, _, is_transposed in layout(config):
        joined = tensors[theirs].T if is_transposed else tensors[theirs]  # (out, in) or (out,)
        params |= zip(names, np.split(joined, len(names)))
    params = {name: np.ascontiguousarray(params[name]) for name in parameter_shapes(config)}
    return HFModel(params, config, label_list(fields_path, fields, config))


def bare_names(path, tensors):
    """The tensors without the prefix `transformer.` and without mask buffers."""
    bare = {}
    for name, array in tensors.items():
        short = name.removeprefix(PREFIX)
        if short in bare:
            raise ValueError(f"{path}: repeated name {shown(short)}, with and without {PREFIX!r}")
        if not MASK_BUFFER.fullmatch(short):
            bare[short] = array
    return bare


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


# ---------------------------------------------------------------- names and layout


def block_layers(n_layers, layers=LINEAR):
    """Layers of all blocks of GPT-2, without the prefix, and the layers of ours that each contains.

    For example "h.0.attn.c_attn" -> ["blocks.0.attn.q_proj", "blocks.0.attn.k_proj", "blocks.0.attn.v_proj"].
    """
    pairs = [(i, theirs, ours) for i in range(n_layers) for theirs, ours in layers.items()]
    return {f"h.{i}.{theirs}": [f"blocks.{i}.{name}" for name in ours] for i, theirs, ours in pairs}


def layout(config):
    """(GPT-2's name without the prefix, our names, its shape, whether GPT-2 transposes it) of each tensor."""
    shapes, blocks = parameter_shapes(config), block_layers(config.n_layers, NORMS | LINEAR)
    layers = {"wte": ["tok_emb"], "wpe": ["pos_emb"], **blocks, "ln_f": ["ln_f"], "score": ["head"]}
    for theirs, ours in layers.items():
        is_transposed = theirs.split(".", 2)[-1] in LINEAR
        for leaf in ("weight", "bias"):
            names = [f"{name}.{leaf}" for name in ours]
            if names[0] in shapes:
                n_out, *n_in = shapes[names[0]]
                shape = (len(names) * n_out, *n_in)
                yield f"{theirs}.{leaf}", names, shape[::-1] if is_transposed else shape, is_transposed


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
    if labels is not None and len(labels) != config.n_classes:
        raise ValueError(f"labels: got {len(labels)}, expected n_classes = {config.n_classes}")
    tensors = {}
    for theirs, names, _, is_transposed in layout(config):
        joined = np.concatenate([params[name] for name in names])  # (out, in) or (out,)
        tensors[theirs if theirs == "score.weight" else PREFIX + theirs] = joined.T if is_transposed else joined
    files = files or (new_files(tokenizer) if tokenizer is not None else {})
    if TOKENIZER in files and "model_type" not in config.extra:  # or transformers would read it as one of GPT-2's
        files = {SETTINGS: new_settings(tokenizer), **files}
    fields = gpt2_fields(config, labels, special_ids(config, tokenizer, files))
    names = "model.safetensors", "config.json"
    write_pair(folder, names, tensors, fields, None, files, {"format": "pt"}, check=reader(load_gpt2, params))


def gpt2_fields(config, labels, special):
    """The fields of `config.json`; `special` has the ids of special tokens, which those of an import replace."""
    fields = {
        "attn_pdrop": 0.0,  # we have no dropout inside attention
        "bos_token_id": None,
        "eos_token_id": None,
        "embd_pdrop": config.dropout,
        **special,
        **config.extra,
        "architectures": ["GPT2ForSequenceClassification" if config.n_classes else "GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "n_inner": config.d_ff,
        "activation_function": TANH_GELU[0],
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
    }
    if config.n_classes:
        labels = labels or default_labels(config.n_classes)
        fields["id2label"] = {str(k): label for k, label in enumerate(labels)}
        fields["label2id"] = {label: k for k, label in enumerate(labels)}
    return fields
