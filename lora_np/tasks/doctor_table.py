"""The doctor's report as text, with equal lines of many blocks as one."""

import re

from ..checked import shown
from .inspection import aligned

MOST_LINES = 40  # of a table in which every layer has a line of its own
PROGRAMS = {"PEFT": "PEFT", "llama.cpp": "llama.cpp", "lora_np": "this package"}
BASES = {
    True: "the one that the adapter was trained on",
    False: "not the one that the adapter was trained on",
    None: "unknown whether the adapter was trained on it: its file does not say",
}


def format_diagnosis(report):
    """What `diagnose` returns, as text."""
    table, notes = [("layer", "", "rank", "s", "", "‖ΔW‖/‖W‖", "effective rank")], [""]
    for row in merged_blocks(report["layers"]):
        rank, scale = ("–" if row[key] is None else f"{row[key]:.3g}" for key in ("rank", "scale"))
        numbers = span(row["change"], "{:.2g}"), span(row["effective_rank"], "{:.1f}")
        table.append((shown(row["layer"]), row["status"], rank, scale, shown(row["scale_from"] or "", 60), *numbers))
        notes.append("; ".join(map(shown, row["notes"])))
    kind, program = {"lora": "LoRA", "dora": "DoRA"}[report["kind"]], PROGRAMS[report["program"]]
    lines = [f"{shown(report['adapter'])}: {kind}, as {program} treats it", ""]
    lines += [f"{line}  {note}".rstrip() for line, note in zip(aligned(table), notes)]
    named = report["base"]["named"]
    names = f" (it names {shown(named)})" if named and report["base"]["same"] is not True else ""
    lines += ["", f"base: {BASES[report['base']['same']]}{names}"]
    if report["prompt"] is not None:
        lines += prompt_lines(report["prompt"])
    return "\n".join([*lines, *(f"FAULT: {shown(fault, 500)}" for fault in report["faults"])])


def prompt_lines(prompt):
    """Lines about what changes after a prompt."""
    text = f"tokens {prompt['ids']}" if prompt["text"] is None else f'"{shown(prompt["text"], 60)}"'
    if prompt["change"] is None:
        return [f"after {text}: the logits are not finite"]
    base, adapter = shown(prompt["base"], 40), shown(prompt["adapter"], 40)
    best = f"{base} stays the likeliest" if base == adapter else f"the likeliest was {base} and is {adapter}"
    lines = [f"after {text}: the logits change by up to {prompt['change']:.2g} of their rms; {best}"]
    if prompt["left_out"]:
        lines.append(f"  without the effect of {shown(', '.join(prompt['left_out']))}")
    return lines


def span(values, number):
    """A value, or the least and the greatest of several, as text."""
    ends = {number.format(end) for end in (min(values), max(values))} if values else {"–"}
    return "…".join(sorted(ends, key=float) if len(ends) > 1 else ends)


def merged_blocks(rows):
    """The rows, with lists of their numbers; if there are many, those that only differ in the block become one."""
    merged = {}
    for row in rows:
        pattern, block = row["layer"], None
        if len(rows) > MOST_LINES and (match := re.search(r"\.(\d{1,9})\.", row["layer"])):
            pattern, block = (row["layer"][: match.start(1)], row["layer"][match.end(1) :]), int(match[1])
        same = tuple(row[key] for key in ("status", "rank", "scale", "scale_from"))
        merged.setdefault((pattern, same, tuple(row["notes"])), []).append((block, row))
    for (pattern, *_), members in merged.items():
        first, numbers = members[0][1], {}
        for key in ("change", "effective_rank"):
            numbers[key] = [row[key] for _, row in members if row[key] is not None]
        layer = pattern if isinstance(pattern, str) else ranges([block for block, _ in members]).join(pattern)
        yield {**first, **numbers, "layer": layer}


def ranges(blocks):
    """The numbers of blocks as text: "3" of one, "{0…4, 7}" of several."""
    runs = []
    for block in sorted(set(blocks)):
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    text = ", ".join(str(a) if a == b else f"{a}…{b}" for a, b in runs)
    return text if len(set(blocks)) == 1 else f"{{{text}}}"
