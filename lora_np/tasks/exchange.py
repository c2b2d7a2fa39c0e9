"""Tasks in other formats: Hugging Face's GPT-2 and PEFT's adapters, in and out."""

from pathlib import Path

import numpy as np

from ..adapters import merge
from ..adapters.adapter import HEAD
from ..data import load_tokenizer
from ..formats import (
    PRETRAINED,
    Task,
    check_folder,
    load_gpt2,
    load_model,
    load_peft,
    load_task,
    save_gpt2,
    save_model,
    save_peft,
    save_task,
    tokenizer_of,
    write_text,
)
from ..model import add_head

FORMATS = ("peft", "hf", "merged")


def export(name, to, out, base_name=None):
    """Write a task for `transformers` and PEFT.

    Parameters
    ----------
    name : the task's folder, or the name of an adapter that comes with the package
    to : "peft", the adapter alone; "hf", the base that it belongs to (for a classifier with the adapter's head); or
        "merged", the model with the adapter in its weights
    out : folder to write
    base_name : str or None, where PEFT will find the base, written into the adapter's configuration

    Returns
    -------
    Task, what was written, merged or not
    """
    if to not in FORMATS:
        raise ValueError(f"to: got {to!r}, expected one of {', '.join(FORMATS)}")
    check_folder(out, "out")
    task = load_task(name)
    if to == "peft":
        if task.adapter is None:
            raise ValueError(f"{name}: holds a whole model, expected an adapter; export it with --to hf")
        save_peft(out, task.adapter, task.params, task.config, base_name)
        return task
    params = task.params
    if task.adapter is not None:
        head = {HEAD: task.adapter.weights[HEAD]} if HEAD in task.adapter.weights else {}
        params = merge(params, task.adapter) if to == "merged" else {**params, **head}
    save_gpt2(out, params, task.config, task.tokenizer, task.labels)
    return task._replace(params=params, adapter=None)


def import_gpt2(path, out, tokenizer=None):
    """Read a GPT-2 of Hugging Face's and write it as a model or, a classifier, as a task.

    Parameters
    ----------
    path : see `load_gpt2`
    out : folder to write
    tokenizer : path of a tokenizer.json; None: the one beside the model, if there is one

    Returns
    -------
    Task; its tokenizer is None where there is none
    """
    check_folder(out, "out")
    params, config, labels = load_gpt2(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if tokenizer is None and (folder / "tokenizer.json").is_file():
        tokenizer = folder / "tokenizer.json"
    found = None
    if tokenizer is not None:
        found = load_tokenizer(tokenizer)
        if found.get_vocab_size() > config.vocab_size:
            raise ValueError(
                f"{tokenizer}: has {found.get_vocab_size()} tokens, expected at most vocab_size = {config.vocab_size}"
            )
    task = Task(params, config, None, found, labels)
    if labels is not None and found is not None:
        save_task(out, task, None, {"method": "full", "imported_from": str(path)})
        return task
    save_model(out, params, config)
    if found is not None:
        write_text(Path(out) / "tokenizer.json", found.to_str(pretty=True))
    return task


def import_peft(folder, out, base=PRETRAINED, labels=None):
    """Read an adapter of PEFT's and write it as a task on a base.

    Parameters
    ----------
    folder : the directory that PEFT's save_pretrained wrote
    out : folder to write
    base : folder of the base, in our format (`import_gpt2`)
    labels : list of str, a classifier's, in the order of its classes; None: LABEL_0, LABEL_1, …

    Returns
    -------
    Task
    """
    check_folder(out, "out")
    params, config = load_model(base)
    tokenizer = tokenizer_of(base, config)
    adapter = load_peft(folder, params)
    if HEAD in adapter.weights:
        n_classes = len(adapter.weights[HEAD])
        labels = [f"LABEL_{k}" for k in range(n_classes)] if labels is None else list(labels)
        if len(labels) != n_classes:
            raise ValueError(f"labels: got {len(labels)}, expected {n_classes}, one a class of the adapter's head")
        params, config = add_head(params, config, n_classes, np.random.default_rng(0))
    elif labels is not None:
        raise ValueError(f"labels: got {', '.join(labels)}, and the adapter has no head")
    task = Task(params, config, adapter, tokenizer, labels)
    save_task(out, task, base, {"method": "lora", "imported_from": str(folder)})
    return task
