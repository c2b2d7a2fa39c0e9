"""Hugging Face's GPT-2 on disk, both ways: `config.json` beside `model.safetensors`.

The model is the same as ours; names and layout differ. GPT-2 keeps a linear layer's weight as (in, out), and q, k
and v as one layer `c_attn` of (C, 3C), q | k | v along the last axis. A file of the bare model has names such as
`h.0.attn.c_attn.weight`, one of a language model or classifier has `transformer.` in front of them.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import END_OF_TEXT, pad_id
from ..model import ModelConfig, parameter_shapes
from .checkpoint import cast, check_tensors, read_object, warn_of_unknown
from .tensors import read_tensors, write_json, write_tensors, write_text

# GPT-2's linear layers of a block, and ours that each stands for.
LINEAR = {
    "attn.c_attn": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "attn.c_proj": ("attn.o_proj",),
    "mlp.c_fc": ("mlp.up_proj",),
    "mlp.c_proj": ("mlp.down_proj",),
}
NORMS = {"ln_1": "ln1", "ln_2": "ln2"}
PREFIX = "transformer."
MASK_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which old files carry

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")
# Fields that change what the model computes, with the values that ours computes.
FIXED = {
    "model_type": ("gpt2",),
    "activation_function": TANH_GELU,
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}
SIZES = {"vocab_size": "vocab_size", "n_embd": "d_model", "n_layer": "n_layers", "n_head": "n_heads"}
# Fields of transformers that change nothing here; they are kept without a word.
KNOWN = """architectures attn_pdrop bos_token_id chunk_size_feed_forward dtype embd_pdrop eos_token_id
gradient_checkpointing id2label initializer_range is_decoder is_encoder_decoder label2id n_ctx num_labels
_num_labels _name_or_path output_attentions output_hidden_states output_past pad_token_id problem_type
reorder_and_upcast_attn resid_pdrop return_dict summary_activation summary_first_dropout summary_proj_to_labels
summary_type summary_use_proj task_specific_params tie_word_embeddings torch_dtype transformers_version
use_cache""".split()
# Fields that are written from the model itself and so are not kept.
WRITTEN = {"architectures", "id2label", "label2id", "num_labels", "_num_labels", "tie_word_embeddings", "dtype"}
WRITTEN |= {"torch_dtype", "transformers_version", "_name_or_path", "n_ctx"}


class GPT2(NamedTuple):
    """What a GPT-2 directory holds, as ours."""

    params: dict[str, np.ndarray]
    config: ModelConfig
    labels: list[str] | None  # of a classifier


# ---------------------------------------------------------------- reading


def load_gpt2(path, dtype=np.float32):
    """Read a GPT-2 language model or sequence classifier.

    Parameters
    ----------
    path : a directory with `config.json` and `model.safetensors`, or `model.safetensors.index.json` and the files
        that it names; or one of those two files, beside its `config.json`
    dtype : np.float32 or np.float64, of the arrays returned; the file's may be float16, bfloat16, float32 or float64

    Returns
    -------
    GPT2

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, a tensor is missing, unexpected or of another shape, an index
        names a file outside of its directory, or the model is one that ours is not.
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype: got {np.dtype(dtype)}, expected float32 or float64")
    file = tensor_file(Path(path))
    tensors = bare_names(file, read_sharded(file) if file.suffix == ".json" else read_tensors(file)[0])
    fields_path = file.parent / "config.json"
    fields = read_object(fields_path)
    head = tensors.get("score.weight")
    if head is not None and head.ndim != 2:
        raise ValueError(f"{file}: score.weight has shape {head.shape}, expected (n_classes, n_embd)")
    config = config_from_fields(fields_path, fields, 0 if head is None else len(head), tensors)
    if "lm_head.weight" in tensors and head is None:
        lm_head = tensors.pop("lm_head.weight")
        if not np.array_equal(lm_head, tensors.get("wte.weight")):
            raise ValueError(f"{file}: lm_head.weight is not wte.weight; expected a head tied to the embedding")
    check_tensors(file, tensors, gpt2_shapes(config))
    tensors = cast(file, tensors, dtype)
    return GPT2(params_from_gpt2(tensors, config), config, label_list(fields_path, fields, config))


def tensor_file(path):
    """The file that holds the tensors, or the index of those that do."""
    if path.is_file():
        if not path.name.endswith((".safetensors", ".index.json")):
            raise ValueError(f"{path}: expected a file ending in .safetensors or .index.json; pickle is never read")
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or directory")
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if (path / name).is_file():
            return path / name
    there = ", ".join(sorted(p.name for p in path.iterdir())[:10]) or "nothing"
    raise FileNotFoundError(f"{path}: holds no model.safetensors and no index of it ({there}); pickle is never read")


def read_sharded(index):
    """The tensors of all files that an index names, {name: array}."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{index}: weight_map is {places!r}, expected an object of tensor -> file")
    folder, tensors = os.path.realpath(index.parent), {}
    for file in dict.fromkeys(places.values()):
        shard = index.parent / file
        named_alone = file.isprintable() and "\\" not in file and Path(file).name == file
        if not named_alone or os.path.dirname(os.path.realpath(shard)) != folder:
            raise ValueError(f"{index}: names the file {file!r}, which is not in its directory, or leads out of it")
        found, _ = read_tensors(shard)
        for name in found:
            if places.get(name) != file:
                raise ValueError(f"{shard}: unexpected tensor {name}; {index.name} places it in {places.get(name)}")
        tensors |= found
    for name in places:
        if name not in tensors:
            raise ValueError(f"{index}: {name} is not in {places[name]}")
    return tensors


def bare_names(path, tensors):
    """The tensors without `transformer.` in front of their names, and without mask buffers."""
    bare = {}
    for name, array in tensors.items():
        short = name.removeprefix(PREFIX)
        if short in bare:
            raise ValueError(f"{path}: repeated name {short}, with and without {PREFIX!r}")
        if not MASK_BUFFER.fullmatch(short):
            bare[short] = array
    return bare


def config_from_fields(path, fields, n_classes, tensors):
    """Our configuration from the fields of a GPT-2 `config.json`."""
    for name, values in FIXED.items():
        if name in fields and fields[name] not in values:
            raise ValueError(f"{path}: {name} is {fields[name]!r}, expected {' or '.join(map(repr, values))}")
    named = {**SIZES, "n_positions": "n_positions", "layer_norm_epsilon": "layer_norm_eps"}
    for name in (*SIZES, "n_positions"):
        if name not in fields:
            raise ValueError(f"{path}: {name} is missing")
    values = {ours: fields[name] for name, ours in named.items() if name in fields}
    inner = fields.get("n_inner")
    if inner is None:
        inner = 4 * values["d_model"] if isinstance(values["d_model"], int) else values["d_model"]
    layers = values["n_layers"]
    if isinstance(layers, int) and layers > len(tensors):
        raise ValueError(f"{path}: n_layer is {layers}, and there are {len(tensors)} tensors")
    extra = {n: v for n, v in fields.items() if n not in {*named, *FIXED, *WRITTEN, "n_inner", "resid_pdrop"}}
    warn_of_unknown(path, [name for name in extra if name not in KNOWN])
    try:
        dropout = fields.get("resid_pdrop", 0.0)
        return ModelConfig(**values, d_ff=inner, n_classes=n_classes, dropout=dropout, extra=extra)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def default_labels(n_classes):
    """What transformers calls classes without names of their own."""
    return [f"LABEL_{k}" for k in range(n_classes)]


def label_list(path, fields, config):
    """A classifier's labels in the order of its classes."""
    if not config.n_classes:
        return None
    default = {str(k): label for k, label in enumerate(default_labels(config.n_classes))}
    named = fields.get("id2label") or default
    fits = isinstance(named, dict) and set(named) == set(default)
    if not fits or not all(isinstance(label, str) for label in named.values()):
        raise ValueError(f"{path}: id2label is {named!r}, expected a text for each of {config.n_classes} classes")
    return [named[str(k)] for k in range(config.n_classes)]


# ---------------------------------------------------------------- names and layout


def layout(config):
    """Each layer of GPT-2, without the prefix, and ours that stand side by side in it.

    Returns
    -------
    dict, such as "h.0.attn.c_attn" -> ("blocks.0.attn.q_proj", "blocks.0.attn.k_proj", "blocks.0.attn.v_proj")
    """
    found = {"wte": ("tok_emb",), "wpe": ("pos_emb",)}
    for i in range(config.n_layers):
        found |= {f"h.{i}.{theirs}": (f"blocks.{i}.{ours}",) for theirs, ours in NORMS.items()}
        found |= {f"h.{i}.{theirs}": tuple(f"blocks.{i}.{name}" for name in ours) for theirs, ours in LINEAR.items()}
    found["ln_f"] = ("ln_f",)
    return found | ({"score": ("head",)} if config.n_classes else {})


def is_transposed(layer):
    """Whether GPT-2 keeps a layer's weight as (in, out)."""
    return layer.split(".", 2)[-1] in LINEAR


def gpt2_shapes(config):
    """Name -> shape of every tensor of the model in GPT-2's layout, without the prefix."""
    shapes, found = parameter_shapes(config), {}
    for theirs, ours in layout(config).items():
        for leaf in ("weight", "bias"):
            if f"{ours[0]}.{leaf}" in shapes:
                n_out, *n_in = shapes[f"{ours[0]}.{leaf}"]
                shape = (len(ours) * n_out, *n_in)
                found[f"{theirs}.{leaf}"] = shape[::-1] if is_transposed(theirs) else shape
    return found


def gpt2_tensors(params, config):
    """Our parameters under GPT-2's names and in its layout, without the prefix."""
    found = {}
    for theirs, ours in layout(config).items():
        for leaf in ("weight", "bias"):
            if f"{ours[0]}.{leaf}" in params:
                joined = np.concatenate([params[f"{name}.{leaf}"] for name in ours])  # (out, in) or (out,)
                found[f"{theirs}.{leaf}"] = joined.T if is_transposed(theirs) else joined
    return found


def params_from_gpt2(tensors, config):
    """Our parameters from tensors in GPT-2's layout, without the prefix."""
    found = {}
    for theirs, ours in layout(config).items():
        for leaf in ("weight", "bias"):
            if f"{theirs}.{leaf}" in tensors:
                array = tensors[f"{theirs}.{leaf}"]
                parts = np.split(array.T if is_transposed(theirs) else array, len(ours))  # (out, in) or (out,)
                found |= {f"{name}.{leaf}": part for name, part in zip(ours, parts)}
    return {name: np.ascontiguousarray(found[name]) for name in parameter_shapes(config)}


# ---------------------------------------------------------------- writing


def save_gpt2(folder, params, config, tokenizer=None, labels=None):
    """Write a model as `transformers` loads it: GPT2LMHeadModel, or GPT2ForSequenceClassification.

    Parameters
    ----------
    folder : where to; made if it is not there
    params : dict of the weights, written in their own dtype
    config : ModelConfig
    tokenizer : the tokenizer of `load_tokenizer`, or None
    labels : list of str, a classifier's, or None
    """
    folder = Path(folder)
    if labels is not None and len(labels) != config.n_classes:
        raise ValueError(f"labels: got {len(labels)}, expected n_classes = {config.n_classes}")
    tensors = gpt2_tensors(params, config)
    tensors = {name if name == "score.weight" else PREFIX + name: array for name, array in tensors.items()}
    tensors = cast(folder / "model.safetensors", tensors)
    (folder / "config.json").unlink(missing_ok=True)  # comes last: a folder without it was not finished
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    if tokenizer is not None:
        save_tokenizer(folder, tokenizer, config)
    write_json(folder / "config.json", gpt2_fields(config, tokenizer, labels))


def gpt2_fields(config, tokenizer=None, labels=None):
    """The fields of `config.json`."""
    kind = "GPT2ForSequenceClassification" if config.n_classes else "GPT2LMHeadModel"
    fields = {
        "attn_pdrop": 0.0,  # ours drops nothing inside attention
        "bos_token_id": None,
        "eos_token_id": None,
        "embd_pdrop": config.dropout,
        **config.extra,
        "architectures": [kind],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "n_positions": config.n_positions,
        "n_inner": config.d_ff,
        "activation_function": TANH_GELU[0],
        "layer_norm_epsilon": config.layer_norm_eps,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": True,
    }
    if tokenizer is not None:
        end, pad = special_ids(tokenizer)
        fields |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    if config.n_classes:
        labels = labels or default_labels(config.n_classes)
        fields["id2label"] = {str(k): label for k, label in enumerate(labels)}
        fields["label2id"] = {label: k for k, label in enumerate(labels)}
    return fields


def save_tokenizer(folder, tokenizer, config):
    """`tokenizer.json`, and the `tokenizer_config.json` that makes transformers read it as it is."""
    end, pad = (tokenizer.id_to_token(token) for token in special_ids(tokenizer))
    write_text(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.n_positions}
    about |= {"bos_token": end, "eos_token": end, "pad_token": pad, "clean_up_tokenization_spaces": False}
    write_json(Path(folder) / "tokenizer_config.json", about)


def special_ids(tokenizer):
    """The ids of the end of a text, and of padding."""
    return tokenizer.token_to_id(END_OF_TEXT), pad_id(tokenizer)
