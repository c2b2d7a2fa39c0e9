"""Helpers for Hugging Face's model directories: files, tensors, labels, special tokens and fields of `config.json`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checked import quoted, shown
from ..data import END_OF_TEXT, PAD
from ..data.texts import kind_of
from ..data.tokenizer_files import GENERATION, json_object
from ..model import parameter_shapes
from .checkpoint import check_depth, contents, read_as, read_object, warn_of_unknown
from .names import bare, is_transposed, layer_names
from .tensors import read_tensors

FIXED = {  # fields that change what any model computes, with the supported values
    "quantization_config": (None,),
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": (None, {}),
    "per_layer_config": (None, {}),
    # These limit what transformers' cache remembers, so they change what it generates.
    "sliding_window": (None,),
    "attention_chunk_size": (None,),
}
# Fields that are computed from the model when it is written.
WRITTEN = """architectures id2label label2id num_labels _num_labels tie_word_embeddings dtype torch_dtype
transformers_version _name_or_path""".split()
# Other fields of transformers that have no effect here. They are written back without a warning.
KNOWN = """attention_dropout attn_pdrop bos_token_id chunk_size_feed_forward embd_pdrop eos_token_id
gradient_checkpointing initializer_range is_decoder is_llama_config layer_types output_attentions output_hidden_states
output_past pad_token_id pretraining_tp problem_type reorder_and_upcast_attn resid_pdrop return_dict rope_interleaved
summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params
tokenizer_class transformers.js_config unk_token_id use_cache""".split()
NO_IDS = {"bos_token_id": None, "eos_token_id": None}  # unless the tokenizer or an imported model has them


class FileFormat(NamedTuple):
    """How the files of transformers and llama.cpp describe an architecture."""

    hf_classes: tuple[str, str]  # transformers' classes: of the language model, and of the classifier
    config_from_fields: Callable  # (path, fields of config.json, tensors) -> our configuration
    fields_of: (
        Callable  # configuration -> two dicts of fields of config.json: defaults, which an import's replace; others
    )
    gguf_fields: Callable  # configuration -> fields of a GGUF file
    config_from_gguf: Callable | None = None  # (path, fields, tensors) -> our configuration; None: cannot be read
    buffers: str = ""  # pattern of the names of tensors in old files that are no parameters


# ---------------------------------------------------------------- files


def read_hf_tensors(path):
    """The file that a path means, see `tensor_file`, and the tensors in it or in all files that it names."""
    file = tensor_file(Path(path))
    return file, read_sharded(file) if file.suffix == ".json" else read_tensors(file)[0]


def tensor_file(path, names=("model.safetensors", "model.safetensors.index.json")):
    """The file of tensors, or the index of several, at a path; in a folder, the first of these names that exists."""
    if path.is_file():
        if not path.name.endswith((".safetensors", ".index.json")):
            raise ValueError(f"{path}: expected a file ending in .safetensors or .index.json; pickle is never read")
        return path
    if not path.is_dir():
        if path.exists():
            raise ValueError(f"{path} is {kind_of(path)}, expected a file or a folder")
        raise FileNotFoundError(f"{path}: no such file or directory")
    files = [file for name in names for file in sorted(path.glob(name)) if file.is_file()]
    if files:
        return files[0]
    raise FileNotFoundError(f"{path}: no {' and no '.join(names)} ({contents(path)}); pickle is never read")


def read_sharded(index):
    """The tensors of all files that an index names, as {name: array}."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{index}: weight_map is {quoted(places)}, expected an object of tensor -> file")
    folder, tensors = os.path.realpath(index.parent), {}
    for file in dict.fromkeys(places.values()):
        shard = index.parent / file
        is_plain_name = file.isprintable() and "\\" not in file and Path(file).name == file
        if not is_plain_name or os.path.dirname(os.path.realpath(shard)) != folder:
            raise ValueError(f"{index}: names the file {quoted(file)}, which is not in its directory")
        arrays, _ = read_tensors(shard)
        for name in arrays:
            if places.get(name) != file:
                place = shown(str(places.get(name)))
                raise ValueError(f"{shard}: unexpected tensor {shown(name)}; {index.name} says it is in {place}")
        tensors |= arrays
    for name in places:
        if name not in tensors:
            raise ValueError(f"{index}: {shown(name)} is not in {shown(places[name])}")
    return tensors


# ---------------------------------------------------------------- tensors


def layout(config):
    """Yield (name in the file, our names, shape, whether transposed) for each tensor, in execution order."""
    shapes = parameter_shapes(config)
    for layer, ours in layer_names(config, "hf").items():
        transposed = is_transposed(config, layer)
        for leaf in ("weight", "bias"):
            names = [f"{name}.{leaf}" for name in ours]
            if names[0] in shapes:
                n_out, *n_in = shapes[names[0]]
                shape = (len(names) * n_out, *n_in)
                theirs = "score" if layer == "lm_head" and config.n_classes else layer
                yield f"{theirs}.{leaf}", names, shape[::-1] if transposed else shape, transposed


def params_of(file, tensors, config, dtype):
    """Our parameters from the tensors of a file, of a model with or without a head; errors name the file."""
    tensors, rows = bare_names(file, tensors), [(bare(theirs), *row) for theirs, *row in layout(config)]
    table, is_tied = rows[0][0], not any(names == ["head.weight"] for _, names, *_ in rows)
    if is_tied and not np.array_equal(tensors.pop("lm_head.weight", tensors.get(table)), tensors.get(table)):
        raise ValueError(f"{file}: lm_head.weight is not {table}; expected a head tied to the embedding")
    tensors = read_as(file, tensors, {theirs: shape for theirs, _, shape, _ in rows}, dtype)
    params = {}
    for theirs, names, _, transposed in rows:
        joined = tensors[theirs].T if transposed else tensors[theirs]  # (out, in) or (out,)
        params |= zip(names, np.split(joined, len(names)))
    return {name: np.ascontiguousarray(params[name]) for name in parameter_shapes(config)}


def bare_names(path, tensors):
    """The tensors under their names without a prefix."""
    short = {}
    for name, array in tensors.items():
        if bare(name) in short:
            raise ValueError(f"{path}: repeated name {shown(bare(name))}, with and without a prefix")
        short[bare(name)] = array
    return short


def tensors_of(params, config):
    """The tensors of a model's file."""
    tensors = {}
    for theirs, names, _, transposed in layout(config):
        joined = np.concatenate([params[name] for name in names]) if len(names) > 1 else params[names[0]]
        tensors[theirs] = joined.T if transposed else joined
    return tensors


# ---------------------------------------------------------------- config.json


def check_fixed(path, fields, fixed):
    """Raise ValueError for a field with an unsupported value that changes what the model computes.

    Parameters
    ----------
    path : of the `config.json`, for the message
    fields : dict of its fields
    fixed : dict, name -> supported values
    """
    for name, values in fixed.items():
        if name in fields and fields[name] not in values:
            raise ValueError(f"{path}: {name} is {quoted(fields[name])}, expected {' or '.join(map(repr, values))}")
    layers = fields.get("layer_types") or ()
    if not isinstance(layers, (list, tuple)) or any(layer != "full_attention" for layer in layers):
        raise ValueError(f"{path}: layer_types is {quoted(layers)}, expected 'full_attention' in every layer")


def our_config(kind, path, fields, names, tensors, used, **more):
    """Our configuration from the fields of a `config.json`.

    Parameters
    ----------
    kind : ModelConfig or LlamaConfig
    path : of the `config.json`, for messages
    fields : dict of its fields
    names : dict, their name of a field -> ours; the first five are sizes, and required
    tensors : dict, name -> array; a classifier has "score.weight"
    used : names of other fields that have been read; all remaining ones are written back, with a warning if unknown
    more : more fields of our configuration
    """
    head = tensors.get("score.weight")
    if head is not None and head.ndim != 2:
        raise ValueError(f"{path}: score.weight has shape {head.shape}, expected (n_classes, d_model)")
    if head is not None and len(head) == 1:
        raise ValueError(f"{path}: the model has one class, as for regression; expected at least two classes")
    for name in list(names)[:5]:
        if name not in fields:
            raise ValueError(f"{path}: {name} is missing")
    values = {ours: fields[name] for name, ours in names.items() if name in fields}
    check_depth(path, next(name for name in names if names[name] == "n_layers"), values["n_layers"], tensors)
    extra = {n: v for n, v in fields.items() if n not in {*names, *used, *WRITTEN, "model_type"}}
    warn_of_unknown(path, [name for name in extra if name not in KNOWN])
    extra["model_type"] = fields["model_type"]  # `load_tokenizer` and `special_ids` depend on it
    try:
        return kind(**{**values, **more}, n_classes=0 if head is None else len(head), extra=extra)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def default_labels(n_classes):
    """transformers' default names of classes."""
    return [f"LABEL_{k}" for k in range(n_classes)]


def label_list(path, fields, config):
    """A classifier's labels in the order of its classes."""
    if not config.n_classes:
        return None
    problem = fields.get("problem_type")
    if problem not in (None, "single_label_classification"):
        expected = "expected 'single_label_classification', one label for each text"
        raise ValueError(f"{path}: problem_type is {quoted(problem)}, {expected}")
    default = {str(k): label for k, label in enumerate(default_labels(config.n_classes))}
    named = fields.get("id2label") or default
    fits = isinstance(named, dict) and set(named) == set(default)
    if not fits or not all(isinstance(label, str) for label in named.values()):
        raise ValueError(f"{path}: id2label is {quoted(named)}, expected a text for each of {config.n_classes} classes")
    labels = [named[str(k)] for k in range(config.n_classes)]
    ids = fields.get("label2id") or {label: k for k, label in enumerate(labels)}
    if len(set(labels)) < len(labels):
        raise ValueError(f"{path}: id2label is {quoted(named)}, expected a different name for each class")
    if ids != {label: k for k, label in enumerate(labels)}:
        raise ValueError(f"{path}: label2id is {quoted(ids)}, which contradicts id2label, {quoted(named)}")
    return labels


def special_ids(config, tokenizer, files):
    """The ids of a model's special tokens, found as transformers' `generate` finds them.

    Returns
    -------
    dict with those of bos_token_id, eos_token_id (an id or a list of ids that end a text) and pad_token_id that exist
    """
    if GENERATION in files:
        fields = json_object(GENERATION, files[GENERATION])
    elif "model_type" in config.extra:
        fields = config.extra
    else:  # one of our models, without the file
        end, pad = (tokenizer and tokenizer.token_to_id(text) for text in (END_OF_TEXT, PAD))
        fields = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: fields[name] for name in names if fields.get(name) is not None}
