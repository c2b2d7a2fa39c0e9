"""Read and write Hugging Face model directories: files, tensors, labels, special tokens."""

import os
import re
from pathlib import Path

import numpy as np

from ..checked import one_of, quoted, shown
from ..data import END_OF_TEXT, PAD, new_files
from ..data.texts import existing_file
from ..data.tokenizer_files import GENERATION, SETTINGS, TOKENIZER, json_object, new_settings
from ..model import architecture, parameter_shapes
from .atomic import of_one_version
from .checkpoint import contents, read_as, read_object, reader, write_pair
from .config_fields import FILE_FORMATS, config_from_fields, file_format
from .loaded import LoadedModel
from .names import bare, head_name, layout, renamed, stored_tensors
from .tensors import read_tensors


@of_one_version
def load_hf(path, dtype=np.float32):
    """Read a language model, a sequence classifier or a BERT encoder from a Hugging Face directory.

    Parameters
    ----------
    path : a directory with `config.json` and either `model.safetensors` or the index `model.safetensors.index.json` and
        the files that it lists; or the path of the tensor file or the index
    dtype : np.float32 or np.float64, of the returned arrays; those in the file may also be float16 or bfloat16

    Returns
    -------
    LoadedModel, without a tokenizer, and with labels if it is a classifier

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, a tensor is missing, unexpected or of the wrong shape, an index lists a file
        outside its directory, or the model uses an unsupported feature.
    """
    file = tensor_file(Path(path))
    tensors = read_sharded(file) if file.suffix == ".json" else read_tensors(file)[0]
    fields_path = file.parent / "config.json"
    fields = read_object(fields_path)
    name = fields.get("model_type", "gpt2")  # old GPT-2 files have none
    of_files = FILE_FORMATS[one_of(f"{fields_path}: model_type", name, FILE_FORMATS)]
    fields, tensors = of_files.beside[0](file.parent, fields, tensors)
    config = config_from_fields(name, fields_path, fields, tensors)
    own = {bare(theirs) for theirs, *_ in layout(config)}
    tensors = {n: array for n, array in tensors.items() if bare(n) in own or not re.fullmatch(of_files.buffers, n)}
    params, labels = params_of(file, tensors, config, dtype), label_list(fields_path, fields, config)
    return LoadedModel(params, config, None, None, labels)


def save_hf(folder, params, config, tokenizer=None, labels=None, files=None):
    """Write a language model, a sequence classifier or a BERT encoder as a Hugging Face directory.

    Parameters
    ----------
    folder : folder to write; created if needed
    params : dict of the weights, written in their own dtype
    config : the model's configuration
    tokenizer : the tokenizer from `load_tokenizer`, or None
    labels : list of str, a classifier's labels, or None
    files : dict of the tokenizer's files, name -> bytes, as in `LoadedModel`; None: new files for `tokenizer`
    """
    if labels is not None and len(labels) != config.n_classes:
        raise ValueError(f"labels: got {len(labels)}, expected n_classes = {config.n_classes}")
    of_files = file_format(config)
    files = files or (new_files(tokenizer) if tokenizer is not None else {})
    if TOKENIZER in files and "model_type" not in config.extra:  # else transformers would load a GPT2Tokenizer
        files = {SETTINGS: new_settings(tokenizer), **files}
    defaults, fields = of_files.fields_of(config)
    special = special_ids(config, tokenizer, files)
    tensors, more = of_files.beside[1](config, dict(stored_tensors(params, config, "hf")))
    is_classifier = any(name.startswith(head_name(architecture(config))) for name in tensors)
    fields = defaults | special | config.extra | {"architectures": [of_files.hf_classes[is_classifier]]} | fields
    if config.n_classes:
        labels = labels or default_labels(config.n_classes)
        fields["id2label"] = {str(k): label for k, label in enumerate(labels)}
        fields["label2id"] = {label: k for k, label in enumerate(labels)}
    names, files = ("model.safetensors", "config.json"), {**files, **more}
    write_pair(folder, names, tensors, fields, None, files, {"format": "pt"}, check=reader(load_hf, params))


def tensor_file(path, names=("model.safetensors", "model.safetensors.index.json")):
    """The path of a tensor file or an index: `path` or, if it is a folder, the first of `names` that exists in it."""
    if not path.is_dir():
        if not existing_file(path).name.endswith((".safetensors", ".index.json")):
            raise ValueError(f"{path}: expected a file ending in .safetensors or .index.json; pickle is never read")
        return path
    files = [file for name in names for file in sorted(path.glob(name)) if file.is_file()]
    if not files:
        raise FileNotFoundError(f"{path}: no {' and no '.join(names)} ({contents(path)}); pickle files are never read")
    return files[0]


def read_sharded(index):
    """Read the tensors from all files that an index lists: a dict, name -> array."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{index}: weight_map is {quoted(places)}, expected an object that maps tensors to files")
    folder, tensors = os.path.realpath(index.parent), {}
    for file in dict.fromkeys(places.values()):
        shard = index.parent / file
        is_plain_name = file.isprintable() and "\\" not in file and Path(file).name == file
        if not is_plain_name or os.path.dirname(os.path.realpath(shard)) != folder:
            raise ValueError(f"{index}: lists the file {quoted(file)}, which is not in its directory")
        arrays, _ = read_tensors(shard)
        for name in arrays:
            if places.get(name) != file:
                place = shown(str(places.get(name)))
                raise ValueError(f"{shard}: unexpected tensor {shown(name)}; {index.name} lists it in {place}")
        tensors |= arrays
    for name in places:
        if name not in tensors:
            raise ValueError(f"{index}: {shown(name)} is not in {shown(places[name])}")
    return tensors


def params_of(file, tensors, config, dtype):
    """Convert a file's tensors to our parameters, for a model with or without a head. Errors name the file."""
    tensors, rows = renamed(file, tensors, bare, "a prefix"), [(bare(theirs), *row) for theirs, *row in layout(config)]
    table, is_tied = rows[0][0], not any(names == ["head.weight"] for _, names, *_ in rows)
    if is_tied and not np.array_equal(tensors.pop("lm_head.weight", tensors.get(table)), tensors.get(table)):
        raise ValueError(f"{file}: lm_head.weight differs from {table}; expected a head tied to the embedding")
    tensors = read_as(file, tensors, {theirs: shape for theirs, _, shape, _ in rows}, dtype)
    params = {}
    for theirs, names, _, transposed in rows:
        joined = tensors[theirs].T if transposed else tensors[theirs]  # (out, in) or (out,)
        params |= zip(names, np.split(joined, len(names)))
    return {name: np.ascontiguousarray(params[name]) for name in parameter_shapes(config)}


def default_labels(n_classes):
    """transformers' default class names."""
    return [f"LABEL_{k}" for k in range(n_classes)]


def label_list(path, fields, config):
    """A classifier's labels in the order of its classes."""
    if not config.n_classes:
        return None
    problem = fields.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise ValueError(f"{path}: problem_type is {quoted(problem)}, expected 'single_label_classification'")
    default = {str(k): label for k, label in enumerate(default_labels(config.n_classes))}
    named = fields.get("id2label") or default
    labels = list(map(named.get, default)) if isinstance(named, dict) and set(named) == set(default) else []
    if not labels or not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError(f"{path}: id2label is {quoted(named)}, expected {config.n_classes} distinct class names")
    ids = {label: k for k, label in enumerate(labels)}
    if (got := fields.get("label2id") or ids) != ids:
        raise ValueError(f"{path}: label2id is {quoted(got)}, which contradicts id2label, {quoted(named)}")
    return labels


def special_ids(config, tokenizer, files):
    """The ids of a model's special tokens, chosen as in transformers' `generate`.

    Returns
    -------
    dict of bos_token_id, eos_token_id (an id, or a list of ids, each of which ends a text) and pad_token_id, if present
    """
    fields = generation_fields(config, tokenizer, files)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: fields[name] for name in names if fields.get(name) is not None}


def generation_fields(config, tokenizer, files):
    """The fields in which transformers' `generate` looks up a model's special tokens."""
    if GENERATION in files:
        return json_object(GENERATION, files[GENERATION])
    if "model_type" in config.extra:
        return config.extra
    end, pad = (tokenizer and tokenizer.token_to_id(text) for text in (END_OF_TEXT, PAD))  # one of our models
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
