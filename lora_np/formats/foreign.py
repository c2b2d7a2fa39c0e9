"""Read and write Hugging Face's model directories, and read models from GGUF files."""

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..checked import quoted
from ..compress import BlockWeight
from ..data import new_files
from ..data.tokenizer_files import SETTINGS, TOKENIZER, new_settings
from ..model import architecture, parameter_shapes
from . import gpt2, llama
from .atomic import of_one_version
from .checkpoint import read_object, reader, write_pair
from .hugging_face import default_labels, label_list, params_of, read_hf_tensors, special_ids, tensors_of
from .names import gguf_rows, layer_names

FILE_FORMATS = {"gpt2": gpt2.FORMAT, "llama": llama.FORMAT}  # name of an architecture -> FileFormat


class HFModel(NamedTuple):
    """The contents of a model's directory, in our names and layout."""

    params: dict[str, np.ndarray]
    config: object  # the model's configuration
    labels: list[str] | None  # of a classifier


def file_format(config):
    """The FileFormat of a configuration's architecture; ValueError if there is none."""
    name = architecture(config).name
    if name not in FILE_FORMATS:
        raise ValueError(f"config: got the architecture {name!r}, expected {' or '.join(FILE_FORMATS)}")
    return FILE_FORMATS[name]


@of_one_version
def load_hf(path, dtype=np.float32):
    """Read a Hugging Face language model or sequence classifier, a GPT-2 or a Llama.

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
        If a file is missing or damaged, a tensor is missing, unexpected or of the wrong shape, an index names a file
        outside its directory, or the model computes something that is not supported.
    """
    file, tensors = read_hf_tensors(path)
    fields_path = file.parent / "config.json"
    fields = read_object(fields_path)
    name = fields.get("model_type", "gpt2")  # GPT-2's old files have none
    if name not in list(FILE_FORMATS):
        raise ValueError(f"{fields_path}: model_type is {quoted(name)}, expected {' or '.join(FILE_FORMATS)}")
    of_files = FILE_FORMATS[name]
    tensors = {name: array for name, array in tensors.items() if not re.fullmatch(of_files.buffers, name)}
    config = of_files.config_from_fields(fields_path, fields, tensors)
    return HFModel(params_of(file, tensors, config, dtype), config, label_list(fields_path, fields, config))


def save_hf(folder, params, config, tokenizer=None, labels=None, files=None):
    """Write a model for `transformers`, as a language model or sequence classifier.

    Parameters
    ----------
    folder : folder to write; created if needed
    params : dict of the weights, written in their own dtype
    config : the model's configuration
    tokenizer : the tokenizer of `load_tokenizer`, or None
    labels : list of str, a classifier's, or None
    files : dict of the tokenizer's files, name -> bytes, as in `Task`; None: those of a new tokenizer
    """
    if labels is not None and len(labels) != config.n_classes:
        raise ValueError(f"labels: got {len(labels)}, expected n_classes = {config.n_classes}")
    of_files = file_format(config)
    files = files or (new_files(tokenizer) if tokenizer is not None else {})
    if TOKENIZER in files and "model_type" not in config.extra:  # otherwise transformers would read it as GPT-2's
        files = {SETTINGS: new_settings(tokenizer), **files}
    defaults, fields = of_files.fields_of(config)
    special = special_ids(config, tokenizer, files)
    fields = defaults | special | config.extra | {"architectures": [of_files.hf_classes[config.n_classes > 0]]} | fields
    if config.n_classes:
        labels = labels or default_labels(config.n_classes)
        fields["id2label"] = {str(k): label for k, label in enumerate(labels)}
        fields["label2id"] = {label: k for k, label in enumerate(labels)}
    names, tensors = ("model.safetensors", "config.json"), tensors_of(params, config)
    write_pair(folder, names, tensors, fields, None, files, {"format": "pt"}, check=reader(load_hf, params))


def model_from_gguf(path, fields, tensors, dtype=np.float32):
    """The weights and configuration of a model in a GGUF file.

    Parameters
    ----------
    path : of the file, for error messages
    fields, tensors : from `read_gguf`; BlockWeights stay BlockWeights
    dtype : np.float32 or np.float64, of arrays and of dequantised blocks

    Returns
    -------
    params : dict, in execution order
    config : the model's configuration

    Raises
    ------
    ValueError
        If the architecture or a setting is not supported, or a field or tensor is missing or of the wrong shape.
    """
    if fields.get("general.type") == "adapter":
        raise ValueError(f"{path}: got an adapter, expected a model; doctor says what it does on its base")
    known = {name: of_files for name, of_files in FILE_FORMATS.items() if of_files.config_from_gguf}
    name = fields.get("general.architecture")
    if name not in list(known):
        raise ValueError(f"{path}: general.architecture is {quoted(name)}, expected {' or '.join(map(repr, known))}")
    config = known[name].config_from_gguf(path, fields, tensors)
    shapes, params = parameter_shapes(config), {}
    names = {ours: theirs for theirs, (ours,) in layer_names(config, "gguf").items()}
    expected = {f"{names[layer]}.{leaf}": (layer, leaf) for layer, leaf in (n.rsplit(".", 1) for n in shapes)}
    unexpected = [name for name in tensors if name not in expected]
    if unexpected:
        raise ValueError(f"{path}: unexpected tensor {quoted(unexpected[0])}")
    for theirs, (layer, leaf) in expected.items():
        if theirs not in tensors:
            raise ValueError(f"{path}: {theirs} is missing")
        weight, shape = tensors[theirs], shapes[f"{layer}.{leaf}"]
        if weight.shape != shape:
            raise ValueError(f"{path}: {theirs} has shape {weight.shape}, expected {shape}")
        weight = gguf_rows(config, layer, weight, back=True)
        is_block = isinstance(weight, BlockWeight)
        params[f"{layer}.{leaf}"] = (
            replace(weight, dtype=np.dtype(dtype)) if is_block else weight.astype(dtype, copy=False)
        )
    return params, config
