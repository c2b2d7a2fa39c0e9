"""Read and write the folder that `finetune` saves and other commands read.

`task.json` records how the model was trained, and on which base. The folder also contains either an adapter
(`adapter.safetensors`, `adapter.json`) or a full model (`model.safetensors`, `config.json`, `tokenizer.json` and
related files). A folder with a full model but no `task.json` can also be read.
"""

import hashlib
import json
import os
import warnings
from functools import partial
from pathlib import Path

from ..checked import quoted, shown, whole_number
from ..data import new_files
from ..model import add_head
from .atomic import of_one_version
from .checkpoint import (
    cast,
    check_is_model,
    config_fields,
    contents,
    load_adapter,
    read_object,
    save_adapter,
    save_model,
)
from .gguf_adapter import load_gguf_adapter
from .hugging_face import default_labels
from .model import is_included, is_packaged, model_place, model_sha256, read_model, weights_file
from .packaged import PACKAGED, packaged_model, packaged_name
from .paths import PRETRAINED
from .tensors import file_sha256, tensor_bytes

READING = "max_tokens", "overlap", "question"  # fields of task.json and of LoadedModel
DIGESTS = {"adapter_sha256": "adapter.safetensors", "adapter_config_sha256": "adapter.json"}  # fields of task.json
SHIPPED = PRETRAINED / "adapters"  # contains one folder for each included adapter


def save_task(folder, task, base, about, dtype=None, beside=None):
    """Write a task to a folder, replacing any existing one.

    Parameters
    ----------
    folder : folder to write; created if needed
    task : LoadedModel; if it has an adapter, only the adapter is written
    base : folder or GGUF file of the adapter's base
    about : dict of JSON values to store in `task.json`
    dtype : dtype of the adapter's file; "float16" halves its size; None: the arrays' own dtype
    beside : dict of additional files to write, see `write_pair`
    """
    if str(folder) in (*PACKAGED, "pretrained", *shipped_adapters()):
        here = "in the current folder, this name now refers to the new folder, not to the included model or adapter"
        warnings.warn(f"{folder}: {here}", stacklevel=2)
    more = {name: getattr(task, name) for name in READING}
    about = {"labels": task.labels, **about} | {n: v for n, v in more.items() if v is not None and n not in about}
    if task.adapter is not None:
        about = {"base": base_name(base, folder), "base_sha256": model_sha256(base), **about}
        weights = cast(folder, task.adapter.weights, dtype)
        digests = hashlib.sha256(tensor_bytes(weights)).hexdigest(), fields_sha256(config_fields(task.adapter.config))
        about = {**dict(zip(DIGESTS, digests)), **about}
        params, _ = with_classes(task.params, task.config, task.labels, task.question)
        check = partial(load_adapter, params=params)
        beside = {**(beside or {}), "task.json": about}
        save_adapter(folder, task.adapter._replace(weights=weights), None, beside, check)
    else:
        files = task.files or (new_files(task.tokenizer) if task.tokenizer is not None else {})
        beside = {**files, **(beside or {}), "task.json": about}
        save_model(folder, task.params, task.config, beside=beside)


def fields_sha256(fields):
    """The SHA-256 of the fields of a JSON file, regardless of their order and of white space."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode("utf-8")).hexdigest()


def base_name(base, folder):
    """The base's name in `task.json`: a known name, or a path, relative to the folder if both are on the same drive."""
    base, folder = os.path.realpath(base), os.path.realpath(folder)
    if base == os.path.realpath(PRETRAINED):
        return "pretrained"
    if name := packaged_name(base):
        return name
    try:
        return Path(os.path.relpath(base, folder)).as_posix()
    except ValueError:  # Windows, on two drives
        return base


@of_one_version
def load_task(name, base=None, weights="dense"):
    """Read a task's model, with its adapter if it has one.

    Parameters
    ----------
    name : the task's folder, or the name of an included adapter
    base : the adapter's base, see `read_model`; None: the base named in `task.json`
    weights : see `read_model`

    Returns
    -------
    LoadedModel; if a classifier's base is a language model, the base gets a classification head of zeros, which the
    adapter's head then replaces

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or the adapter was trained on a different base.
    """
    if is_model_file(name):
        return read_model(name, weights=weights)
    folder, about = read_task(name)
    if "base" in about:
        return attach_adapter(folder, base or about["base"], weights=weights)
    if base is not None:
        raise ValueError(f"base: {folder} is a full model, which needs no base")
    if not about and not (folder / "config.json").exists() and not (folder / "model.gguf").exists():
        raise FileNotFoundError(f"{folder}: no task.json and no config.json ({contents(folder)}), expected a model")
    task = read_model(folder, weights=weights)
    labels = about["labels"] if about else task.labels or default_labels(task.config.n_classes) or None
    check_labels(folder, labels, task.config, about)
    return task._replace(labels=labels, **{name: about.get(name) for name in READING})


def is_model_file(name):
    """Whether a name is the path of a GGUF file or the name of a packaged model."""
    return is_packaged(name) or weights_file(name) == Path(name)


@of_one_version
def attach_adapter(name, base, model=None, weights="dense"):
    """Attach an adapter to a model, which must be exactly the base on which the adapter was trained.

    Parameters
    ----------
    name : the adapter's folder, a GGUF file, or the name of an included adapter
    base : the model, see `read_model`
    model : LoadedModel, the base if it is already in memory (the result shares its weights); None: the base is read
    weights : see `read_model`

    Raises
    ------
    FileNotFoundError, ValueError
        As in `load_task`; also if the folder contains a full model.
    """
    if Path(name).suffix == ".gguf":
        model = read_model(base, weights=weights) if model is None else model
        return model._replace(adapter=load_gguf_adapter(name, model.params, model.config))
    folder, about = read_task(name)
    if "base" not in about:
        expected = "expected an adapter that finetune, mix or import wrote"
        raise ValueError(f"{folder}: got {'a full model' if about else 'no task.json'}, {expected}")
    remedy = "give its base with --base (for generate: --model)"
    try:
        model, sha256 = read_base(base, model, weights)
    except OSError as error:
        fault = f"cannot read its base: {error}"
        raise ValueError(f"{folder / 'task.json'}: {fault}; if it has moved, {remedy}") from None
    if sha256 != about["base_sha256"]:
        raise ValueError(f"{folder}: trained on a base other than the model in {shown(str(base))}; {remedy}")
    labels, question = about["labels"], about.get("question")
    params, config = with_classes(model.params, model.config, labels, question)
    check_labels(folder, labels, config, about)
    adapter = load_adapter(folder, params)
    digests = file_sha256(folder / "adapter.safetensors"), fields_sha256(read_object(folder / "adapter.json"))
    for (name, file), digest in zip(DIGESTS.items(), digests):
        if about.get(name, digest) != digest:  # older versions wrote no digest, or only the first
            remedy = "copy the entire folder again, or repeat the training"
            raise ValueError(f"{folder}: {file} does not match task.json; {remedy}")
    more = {name: about.get(name) for name in READING}
    return model._replace(params=params, config=config, adapter=adapter, labels=labels, **more)


@of_one_version
def read_base(base, model=None, weights="dense"):
    """Return an adapter's base and the SHA-256 of the base's file; the base is read only if `model` is None."""
    model = read_model(base, weights=weights) if model is None else model  # before hashing the file, which may be large
    return model, model_sha256(model_place(base))


def with_classes(params, config, labels, question=None):
    """Turn a model into a classifier for these labels. Unless its head already fits, it gets a new head of zeros.

    The model remains a language model if there are no labels, or if it answers a question with one of the labels.
    """
    n_classes = len(labels or ()) if question is None else 0
    if n_classes in (0, config.n_classes):
        return params, config
    return add_head(params, config, n_classes)


def check_labels(folder, labels, config, about):
    """Raise ValueError unless each class has a label, or the labels are the answers to a question."""
    if about.get("question") is not None and labels is not None and not config.n_classes:
        return
    if config.n_classes != len(labels or ()):
        raise ValueError(f"{folder / 'task.json'}: {len(labels or ())} labels, expected n_classes = {config.n_classes}")


def task_base(name):
    """The folder or GGUF file of an adapter's base; for a full model, its own folder."""
    if Path(name).suffix == ".gguf":
        raise ValueError(f"{name}: a GGUF adapter does not name its base; give it with --base (for generate: --model)")
    folder, about = read_task(name)
    return about.get("base", folder)


def task_places(name, base=None):
    """The paths of a task and its base, which must not be overwritten."""
    return (model_place(name),) if is_model_file(name) else (task_folder(name), base or task_base(name))


def task_folder(name):
    """The folder of a task, given its path or the name of an included adapter."""
    if is_included(name, shipped_adapters()):
        return SHIPPED / str(name)
    folder = model_place(name)
    if folder.is_file():
        check_is_model(folder)
    if not folder.is_dir():
        shipped = ", ".join(shipped_adapters())
        raise FileNotFoundError(f"{folder}: no such folder; the included adapters are {shipped}")
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder}: this is a PEFT adapter; import it with: python -m lora_np import --from peft")
    return folder


def shipped_adapters():
    """Names of the adapters included in the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/task.json"))


def read_task(name):
    """Return a task's folder and the fields of its `task.json` ({} if it is missing), with the base as a path."""
    folder = task_folder(name)
    path = folder / "task.json"
    if not path.exists():
        return folder, {}
    about = read_object(path)
    is_adapter = "base" in about or "base_sha256" in about or about.get("method") in ("lora", "head")
    texts = ("base", "base_sha256") if is_adapter else ()
    missing = [name for name in ("labels", *texts) if name not in about]
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}; expected a file that finetune wrote")
    labels = about["labels"]
    are_texts = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if labels is not None and not (are_texts and 2 <= len(labels) == len(set(labels))):
        raise ValueError(f"{path}: labels is {quoted(labels)}, expected at least two different strings, or null")
    if "max_tokens" in about:
        whole_number(f"{path}: max_tokens", about["max_tokens"])
    if about.get("overlap") is not None:
        most = about.get("max_tokens", 0) // 2
        whole_number(f"{path}: overlap", about["overlap"], least=0, most=most, why="half of max_tokens")
    if not isinstance(about.get("question"), str | None):
        raise ValueError(f"{path}: question is {quoted(about['question'])}, expected a string or null")
    for name in texts:
        if not isinstance(about[name], str) or not about[name].isprintable() or not about[name]:
            raise ValueError(f"{path}: {name} is {quoted(about[name])}, expected a string")
    if is_adapter:
        if about["base"] in PACKAGED:
            about["base"] = packaged_model(about["base"])
        elif about["base"] == "pretrained":
            about["base"] = PRETRAINED
        else:
            about["base"] = Path(os.path.normpath(Path(os.path.realpath(folder)) / about["base"]))
        if os.path.realpath(about["base"]) == os.path.realpath(folder):
            raise ValueError(f"{path} names its own folder as the base, expected the folder of a different model")
    return folder, about
