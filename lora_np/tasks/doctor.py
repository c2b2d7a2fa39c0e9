"""Diagnose an adapter: which of its layers a program such as PEFT applies to a base, and what is wrong with it."""

import math
import re

from ..adapters import AdapterConfig
from ..checked import shown
from ..formats import model_place, read_model
from ..formats.adapter_report import APPLIED, LEAVES, RANDOM, REFUSED, llama_cpp_report, own_report, peft_report
from ..formats.checkpoint import contents, load_adapter, read_config
from ..formats.gguf import read_gguf
from ..formats.model import FINGERPRINT, fingerprint, model_sha256
from ..formats.peft_config import read_fields
from ..formats.task import attach_adapter, read_task, task_base, with_classes
from ..formats.tensors import read_tensors
from .adapter_effect import NOT_FINITE, compare, measure
from .inspection import aligned, place_of

BLOCK = re.compile(r"(?<=[.])([0-9]{1,9})(?=[.])")
BASES = {
    True: "this is the base that the adapter was trained on",
    False: "the adapter was trained on a different base",
    None: "the adapter's file does not record whether this is the base that the adapter was trained on",
}


def diagnose(path, base=None, prompt=None):
    """Report whether each of an adapter's layers is applied to a base, and how much the adapter changes the base.

    Parameters
    ----------
    path : a folder in PEFT's format or ours, a GGUF file, or the name of an included adapter
    base : a Hugging Face folder, or anything that `read_model` reads; None: the base named in the adapter's `task.json`
    prompt : str, the prompt after which the logits are compared; None: a default prompt

    Returns
    -------
    dict of plain values: "adapter"; "program", the program that runs the adapter: "PEFT", "llama.cpp" or "lora_np";
        "kind"; "layers", a list of {layer, status, rank, scale, scale_from, change (‖ΔW‖/‖W‖), effective_rank, notes}
        with None for missing values; "base", {same: whether the adapter was trained on this base, or None if that
        is unknown; named: the base's name in the adapter's file, or None}; "prompt", the result of `compare`, or None
        if the layers already show a fault; "faults", a list of str: why the adapter is refused, has no effect or
        produces NaN

    Raises
    ------
    FileNotFoundError, ValueError
        If a file cannot be read, the adapter is neither LoRA nor DoRA, or the base is missing.
    """
    place = place_of(path)
    task, file_report, trained_on = examine(place, base_place(place, base))
    rows = []
    for layer in file_report.layers:
        change, effective_rank, notes = measure(layer, task.params, file_report.kind)
        scale = None if layer.scale is None or not math.isfinite(layer.scale) else layer.scale
        row = {"layer": layer.name, "status": layer.status, "rank": layer.rank, "scale": scale}
        row |= {"scale_from": layer.scale_from, "change": change, "effective_rank": effective_rank}
        rows.append(row | {"notes": [*layer.notes, *notes]})
    faults, compared = faults_of(file_report, rows), None
    if not faults:
        compared = compare(task, file_report, prompt)
        if compared["change"] is None:
            faults.append("not finite: the logits are NaN or infinite")
        elif compared["change"] == 0 and not compared["left_out"]:
            faults.append("no effect: the logits do not change")
    report = {"adapter": str(place), "program": file_report.program, "kind": file_report.kind, "layers": rows}
    return report | {"base": trained_on, "prompt": compared, "faults": faults}


def faults_of(file_report, rows):
    """Return the faults found in an adapter's layers: why the adapter is refused, has no effect or produces NaN."""
    refused = file_report.refused + [f"{row['layer']}: {row['notes'][0]}" for row in rows if row["status"] == REFUSED]
    if refused:
        return [f"{file_report.program} refuses the whole adapter: {refused[0]}{and_more(refused)}"]
    for note in (RANDOM, NOT_FINITE):
        if layers := [row["layer"] for row in rows if note in row["notes"]]:
            return [f"{layers[0]}{and_more(layers)}: {note}"]
    if not any(row["status"] == APPLIED for row in rows):
        reasons = list(dict.fromkeys(note for row in rows for note in row["notes"])) or ["the file has no layers"]
        return [f"no effect: no layer is applied: {reasons[0]}{and_more(reasons)}"]
    updates = [row["change"] for row in rows if row["status"] == APPLIED]
    return ["no effect: every update is zero"] if all(change == 0 for change in updates) else []


def and_more(items):
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""


def examine(place, base):
    """Return the base (a LoadedModel), the AdapterReport, and the entry "base" of the result of `diagnose`."""
    path, named = place / "adapter_config.json", None
    if place.suffix == ".gguf":
        fields, tensors = read_gguf(place, finite=False)
        if not any("lora_" in name for name in tensors):
            raise ValueError(f"{place} has no LoRA tensors, expected an adapter")
        task = read_model(base, needs_tokenizer=False)
        file_report = llama_cpp_report(fields, tensors, task.params, task.config)
        sha256 = fields.get(f"lora_np.{FINGERPRINT}")
    elif path.is_file():
        fields, (tensors, metadata) = read_fields(path), read_tensors(place / "adapter_model.safetensors")
        task = read_model(base, needs_tokenizer=False)
        file_report = peft_report(path, fields, tensors, task.params, task.config)
        sha256 = metadata.get(FINGERPRINT)
        named = fields.get("base_model_name_or_path")
    else:
        return examine_ours(place, base)
    same = None if sha256 is None else sha256 == fingerprint(task.params)
    return task, file_report, {"same": same, "named": None if named is None else str(named)}


def examine_ours(place, base):
    """Examine an adapter and a base in our format; see `examine`."""
    path = place / "adapter.json"
    if not path.is_file():
        expected = "expected a folder with adapter_config.json or adapter.json, or a file that ends in .gguf"
        raise ValueError(f"{place}: not an adapter ({contents(place)}), {expected}")
    config, (tensors, _) = read_config(path, AdapterConfig), read_tensors(place / "adapter.safetensors")
    if config.kind not in LEAVES:
        remedy = "; export it with --to gguf, and diagnose the GGUF file" if config.kind == "qalora" else ""
        raise ValueError(f"{place}: got an adapter of kind {config.kind!r}, expected {' or '.join(LEAVES)}{remedy}")
    about, model = read_task(place)[1], read_model(base, needs_tokenizer=False)
    params, classes = with_classes(model.params, model.config, about.get("labels"), about.get("question"))
    refused = []
    try:
        attach_adapter(place, base, model) if about else load_adapter(place, params)
    except ValueError as error:
        refused = [str(error)]
    file_report = own_report(config, tensors, params, classes)._replace(refused=refused)
    sha256 = about.get("base_sha256")
    same = None if sha256 is None else sha256 == model_sha256(base)
    return model._replace(params=params, config=classes), file_report, {"same": same, "named": None}


def base_place(path, base=None):
    """Return the path of the base's folder or file; see `diagnose`."""
    place = place_of(path)
    if base is None and (place / "task.json").is_file():
        base = task_base(place)
    if base is None or base == place:
        raise ValueError(f"base: is missing; use --base to name the model that {path} was trained on")
    return model_place(base)


def format_diagnosis(report):
    """Format the result of `diagnose` as text."""
    table, notes = [("layer", "status", "rank", "s", "from", "‖ΔW‖/‖W‖", "effective rank", "")], {}
    for row in merged_blocks(report["layers"]):
        rank, scale = ("–" if row[key] is None else f"{row[key]:.3g}" for key in ("rank", "scale"))
        numbers = span(row["change"], "{:.2g}"), span(row["effective_rank"], "{:.1f}")
        marks = " ".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in row["notes"])
        source = shown(row["scale_from"] or "–", 60)
        table.append((shown(row["layer"]), row["status"], rank, scale, source, *numbers, marks))
    names = {"lora": "LoRA", "dora": "DoRA", "lora_np": "this package"}
    program = names.get(report["program"], report["program"])
    lines = [f"{shown(report['adapter'])}: {names[report['kind']]}, as read by {program}", ""]
    lines += [line.rstrip() for line in aligned(table)]
    lines += ["", *(f"[{number}] {shown(note)}" for note, number in notes.items())] if notes else []
    base = report["base"]
    names = f" (the file names {shown(base['named'])})" if base["named"] and base["same"] is not True else ""
    lines += ["", f"base: {BASES[base['same']]}{names}"]
    if report["prompt"] is not None:
        lines += prompt_lines(report["prompt"])
    return "\n".join([*lines, *(f"FAULT: {shown(fault, 500)}" for fault in report["faults"])])


def prompt_lines(prompt):
    """Describe the change in the logits after a prompt, as lines of text."""
    text = f"tokens {prompt['ids']}" if prompt["text"] is None else f'"{shown(prompt["text"], 60)}"'
    if prompt["change"] is None:
        return [f"after {text}: the logits are not finite"]
    if prompt["base"] is None:
        return [f"after {text}: the text's vector changes by up to {prompt['change']:.2g} of its rms"]
    base, adapter = shown(prompt["base"], 40), shown(prompt["adapter"], 40)
    best = f"{base} remains the most likely" if base == adapter else f"the most likely changes from {base} to {adapter}"
    lines = [f"after {text}: the logits change by up to {prompt['change']:.2g} of their rms", f"  {best}"]
    if prompt["left_out"]:
        lines.append(f"  not including the effect of {shown(', '.join(prompt['left_out']))}")
    return lines


def span(values, number):
    """Format the smallest and the largest of several values, or one value if both are formatted identically."""
    ends = dict.fromkeys(number.format(end) for end in (min(values), max(values))) if values else ["–"]
    return "…".join(ends)


def merged_blocks(rows):
    """Merge rows that differ only in block index and measured values; in a merged row, these values are lists."""
    merged = {}
    for row in rows:
        before, *block = BLOCK.split(row["layer"], maxsplit=1)  # the block's index, and the rest of the name
        same = tuple(row[key] for key in ("status", "rank", "scale", "scale_from"))
        key = (before, *block[1:]), same, tuple(row["notes"])
        merged.setdefault(key, []).append((row, [int(number) for number in block[:1]]))
    for (around, *_), members in merged.items():
        keys = "change", "effective_rank"
        numbers = {key: [row[key] for row, _ in members if row[key] is not None] for key in keys}
        blocks = sorted({block for _, blocks in members for block in blocks})
        yield {**members[0][0], **numbers, "layer": ranges(blocks).join(around)}


def ranges(blocks):
    """Format block indices as text: "3" for one block, "{0…4, 7}" for several."""
    starts = [block for block in blocks if block - 1 not in blocks]
    ends = [block for block in blocks if block + 1 not in blocks]
    text = ", ".join(str(a) if a == b else f"{a}…{b}" for a, b in zip(starts, ends))
    return f"{{{text}}}" if len(blocks) > 1 else text
