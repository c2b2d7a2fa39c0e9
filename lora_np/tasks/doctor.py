"""What an adapter does on a base, layer by layer, in the program that would serve it, and why it does nothing."""

from ..adapters import AdapterConfig
from ..checked import quoted
from ..data import model_files
from ..data.tokenizer_files import TOKENIZER, VOCABULARY
from ..formats import (
    Task,
    load_adapter,
    load_model,
    model_place,
    put_on,
    read_model,
    read_tensors,
    task_base,
    tokenizer_of,
)
from ..formats.checkpoint import contents, read_config, read_object
from ..formats.gguf import read_gguf
from ..formats.hugging_face import model_type
from ..formats.model import FINGERPRINT, fingerprint, model_sha256, weights_file
from ..formats.peft_config import read_fields
from ..formats.task import read_task, with_classes
from .adapter_effect import NOT_FINITE, compare, measure
from .exchange import LOADERS
from .inspection import place_of
from .peft_treatment import RANDOM, by_peft
from .treatment import APPLIED, REFUSED, by_llama_cpp, by_us

KINDS = ("lora", "dora")  # that are diagnosed


def diagnose(path, base=None, prompt=None):
    """Say what becomes of each layer of an adapter on a base, and how much the adapter changes.

    Parameters
    ----------
    path : a folder of PEFT's or of ours, a GGUF file, or the name of an adapter that comes with the package
    base : a Hugging Face folder, or whatever `read_model` reads; None: the one that an adapter of ours was trained on
    prompt : str, after which the logits are compared; None: a fixed one

    Returns
    -------
    dict of plain values: "adapter"; "program", whose treatment of the file this is, "PEFT", "llama.cpp" or "lora_np";
        "kind"; "layers", a list of {layer, status, rank, scale, scale_from, change (‖ΔW‖/‖W‖), effective_rank, notes}
        with None for what a layer does not have; "base", see `base_check`; "prompt", see `compare`, or None if nothing
        can be compared; "faults", a list of str: why the adapter has no effect, is refused, or computes no numbers

    Raises
    ------
    FileNotFoundError, ValueError
        If a file cannot be read, it is no adapter of LoRA or DoRA, or the base is missing.
    """
    place = place_of(path)
    task, treatment, trained_on = examine(place, base_place(place, base))
    rows = [describe(layer, measure(layer, task.params, treatment.kind)) for layer in treatment.layers]
    faults, compared = faults_of(treatment, rows), None
    if not faults:
        compared = compare(task, treatment, prompt)
        if compared["change"] is None:
            faults.append("not finite: the logits are NaN or infinite")
        elif compared["change"] == 0 and not compared["left_out"]:
            faults.append("no effect: the logits do not change")
    report = {"adapter": str(place), "program": treatment.program, "kind": treatment.kind, "layers": rows}
    return report | {"base": trained_on, "prompt": compared, "faults": faults}


def describe(layer, measured):
    """A Layer and what `measure` says of it, as plain values."""
    change, rank, notes = measured
    values = {"layer": layer.name, "status": layer.status, "rank": layer.rank, "scale": layer.scale}
    values |= {"scale_from": layer.scale_from or None, "change": change, "effective_rank": rank}
    return values | {"notes": [*layer.notes, *notes]}


def faults_of(treatment, rows):
    """Why an adapter is refused, has no effect or computes no numbers, as far as its file shows."""
    applied = [row for row in rows if row["status"] == APPLIED]
    refused = treatment.refused + [f"{row['layer']}: {row['notes'][0]}" for row in rows if row["status"] == REFUSED]
    if refused:
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        return [f"{treatment.program} refuses the whole adapter: {refused[0]}{others}"]
    for note in (RANDOM, NOT_FINITE):
        if layers := [row["layer"] for row in applied if note in row["notes"]]:
            return [f"{layers[0]}{f' and {len(layers) - 1} more' if layers[1:] else ''}: {note}"]
    if not applied:
        return ["no effect: no layer is applied"]
    return [] if any(row["change"] != 0 for row in applied) else ["no effect: every update is zero"]


# ---------------------------------------------------------------- what is there


def examine(place, base):
    """The base, a Task; the Treatment of an adapter on it; and what `base_check` says."""
    if place.suffix == ".gguf":
        fields, tensors = read_gguf(place, finite=False)
        if not any("lora_" in name for name in tensors):
            raise ValueError(f"{place}: no tensor of LoRA, expected an adapter")
        task = read_base(base)
        sha256 = fields.get(f"lora_np.{FINGERPRINT}")
        return task, by_llama_cpp(fields, tensors, task), base_check(sha256, lambda: fingerprint(task.params))
    if (place / "adapter_config.json").is_file():
        path = place / "adapter_config.json"
        fields, (tensors, metadata) = read_fields(path), real_tensors(place / "adapter_model.safetensors")
        task = read_base(base)
        named, sha256 = fields.get("base_model_name_or_path"), metadata.get(FINGERPRINT)
        return task, by_peft(path, fields, tensors, task), base_check(sha256, lambda: fingerprint(task.params), named)
    if not (place / "adapter.json").is_file():
        expected = "expected a folder with adapter_config.json or adapter.json, or a file that ends in .gguf"
        raise ValueError(f"{place}: not an adapter ({contents(place)}), {expected}")
    config = read_config(place / "adapter.json", AdapterConfig)
    tensors, _ = real_tensors(place / "adapter.safetensors")
    if config.kind not in KINDS:
        raise ValueError(f"{place}: got an adapter of kind {config.kind!r}, expected {' or '.join(KINDS)}")
    about = read_task(place)[1]
    if is_hugging_face(base):
        raise ValueError(f"base: {base} is a Hugging Face model, expected the one in our format that it was trained on")
    task = model = read_base(base)
    if about:
        params, classes = with_classes(task.params, task.config, about["labels"], about.get("question"))
        task = task._replace(params=params, config=classes)
    treatment = by_us(config, tensors, task.params)
    try:
        load_adapter(place, task.params) if not about else put_on(place, base, model)
    except ValueError as error:
        treatment = treatment._replace(refused=[str(error)])
    return task, treatment, base_check(about.get("base_sha256"), lambda: model_sha256(base))


def real_tensors(path):
    """What `read_tensors` gives, without the imaginary parts, which PyTorch drops too."""
    tensors, metadata = read_tensors(path)
    return {name: array.real for name, array in tensors.items()}, metadata


def base_place(path, base=None):
    """The folder or file of the base, see `diagnose`."""
    place = place_of(path)
    if base is None and (place / "task.json").is_file():
        base = task_base(place)
    if base is None or base == place:
        raise ValueError(f"base: is missing, expected the model that {path} was trained on")
    return model_place(base)


def read_base(place):
    """The base, a Task, of Hugging Face's folder or ours, or of a GGUF file; a folder need not have a tokenizer."""
    if weights_file(place).suffix == ".gguf":
        return read_model(place)
    fields, labels = place / "config.json", None
    if is_hugging_face(place):
        kind = model_type(place)
        if kind not in list(LOADERS):
            raise ValueError(f"{fields}: model_type is {quoted(kind)}, expected {' or '.join(LOADERS)}")
        params, config, labels = LOADERS[kind](place)
    else:
        params, config = load_model(place)
    files = model_files(place)
    tokenizer = tokenizer_of(place, config) if files.keys() & {TOKENIZER, VOCABULARY} else None
    return Task(params, config, None, tokenizer, labels, files)


def is_hugging_face(place):
    """Whether a model's folder is of Hugging Face's format."""
    fields = place / "config.json"
    has_index = (place / "model.safetensors.index.json").is_file()
    return has_index or fields.is_file() and "model_type" in read_object(fields)


def base_check(sha256, digest, named=None):
    """{"same": whether the adapter was trained on this base, or None if it does not say; "named": its name for it}.

    `sha256` is what the adapter says of its base, `digest` the function that computes it for this one.
    """
    return {"same": None if sha256 is None else sha256 == digest(), "named": None if named is None else str(named)}
