"""Read and write Hugging Face's GPT-2: `config.json` and `model.safetensors`.

The model is the same as ours; names and layout differ. GPT-2 stores a linear layer's weight as (in, out), and q, k
and v as one layer `c_attn` of (C, 3C), q | k | v along the last axis. A file of the bare model has names such as
`h.0.attn.c_attn.weight`; a language model or classifier has the prefix `transformer.`.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checked import quoted, shown
from ..data import END_OF_TEXT, PAD, new_files
from ..data.texts import kind_of
from ..data.tokenizer_files import GENERATION, SETTINGS, TOKENIZER, json_object, new_settings
from ..model import ModelConfig, parameter_shapes
from .atomic import of_one_version
from .checkpoint import check_depth, contents, read_as, read_object, reader, warn_of_unknown, write_pair
from .tensors import read_tensors

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
FIXED = {
    "model_type": ("gpt2",),
    "activation_function": TANH_GELU,
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "per_layer_config": (None, {}),
    # These limit what transformers' cache remembers, so they change what it generates.
    "sliding_window": (None,),
    "attention_chunk_size": (None,),
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
# Fields that `save_gpt2` computes from the model.
WRITTEN = """architectures id2label label2id num_labels _num_labels tie_word_embeddings dtype torch_dtype
transformers_version _name_or_path n_ctx""".split()
# Other fields of transformers that have no effect here. They are saved again, without a warning.
KNOWN = """attn_pdrop bos_token_id chunk_size_feed_forward embd_pdrop eos_token_id gradient_checkpointing
initializer_range is_decoder layer_types output_attentions output_hidden_states output_past pad_token_id
problem_type reorder_and_upcast_attn resid_pdrop return_dict summary_activation summary_first_dropout
summary_proj_to_labels summary_type summary_use_proj task_specific_params tokenizer_class use_cache""".split()


class GPT2(NamedTuple):
    """The contents of a GPT-2 directory, in our names and layout."""

    params: dict[str, np.ndarray]
    config: ModelConfig
    labels: list[str] | None  # of a classifier


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
    GPT2

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, a tensor is missing, unexpected or of another shape, an index
        names a file outside its directory, or the model computes something that ours does not.
    """
    file = tensor_file(Path(path))
    tensors = bare_names(file, read_sharded(file) if file.suffix == ".json" else read_tensors(file)[0])
    fields_path = file.parent / "config.json"
    fields = read_object(fields_path)
    head = tensors.get("score.weight")
    if head is not None and head.ndim != 2:
        raise ValueError(f"{file}: score.weight has shape {head.shape}, expected (n_classes, n_embd)")
    config = config_from_fields(fields_path, fields, 0 if head is None else len(head), tensors)
    if head is None:
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
    return GPT2(params, config, label_list(fields_path, fields, config))


def tensor_file(path, names=("model.safetensors", "model.safetensors.index.json")):
    """The file of tensors, or the index of several, that a path means; in a folder the first of these names."""
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


def config_from_fields(path, fields, n_classes, tensors):
    """Our configuration from the fields of a GPT-2 `config.json`."""
    for name, values in FIXED.items():
        if name in fields and fields[name] not in values:
            raise ValueError(f"{path}: {name} is {quoted(fields[name])}, expected {' or '.join(map(repr, values))}")
    layers = fields.get("layer_types") or ()
    if not isinstance(layers, (list, tuple)) or any(layer != "full_attention" for layer in layers):
        raise ValueError(f"{path}: layer_types is {quoted(layers)}, expected 'full_attention' in every layer")
    for alias, name in ALIASES.items():
        first, second = fields.get(alias), fields.get(name)
        if alias in fields and name in fields and first != second:
            raise ValueError(f"{path}: {alias} is {quoted(first)}, but {name} is {quoted(second)}; expected one size")
    fields = {ALIASES.get(name, name): value for name, value in fields.items()}
    for name in SIZES:
        if name not in fields:
            raise ValueError(f"{path}: {name} is missing")
    if n_classes == 1:
        raise ValueError(f"{path}: the model has one class, as for regression; expected at least two classes")
    optional = {"layer_norm_epsilon": "layer_norm_eps", "resid_pdrop": "dropout"}
    values = {ours: fields[name] for name, ours in {**SIZES, **optional}.items() if name in fields}
    check_depth(path, "n_layer", values["n_layers"], tensors)
    d_ff = fields.get("n_inner")
    if d_ff is None:
        d_ff = 4 * values["d_model"] if isinstance(values["d_model"], int) else values["d_model"]
    extra = {n: v for n, v in fields.items() if n not in {*SIZES, *optional, *FIXED, *WRITTEN, "n_inner"}}
    warn_of_unknown(path, [name for name in extra if name not in KNOWN])
    extra["model_type"] = "gpt2"  # by which `load_tokenizer` and `special_ids` know whose habits to follow
    try:
        return ModelConfig(**values, d_ff=d_ff, n_classes=n_classes, extra=extra)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def default_labels(n_classes):
    """The names that transformers gives to classes without labels."""
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
        raise ValueError(f"{path}: id2label is {quoted(named)}, expected another name for each class")
    if ids != {label: k for k, label in enumerate(labels)}:
        raise ValueError(f"{path}: label2id is {quoted(ids)}, which contradicts id2label, {quoted(named)}")
    return labels


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


def special_ids(config, tokenizer, files):
    """The ids of a model's special tokens, as transformers' `generate` finds them.

    Returns
    -------
    dict: bos_token_id, eos_token_id (which ends a text; or a list of them) and pad_token_id, as far as there are any
    """
    if GENERATION in files:
        fields = json_object(GENERATION, files[GENERATION])
    elif "model_type" in config.extra:
        fields = config.extra
    else:  # a model of ours that came without the file
        end, pad = (tokenizer and tokenizer.token_to_id(text) for text in (END_OF_TEXT, PAD))
        fields = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: fields[name] for name in names if fields.get(name) is not None}


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
