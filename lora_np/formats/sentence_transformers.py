"""The additional files of a BERT model: sentence-transformers' pooling settings, and a classifier's head.

`modules.json` lists a model's steps, each in its own folder: Transformer, then Pooling, and possibly a third, which is
Normalize (for an encoder whose vectors have length 1) or Dense (for a classifier). Without `modules.json`, the model is
a plain transformers model, whose pooler reads [CLS].
"""

import re

import numpy as np

from ..checked import quoted, whole_number
from .checkpoint import read_object
from .foreign_keys import check_keys, foreign_keys
from .names import bare
from .tensors import json_bytes, read_json, read_tensors, tensor_bytes

MODULES, LIMIT = "modules.json", "sentence_bert_config.json"
STEPS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling", "Dense"])
IDENTITY = "torch.nn.modules.linear.Identity"
MODES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}


def read_beside(folder, fields, tensors):
    """Complete the fields and tensors of a BERT model from the other files in its folder.

    Parameters
    ----------
    folder : Path
    fields : dict, from its `config.json`
    tensors : dict, from its tensor file

    Returns
    -------
    fields : dict with the additional fields "pooling" and, with `modules.json`, "sentence_transformers"
    tensors : dict, including a classifier's head

    Raises
    ------
    ValueError
        If the model has steps, a pooling or a Dense module that are not supported.
    """
    path = folder / MODULES
    if not path.exists():
        has_pooler = any(bare(name).startswith("pooler.") for name in tensors)
        return {**fields, "pooling": "cls" if has_pooler else "mean"}, tensors
    steps = read_json(path)
    is_list = isinstance(steps, list) and all(isinstance(step, dict) for step in steps)
    kinds = [re.sub(r"^sentence_transformers\..*\.", "", str(step.get("type"))) for step in steps] if is_list else []
    if kinds not in STEPS:
        expected = " or ".join(", ".join(each) for each in STEPS)
        raise ValueError(f"{path}: its steps are {quoted(kinds or steps)}, expected {expected}")
    folders = [step.get("path") for step in steps]
    if not all(isinstance(name, str) and re.fullmatch(r"[\w-]*", name) for name in folders) or folders[0]:
        raise ValueError(f"{path}: its folders are {quoted(folders)}, expected '' for the first, then subfolder names")
    check_pooling(folder / folders[1] / "config.json", fields)
    limit = checked_object(folder / LIMIT).get("max_seq_length") if (folder / LIMIT).exists() else None
    if limit is not None:
        whole_number(f"{folder / LIMIT}: max_seq_length", limit)
    if kinds[-1] == "Dense":
        tensors = {**tensors, **dense_head(folder / folders[2], fields)}
    about = {"max_seq_length": limit, "normalize": kinds[-1] == "Normalize"}
    return {**fields, "pooling": "mean", "sentence_transformers": about}, tensors


def checked_object(path, section=LIMIT):
    """Read a JSON object and check that its values are supported; `section` is its section in `foreign_keys`."""
    values = read_object(path)
    check_keys(path, values, foreign_keys()[section])
    return values


def check_pooling(path, fields):
    """Raise ValueError unless a Pooling module takes the mean of all tokens."""
    pooling = read_object(path)
    modes = [key.removeprefix("pooling_mode_") for key in pooling if key.startswith("pooling_mode_") and pooling[key]]
    mode = pooling.get("pooling_mode", [MODES.get(key, key) for key in modes])
    if mode not in ("mean", ["mean"], []):
        raise ValueError(f"{path}: the pooling is {quoted(mode)}, expected 'mean'")
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    if width != fields.get("hidden_size"):
        raise ValueError(f"{path}: the dimension is {quoted(width)}, expected {quoted(fields.get('hidden_size'))}")


def dense_head(folder, fields):
    """The head in a Dense module; `config.json` must have a label for each of its outputs."""
    dense, names = checked_object(folder / "config.json", "2_Dense/config.json"), fields.get("id2label")
    if (activation := dense.get("activation_function")) != IDENTITY:
        raise ValueError(f"{folder}: its activation is {quoted(activation)}, expected {IDENTITY!r}")
    path = folder / "model.safetensors"
    arrays, _ = read_tensors(path)
    weight = arrays.get("linear.weight")
    is_head = isinstance(names, dict) and arrays.keys() <= {"linear.weight", "linear.bias"}
    if weight is None or not is_head or weight.shape != (len(names), fields.get("hidden_size")):
        raise ValueError(f"{path}: not a classifier's head: expected one output for each label in config.json")
    return {"classifier.weight": weight, "classifier.bias": arrays.get("linear.bias", np.zeros(len(names)))}


def write_beside(config, tensors):
    """Return the tensors for a BERT model's tensor file, and a dict of its additional files, name -> bytes."""
    if config.pooling == "cls":
        return tensors, {}
    head = {f"linear.{leaf}": tensors[f"classifier.{leaf}"] for leaf in ("weight", "bias") if config.n_classes}
    tensors = {name: array for name, array in tensors.items() if not name.startswith("classifier.")}
    about = config.extra.get("sentence_transformers")
    about = about if isinstance(about, dict) else {}
    kinds = STEPS[2] if config.n_classes else STEPS[bool(about.get("normalize"))]
    steps = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" * bool(i), "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    modes = {f"pooling_mode_{key}": name == "mean" for key, name in MODES.items()}
    limit = about.get("max_seq_length")
    limit = min(limit, config.n_positions) if isinstance(limit, int) and limit > 0 else config.n_positions
    files = {
        MODULES: steps,
        LIMIT: {"max_seq_length": limit, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": config.d_model, **modes},
    }
    if head:
        sizes = {"in_features": config.d_model, "out_features": config.n_classes, "bias": True}
        files["2_Dense/config.json"] = {**sizes, "activation_function": IDENTITY}
    files = {name: json_bytes(values) for name, values in files.items()}
    return tensors, files | ({"2_Dense/model.safetensors": tensor_bytes(head, {"format": "pt"})} if head else {})
