"""Format the doctor's report as text: one row for the same layer of several blocks, and notes below the table."""

import re

from ..checked import shown
from .inspection import aligned

BLOCK = re.compile(r"(?<=[.])([0-9]{1,9})(?=[.])")
PROGRAMS = {"PEFT": "PEFT", "llama.cpp": "llama.cpp", "lora_np": "this package"}
BASES = {
    True: "the adapter was trained on it",
    False: "the adapter was trained on a different one",
    None: "the adapter's file does not say whether it was trained on it",
}


def format_diagnosis(report):
    """Format the result of `diagnose` as text."""
    table, notes = [("layer", "status", "rank", "s", "from", "‖ΔW‖/‖W‖", "effective rank", "")], {}
    for row in merged_blocks(report["layers"]):
        rank, scale = ("–" if row[key] is None else f"{row[key]:.3g}" for key in ("rank", "scale"))
        numbers = span(row["change"], "{:.2g}"), span(row["effective_rank"], "{:.1f}")
        marks = " ".join(f"[{notes.setdefault(note, len(notes) + 1)}]" for note in row["notes"])
        source = shown(row["scale_from"] or "–", 60)
        table.append((shown(row["layer"]), row["status"], rank, scale, source, *numbers, marks))
    kind, program = {"lora": "LoRA", "dora": "DoRA"}[report["kind"]], PROGRAMS[report["program"]]
    lines = [f"{shown(report['adapter'])}: {kind}, as read by {program}", ""]
    lines += [line.rstrip() for line in aligned(table)]
    lines += ["", *(f"[{number}] {shown(note)}" for note, number in notes.items())] if notes else []
    base = report["base"]
    names = f" (it names {shown(base['named'])})" if base["named"] and base["same"] is not True else ""
    lines += ["", f"base: {BASES[base['same']]}{names}"]
    if report["prompt"] is not None:
        lines += prompt_lines(report["prompt"])
    return "\n".join([*lines, *(f"FAULT: {shown(fault, 500)}" for fault in report["faults"])])


def prompt_lines(prompt):
    """Describe the change of the logits after a prompt, as lines of text."""
    text = f"tokens {prompt['ids']}" if prompt["text"] is None else f'"{shown(prompt["text"], 60)}"'
    if prompt["change"] is None:
        return [f"after {text}: the logits are not finite"]
    base, adapter = shown(prompt["base"], 40), shown(prompt["adapter"], 40)
    best = f"{base} stays the likeliest" if base == adapter else f"the likeliest was {base} and is {adapter}"
    lines = [f"after {text}: the logits change by up to {prompt['change']:.2g} of their rms", f"  {best}"]
    if prompt["left_out"]:
        lines.append(f"  without the effect of {shown(', '.join(prompt['left_out']))}")
    return lines


def span(values, number):
    """Format the smallest and the largest of several values, or one value if both look the same."""
    ends = dict.fromkeys(number.format(end) for end in (min(values), max(values))) if values else ["–"]
    return "…".join(ends)


def merged_blocks(rows):
    """Merge rows that differ only in their block and values; each merged row has lists of the values."""
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
