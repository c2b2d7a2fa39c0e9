"""A task's folder: what `finetune` saves and everything else uses.

`task.json` says what was trained on which base. Beside it lies an adapter alone (`adapter.safetensors`,
`adapter.json`) or a whole model (`model.safetensors`, `config.json`, `tokenizer.json`). A folder without `task.json`
that holds a whole model is a task as well: the model's own.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..adapters import HEAD, Adapter
from ..data import load_tokenizer
from ..model import ModelConfig
from .checkpoint import PRETRAINED, check_init, load_adapter, load_model, read_object, save_adapter, save_model
from .gpt2 import default_labels
from .tensors import write_json, write_text

SHIPPED = PRETRAINED / "adapters"  # folders of adapters that come with the package


class Task(NamedTuple):
    """A model that is ready to use."""

    params: dict  # of the base; an adapter is not merged
    config: ModelConfig
    adapter: Adapter | None
    tokenizer: object
    labels: list[str] | None  # of a classifier, in the order of its classes; None: a language model


def save_task(folder, task, base, about, dtype=None):
    """Write a task; the file without which it cannot be read comes last.

    Parameters
    ----------
    folder : where to; made if it is not there
    task : Task; with an adapter, the adapter alone is written
    base : folder of the base that an adapter belongs to
    about : dict of plain values, what else is to be remembered
    dtype : of an adapter's file; "float16" halves it; None: the arrays' own
    """
    folder = Path(folder)
    if task.adapter is not None:
        check_init(task.adapter.config)
    (folder / "task.json").unlink(missing_ok=True)
    if task.adapter is None:
        (folder / "config.json").unlink(missing_ok=True)
        if task.tokenizer is not None:
            write_text(folder / "tokenizer.json", task.tokenizer.to_str(pretty=True))
        write_json(folder / "task.json", {"labels": task.labels, **about})
        save_model(folder, task.params, task.config)
    else:
        save_adapter(folder, task.adapter, dtype)
        of_base = {"base": base_name(base), "base_sha256": model_sha256(base)}
        write_json(folder / "task.json", {**of_base, "labels": task.labels, **about})


def load_task(folder, base=None):
    """Read a task.

    Parameters
    ----------
    folder : the task's folder, or the name of an adapter that comes with the package
    base : folder of the base to put an adapter on; None: the one that it was trained on

    Returns
    -------
    Task; a classifier whose base is a language model has a head of zeros, whose place the adapter's takes

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or the base is not the one that the adapter was trained on.
    """
    folder = task_folder(folder)
    about = read_task(folder / "task.json") if (folder / "task.json").is_file() else None
    if about is None and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: holds no task.json and no config.json, expected a task or a model")
    if about is None or "base" not in about:
        params, config = load_model(folder)
        labels = about["labels"] if about is not None else default_labels(config.n_classes) or None
        check_labels(folder, labels, config)
        return Task(params, config, None, tokenizer_of(folder, config), labels)
    base = Path(base or task_base(folder))
    check_base(folder, base)
    params, config = load_model(base)
    return put_on(folder, Task(params, config, None, tokenizer_of(base, config), None))


def check_base(folder, base):
    """Raise ValueError unless a folder holds the model that an adapter was trained on, to the last bit.

    Parameters
    ----------
    folder : of the adapter's task, or the name of an adapter that comes with the package
    base : folder of the model
    """
    folder = task_folder(folder)
    about = read_task(folder / "task.json") if (folder / "task.json").is_file() else {}
    if "base" not in about:
        raise ValueError(f"{folder}: holds a whole model, expected an adapter")
    try:
        sha256 = model_sha256(base)
    except (OSError, RuntimeError) as error:  # a link that leads to itself is the second for some Pythons
        raise ValueError(f"{folder / 'task.json'}: its base cannot be read: {error}") from None
    if sha256 != about["base_sha256"]:
        raise ValueError(f"{folder}: trained on another base than {base} holds now; its adapter does not fit")


def put_on(folder, model):
    """The task of an adapter on a model that is there already; the weights are shared with it, not copied.

    Parameters
    ----------
    folder : of the adapter's task, or the name of an adapter that comes with the package
    model : Task of the base; see `check_base`
    """
    folder = task_folder(folder)
    labels = read_task(folder / "task.json")["labels"]
    params, config = with_classes(model.params, model.config, len(labels or ()))
    check_labels(folder, labels, config)
    return Task(params, config, load_adapter(folder, params), model.tokenizer, labels)


def with_classes(params, config, n_classes):
    """The model as a classifier of so many classes, with a head of zeros unless it has one of them already."""
    if n_classes in (0, config.n_classes):
        return params, config
    head = np.zeros((n_classes, config.d_model), dtype=params["tok_emb.weight"].dtype)
    return {**params, HEAD: head}, replace(config, n_classes=n_classes)


def check_labels(folder, labels, config):
    """Raise ValueError unless there is a label for each class."""
    if config.n_classes != len(labels or ()):
        raise ValueError(f"{folder / 'task.json'}: {len(labels or ())} labels, expected n_classes = {config.n_classes}")


def task_base(name):
    """The folder of the base that a task's adapter belongs to; of a whole model, its own."""
    folder = task_folder(name)
    about = read_task(folder / "task.json") if (folder / "task.json").is_file() else {}
    if "base" not in about:
        return folder
    base = PRETRAINED if about["base"] == "pretrained" else Path(about["base"])
    if base.resolve() == folder.resolve():
        raise ValueError(f"{folder / 'task.json'}: names its own folder as the base, expected that of a model")
    return base


def task_folder(name):
    """The folder itself, or that of an adapter which comes with the package."""
    folder = Path(name)
    if not folder.exists() and str(name) in shipped_adapters():
        return SHIPPED / str(name)
    if not folder.is_dir():
        shipped = ", ".join(shipped_adapters())
        raise FileNotFoundError(f"{folder}: no such folder; adapters that come with the package: {shipped}")
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder}: is an adapter of PEFT's; read it with: python -m lora_np import --from peft")
    return folder


def shipped_adapters():
    """Names of the adapters that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/task.json"))


def tokenizer_of(folder, config):
    """The tokenizer of a model's folder, after a check that it is of the model's vocabulary."""
    return checked_tokenizer(Path(folder) / "tokenizer.json", config)


def checked_tokenizer(path, config):
    """The tokenizer in a file; ValueError if it has more tokens than the model."""
    tokenizer = load_tokenizer(path)
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.get_vocab_size()} tokens, expected at most the model's "
            f"vocab_size = {config.vocab_size}"
        )
    return tokenizer


def read_task(path):
    """The contents of a `task.json`, with what is needed to use it."""
    about = read_object(path)
    needed = ["labels"]
    if "base" in about or "base_sha256" in about or about.get("method") in ("lora", "head"):
        needed += ["base", "base_sha256"]
    missing = [name for name in needed if name not in about]
    if missing:
        raise ValueError(f"{path}: not written by finetune: {', '.join(missing)} missing")
    labels = about["labels"]
    if labels is not None and not (
        isinstance(labels, list) and all(isinstance(label, str) for label in labels) and len(set(labels)) >= 2
    ):
        raise ValueError(f"{path}: labels is {labels!r}, expected a list of at least two texts, or null")
    if labels is not None and len(set(labels)) < len(labels):
        raise ValueError(f"{path}: labels is {labels!r}, expected each once")
    for name in set(needed) - {"labels"}:
        if not isinstance(about[name], str) or not about[name].isprintable() or not about[name]:
            raise ValueError(f"{path}: {name} is {about[name]!r}, expected a text")
    return about


def base_name(base):
    """How a task remembers its base: the shipped one by a word, another by its full path."""
    return "pretrained" if Path(base).resolve() == PRETRAINED.resolve() else str(Path(base).resolve())


def model_sha256(base):
    """Fingerprint of a base's weights."""
    path = Path(base) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return hashlib.sha256(path.read_bytes()).hexdigest()
