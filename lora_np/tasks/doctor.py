"""What an adapter does on a base, layer by layer, in the program that would serve it, and why it does nothing."""

import math
from dataclasses import replace

import numpy as np

from ..adapters import HEAD, Adapter, AdapterConfig
from ..adapters.dora import delta
from ..analysis import effective_rank, product_singular_values
from ..checked import quoted
from ..data import decode, encode, model_files
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
from ..formats.model import fingerprint, model_sha256, weights_file
from ..formats.peft import FACTORS
from ..formats.peft_config import read_fields
from ..formats.task import read_task, with_classes
from ..model import forward
from .exchange import LOADERS
from .inspection import LARGEST, place_of
from .peft_treatment import RANDOM, by_peft
from .treatment import APPLIED, REFUSED, by_llama_cpp, by_us, is_linear

PROMPT = "The quick brown fox jumps over the"
N_IDS = 8  # of a prompt for a base without a tokenizer
NOT_FINITE = "has NaN, infinite or far too large values"
NO_A, NO_B = "A is zero", "B is zero, as before training"
TOO_LARGE = "the update is larger than the weight itself: is the scale too large?"
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
        return [f"{treatment.program} refuses the adapter: {refused[0]}{others}"]
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
        sha256 = fields.get("lora_np.base_sha256")
        return task, by_llama_cpp(fields, tensors, task), base_check(sha256, lambda: fingerprint(task.params))
    if (place / "adapter_config.json").is_file():
        path = place / "adapter_config.json"
        fields, (tensors, metadata) = read_fields(path), real_tensors(place / "adapter_model.safetensors")
        task = read_base(base)
        named, sha256 = fields.get("base_model_name_or_path"), metadata.get("base_sha256")
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


# ---------------------------------------------------------------- how much it changes


@np.errstate(all="ignore")
def measure(layer, params, kind):
    """‖ΔW‖/‖W‖ and the effective rank of an applied layer's update, None without numbers; and notes about them."""
    arrays = layer.arrays
    if layer.status != APPLIED or not arrays or RANDOM in layer.notes:
        return None, None, []
    if not all(np.abs(x).max(initial=0) < LARGEST for x in (*arrays.values(), np.array(layer.scale or 0.0))):
        return None, None, [NOT_FINITE]
    leaf, *others = arrays
    old = [params.get(f"{name}.{leaf if not others else 'weight'}") for name in layer.ours]
    if old[0] is None or not others and old[0].shape != arrays[leaf].shape:
        return None, None, []  # a head that the base does not have
    old = np.concatenate(list(map(np.asarray, old)))
    if not others:
        return ratio(arrays[leaf] - old, old), None, []
    A, B = (arrays[factor].astype(np.float64) for factor in FACTORS)
    sigma = abs(layer.scale) * product_singular_values(B, A)
    missing = " ".join(layer.notes)
    zero = {"scale 0": not layer.scale, NO_A: not A.any() and "no lora_A" not in missing}
    zero[NO_B] = not B.any() and "no lora_B" not in missing
    notes = [note for note, is_so in zero.items() if is_so]
    update = sigma
    if kind == "dora":
        config = AdapterConfig(r=layer.rank, alpha=layer.scale * layer.rank, kind=kind)
        update = delta(old, {**arrays, "lora_A": A, "lora_B": B}, config)
    change = ratio(update, old)
    notes += [TOO_LARGE] if change is None or change > 1 else []
    return change, effective_rank(sigma), notes


def ratio(update, weight):
    """‖ΔW‖/‖W‖; None if only W is zero."""
    update, weight = float(np.linalg.norm(update)), float(np.linalg.norm(weight))
    return update / weight if weight else None if update else 0.0


def attach(treatment, dtype):
    """The Adapter of the layers that are applied, and the names of those that our model cannot show."""
    weights, ranks, alphas, left_out = {}, {}, {}, []
    for layer in treatment.layers:
        if layer.status != APPLIED:
            continue
        if layer.alone or not (is_linear(layer.ours) or len(layer.arrays) == 1):
            left_out.append(layer.name)
        elif len(layer.arrays) == 1:
            weights |= {f"{layer.ours[0]}.{leaf}": array.astype(dtype) for leaf, array in layer.arrays.items()}
        else:  # of several layers in one, all have the same A
            for i, name in enumerate(layer.ours):
                ranks[name], alphas[name] = layer.rank, layer.scale * layer.rank
                for leaf, array in layer.arrays.items():
                    own = array if leaf == "lora_A" else np.split(array, len(layer.ours))[i]
                    weights[f"{name}.{leaf}"] = own.astype(dtype)
    config = AdapterConfig(1, 1.0, tuple(ranks), rank_pattern=ranks, alpha_pattern=alphas, kind=treatment.kind)
    return Adapter(config, weights), left_out


@np.errstate(all="ignore")
def compare(task, treatment, prompt=None):
    """How the logits after a prompt change.

    Returns
    -------
    dict: "text" of the prompt, or None; "ids"; "change", the largest change of a logit over the rms of the base's, or
        None if it is not finite; "base" and "adapter", the likeliest next token, or class; "left_out", layers whose
        effect is not in it. A classifier's head is the adapter's on both sides.
    """
    params, config, table = task.params, task.config, task.params["tok_emb.weight"]
    adapter, left_out = attach(treatment, table.dtype)
    if any(layer.name == "score" and layer.status == APPLIED for layer in treatment.layers) and HEAD in adapter.weights:
        head = adapter.weights[HEAD]
        params, config = {**params, HEAD: head}, replace(config, n_classes=len(head))
    text, ids = prompt_ids(task, prompt)
    pair = [forward(params, ids[None], config, adapter=each)[0][0] for each in (None, adapter)]
    base, adapted = pair if config.n_classes else (logits[-1] for logits in pair)  # (n_classes,) or (V,)

    def likeliest(logits):
        best = int(logits.argmax())
        if config.n_classes:
            return task.labels[best] if task.labels and len(task.labels) == len(logits) else f"class {best}"
        return f"token {best}" if task.tokenizer is None else repr(decode(task.tokenizer, np.array([best])))

    rms = float(np.sqrt(np.mean(base.astype(np.float64) ** 2)))
    change = float(np.abs(adapted - base).max()) / (rms or 1.0)
    values = {"change": change if math.isfinite(change) else None, "left_out": left_out}
    return {"text": text, "ids": ids.tolist(), "base": likeliest(base), "adapter": likeliest(adapted), **values}


def prompt_ids(task, prompt=None):
    """The text of the prompt and its ids (T,); None and 0, 1, … if there is no tokenizer or it has no such words."""
    n_positions, vocab_size = task.config.n_positions, task.config.vocab_size
    if task.tokenizer is None and prompt is not None:
        raise ValueError("prompt: the base has no tokenizer, expected none")
    if task.tokenizer is not None:
        text = PROMPT if prompt is None else prompt
        ids = encode(task.tokenizer, [text], n_positions)[0]
        if ids.size:
            return text, ids
        if prompt is not None:
            raise ValueError(f"prompt: got {quoted(prompt)}, which has no tokens in this vocabulary")
    return None, np.arange(min(N_IDS, n_positions)) % vocab_size
