"""Export tasks to Hugging Face, PEFT and llama.cpp, and import models and adapters from them."""

import warnings
from pathlib import Path

import numpy as np

from .. import formats
from ..adapters import HEAD, fitting_arrays, head_arrays, layer_arrays, merge, merge_in_format
from ..checked import one_of
from ..data import gguf_vocabulary, model_files
from ..data.gguf_tokenizer import plain_text
from ..data.tokenizer_files import GENERATION, TOKENIZER, VOCABULARY, WORDS
from ..formats.atomic import write_folder
from ..formats.gguf import read_gguf
from ..formats.hugging_face import default_labels, special_ids
from ..formats.model import FINGERPRINT, fingerprint, weights_file
from ..formats.task import with_classes
from ..formats.tensors import json_bytes
from ..formats.to_gguf import check_language_model, encoded

FORMATS = {
    "peft": "the adapter",
    "hf": "its base",
    "merged": "the base with the adapter merged into its weights",
    "gguf": "the adapter for llama.cpp, or the model if there is no adapter",
    "gguf-merged": "the model with the adapter merged into its weights, for llama.cpp",
}
SAMPLE = "It's fine."
LEAST_SHARE = 0.9  # `export` warns if rounding preserves a smaller share of the update


def export(name, to, out, base_name=None, base=None, format=None):
    """Export a task to transformers, PEFT or llama.cpp.

    Parameters
    ----------
    name : the task's folder, the name of an included adapter, a GGUF file or a packaged model
    to : "peft", the adapter only; "hf", the base (for a classifier, with the adapter's head); "merged", the model
        with the adapter merged into its weights; "gguf", the adapter, or the model if there is no adapter; or
        "gguf-merged"
    out : folder to write, or a file for GGUF; not the folder of the task or of its base
    base_name : str or None, the base's name or path, which is written to the adapter's PEFT configuration
    base : the new folder of the adapter's base if the base has moved, or None
    format : weight format when a model is exported to GGUF: "f32", "f16", "q8_0" or "q4_1"; None: "f32"

    Returns
    -------
    LoadedModel, the model that was written
    """
    one_of("to", to, FORMATS)
    places = formats.task_places(name, base)
    if to.startswith("gguf"):
        if not str(out).endswith(".gguf"):
            raise ValueError(f"out: got {str(out)!r}, expected a file that ends in .gguf")
        formats.check_file(out, "out", places)
        return export_gguf(name, to == "gguf-merged", out, base, format)
    formats.check_target(out, "out", places)
    task = formats.load_task(name, base)
    if to == "peft":
        if task.adapter is None:
            raise ValueError(f"{name}: got a full model, expected an adapter; export it with --to hf")
        metadata = {FINGERPRINT: fingerprint(task.params)}
        formats.save_peft(out, task.adapter, task.params, task.config, base_name, metadata)
        return task
    params = task.params
    if task.adapter is not None:
        params = merge(params, task.adapter) if to == "merged" else {**params, **head_arrays(task.adapter.weights)}
    labels = task.labels if task.config.n_classes else None  # not the labels that a language model answers with
    formats.save_hf(out, params, task.config, task.tokenizer, labels, task.files)
    return task._replace(params=params, adapter=None)


def export_gguf(name, is_merged, out, base, format):
    """Export a task's adapter or model to llama.cpp; see `export`."""
    task = formats.load_task(name, base, weights="blocks")
    if task.adapter is not None and not is_merged:
        if format is not None:
            raise ValueError(f"format: got {format!r} for an adapter, which is always written in f32; omit it")
        fields = {f"lora_np.{FINGERPRINT}": fingerprint(task.params)}
        formats.save_gguf_adapter(out, task.adapter, task.params, task.config, fields)
        return task
    check_language_model(task.config)
    params, format = task.params, format or "f32"
    if task.adapter is not None:
        params, share = merged_for(params, task.adapter, format)
        if share < LEAST_SHARE:
            left = f"only {share:.0%} of the adapter's update is left after rounding to {format}"
            remedy = "use another format, or train with --variant qalora, whose update fits q4_1"
            warnings.warn(f"{left}; {remedy}", stacklevel=3)
    formats.save_gguf(out, params, task.config, gguf_fields(name, task, base), format)
    return task._replace(params=params, adapter=None)


def merged_for(params, adapter, format):
    """Return weights in a GGUF format with the adapter merged in, and the share of the update that rounding preserves.

    A weight that is already in blocks of this format keeps as many of its codes as possible (`merge_in_format`).
    Quantised weights are at the centres of their rounding intervals, so a small update changes few codes. The share is
    ⟨round(W + ΔW) − W, ΔW⟩ / ‖ΔW‖².
    """
    merged = merge(params, adapter)
    names = [f"{layer}.weight" for layer in layer_arrays(adapter)]
    in_blocks = [name for name in names if getattr(params[name], "format", None) == format]
    own = merge_in_format(params, adapter).params if in_blocks else {}
    arrived = whole = 0.0
    for name in names:
        base = np.asarray(params[name])
        update = merged[name] - base
        stored = own[name] if name in in_blocks else encoded(name, merged[name], format)
        arrived += float(np.vdot(np.asarray(stored) - base, update))
        whole += float(np.vdot(update, update))
        merged[name] = stored
    return merged, arrived / whole if whole else 1.0


def gguf_fields(name, task, base):
    """Return the metadata fields for a model's GGUF file, from the original GGUF file or from the tokenizer."""
    file = weights_file(formats.task_places(name, base)[-1])
    if file.suffix == ".gguf":
        return read_gguf(file)[0]
    special = special_ids(task.config, task.tokenizer, task.files)
    fields, is_plain = gguf_vocabulary(task.tokenizer, task.files, special, task.config.vocab_size)
    if not is_plain:
        text = "llama.cpp does not normalise texts as this tokenizer does; give it normalised texts, such as"
        warnings.warn(f"{text} {plain_text(task.tokenizer, SAMPLE)!r} for {SAMPLE!r}", stacklevel=3)
    template = formats.chat_template(task.files)
    return fields | ({"tokenizer.chat_template": template.text} if template else {})


def import_hf(path, out, tokenizer=None):
    """Import a model from Hugging Face, including a classifier's labels, and save it in our format.

    Parameters
    ----------
    path : see `load_hf`; or the name of a packaged model
    out : folder to write, different from the input folder
    tokenizer : path of a tokenizer, see `load_tokenizer`; None: the tokenizer in the model's folder, if any

    Returns
    -------
    LoadedModel; its tokenizer is None if the model has none
    """
    path = formats.model_place(path)
    folder = path if path.is_dir() else path.parent
    formats.check_target(out, "out", (folder, tokenizer or folder))
    task = formats.load_hf(path)
    files = model_files(folder)
    if tokenizer is not None or files.keys() & {TOKENIZER, VOCABULARY, WORDS}:
        place = tokenizer or folder
        tokenizer = formats.tokenizer_of(place, task.config)
        own = {name: content for name, content in files.items() if name == GENERATION}  # from the model's folder
        files = {name: content for name, content in model_files(place).items() if name != GENERATION} | own
    task = task._replace(tokenizer=tokenizer, files=files)
    formats.save_task(out, task, None, {"method": "full", "imported_from": str(path)})
    return task


def is_gguf_adapter(path):
    """Whether a GGUF file contains an adapter, not a model."""
    place = Path(path)
    return place.is_file() and read_gguf(place)[0].get("general.type") == "adapter"


def import_gguf(path, out):
    """Import a GGUF file: check it, and copy it byte for byte as the model of a task.

    Parameters
    ----------
    path : path of the file, or the name of a packaged model
    out : folder to write

    Returns
    -------
    LoadedModel, with its weights in blocks
    """
    file = formats.model_place(path)
    if weights_file(file) != file:
        raise ValueError(f"{path}: expected a file that ends in .gguf")
    formats.check_target(out, "out", (file,))
    task = formats.read_model(file, weights="blocks")
    about = {"labels": None, "method": "full", "imported_from": str(path)}
    files = {"model.gguf": file.read_bytes(), "task.json": json_bytes(about)}
    write_folder(out, files, check=lambda new: formats.load_task(new, weights="blocks"))
    return task


def import_adapter(place, out, base=formats.PRETRAINED, labels=None):
    """Import an adapter of PEFT or llama.cpp, and save it as a task on a base.

    Parameters
    ----------
    place : the directory that PEFT's save_pretrained wrote, or a GGUF file
    out : folder to write, different from both input folders
    base : folder of the base, in our format (as written by `import_hf`)
    labels : list of str, a classifier's labels, in the order of its classes; None: the base's labels if there is one
        for each class, otherwise LABEL_0, LABEL_1, …

    Returns
    -------
    LoadedModel
    """
    base = formats.model_place(base)
    formats.check_target(out, "out", (place, base))
    task = formats.load_task(base)
    if task.adapter is not None:
        raise ValueError(f"base: {base} is an adapter, expected a model")
    try:
        load = formats.load_gguf_adapter if Path(place).suffix == ".gguf" else formats.load_peft
        adapter = load(place, task.params, task.config)
    except ValueError as error:
        hint = "; without --base, the base is this package's small model"
        raise ValueError(f"{error}{hint if base == formats.PRETRAINED else ''}") from None
    n_classes = len(adapter.weights.get(HEAD, ())) or task.config.n_classes
    if labels is None:
        own = task.labels if task.config.n_classes == n_classes else None
        labels = own or default_labels(n_classes) or None
    elif len(set(labels)) != n_classes or len(labels) != n_classes:
        expected = f"{n_classes} different labels" if n_classes else "none, because the adapter has no head"
        raise ValueError(f"labels: got {', '.join(labels)}; expected {expected}")
    params, config = with_classes(task.params, task.config, labels)
    fitting_arrays(params, adapter)
    task = task._replace(params=params, config=config, adapter=adapter, labels=labels)
    formats.save_task(out, task, base, {"method": "lora", "imported_from": str(place)})
    return task
