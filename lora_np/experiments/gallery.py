"""Write the gallery: a Markdown table of all experiments whose JSON files are in a folder, and a page for each."""

import re
from pathlib import Path

from ..formats import read_json, write_text
from .design import Design
from .evidence import UNKNOWN, describe, describe_verdict, format_interval
from .recipes import RECIPES, recipe
from .runs import BASES
from .store import made_with

MILLIONS = {"minilm": 22.6, "smollm2": 134.5, "pretrained": 3.7}  # number of parameters
ABOUT = Path(__file__).parent / "about.txt"  # describes the protocol and the statistics
INTRODUCTION = """Does LoRA do what the papers say? Most experiments fine-tune MiniLM, a small encoder, to tell from
one sentence of a review whether the critic liked the film (Rotten Tomatoes: 8,528 snippets; guessing is right in 50 %).
Each verdict is about one comparison, written as A − B, with its 95 % interval over several seeds: *different* (A is
higher or lower, if only by a little), *equivalent* (the difference is too small to matter), *known* (a ratio, to within
a factor of 1.5), or *cannot tell*. [Details](#how-to-read-this-page) are below the tables."""
GROUPS = {  # the relation to the claim -> heading
    "contradicts": "Results that contradict the papers",
    "agrees": "Results that agree with the papers",
    None: "Other results",
}


def folder_of(out, base):
    """The folder of an experiment's files: `out` for the small base, a subfolder of `out` for any other base."""
    return Path(out) / ("" if base == "pretrained" else base)


def write_gallery(out):
    """Write README.md and a page for each experiment from the JSON files in a folder; return README.md's path.

    Files with unexpected contents are omitted and listed in README.md.
    """
    out, rows, odd, missing, undecided = Path(out), {group: [] for group in GROUPS}, [], [], []
    for name in RECIPES:
        of, sections, mains = recipe(name), [], {}
        for base in of.bases:
            path = folder_of(out, base) / f"{name}.json"
            if not path.exists():
                continue
            try:
                outcome = read_json(path)
                of_base = section(name, base, outcome)
                mains[base] = outcome["comparisons"][0] | {"finding": of.finding(outcome)}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                place = path.relative_to(out).as_posix()
                odd += [f"`{place}` was not written by this version ({error!r}) and is omitted.", ""]
            else:
                sections += of_base
        if mains:
            main = next(iter(mains.values()))
            undecided += [name] * (main["verdict"] == UNKNOWN)
            rows[None if name in undecided else main["claim"]].append(row(name, mains))
            heading = [f"# {of.question}", "", *(line for text in of.method for line in (text, ""))]
            write_text(out / f"{name}.md", "\n".join([*heading, *sections]).rstrip("\n") + "\n")
        else:
            missing.append(name)
    open_ones = f"; not decided: {', '.join(undecided)}" * bool(undecided)
    open_ones += f"; not run yet: {', '.join(missing)}" * bool(missing)
    decided = len(RECIPES) - len(undecided + missing)
    count = f"{decided} of {len(RECIPES)} questions are decided{open_ones}."
    lines = [INTRODUCTION, "", count, ""] if len(missing) < len(RECIPES) else []
    heads = ["| question | finding | picture | verdict |", "|---|---|---|---|"]
    for group, title in GROUPS.items():
        if rows[group]:
            lines += [f"## {title}", "", *heads, *rows[group], ""]
    if (out / "bench.md").exists():
        lines += ["The speed of lora_np compared with PyTorch and JAX: [bench](bench.md).", ""]
    lines += ["## How to read this page", "", ABOUT.read_text("utf-8")]
    write_text(out / "README.md", "\n".join(["# The experiments", "", *odd, *lines]).rstrip("\n") + "\n")
    return out / "README.md"


def row(name, mains):
    """A row of the table; `mains` is a dict, base -> the main comparison and the "finding" of an experiment."""
    of, (base, main) = recipe(name), next(iter(mains.items()))
    figure = (folder_of("", base) / next(iter(of.draw))).as_posix()
    alt = alt_texts(of.caption, 1)[0]
    verdicts = [
        f"{BASES[of]}: **{describe_verdict(part)}**. {part['statement']}: {format_interval(part)}"
        for of, part in mains.items()
    ]
    picture = f'<img src="{figure}.png" width="240" alt="{alt}">'
    return f"| [{of.question}]({name}.md) | {main['finding']} | {picture} | {'<br>'.join(verdicts)} |"


def section(name, base, outcome):
    """Format one experiment on one base as lines of Markdown."""
    of, made, n = recipe(name), outcome["versions"], len(outcome["seeds"])
    design = Design(**outcome["design"])
    shown = zip(of.draw, alt_texts(of.caption, len(of.draw)))
    quick = " These runs are shortened, so their results are meaningless." * outcome["quick"]
    lines = [f"## On {BASES[base]}, {MILLIONS[base]} million parameters", "", f"**{of.finding(outcome)}**", ""]
    lines += [f"![{alt}]({(folder_of('', base) / figure).as_posix()}.png)" for figure, alt in shown]
    lines += ["", of.caption + quick, "", f"Claim: {of.claim}", ""]
    lines += [f"Verdict: {describe(outcome['comparisons'][0])}.", ""]
    if of.limits:
        lines += [f"Limits: {of.limits}", ""]
    lines += ["<details><summary>Design and numbers</summary>", ""]
    lines += [f"{design.statement}. {design.plan(n)}", ""]
    heads = ["| compared | mean [95 % interval] | margin | verdict | the claim |", "|---|---|---|---|---|"]
    parts = [cells_of(part) for part in outcome["comparisons"]]
    parts[0] = [f"**{text}**" if text else "" for text in parts[0]]
    lines += [*heads, *(f"| {' | '.join(cells)} |" for cells in parts)]
    for rows in (of.table, of.details):
        if rows is not None:
            lines += ["", *markdown(rows(outcome))]
    lines += ["", f"    {outcome['command']}", "", "</details>", ""]
    try:
        same = outcome["made_with"] == made_with(*outcome["made_with"].get("modules", ()))
    except FileNotFoundError:  # this version lacks one of the modules
        same = False
    hours = sum(run["seconds"] for run in outcome["runs"]) / 3600  # core-hours: each run uses one core
    about = (
        f"{n} seed{'s' * (n > 1)}; lora_np {made['lora_np']}, NumPy {made['numpy']}, Python "
        f"{made['python']}; {made['machine']}. Total computing time of the runs: {hours:.1f} core-hours. "
        f"[Numbers]({(folder_of('', base) / name).as_posix()}.json)"
    )
    return [*lines, about + ". A different version of the code produced these results." * (not same), ""]


def cells_of(part):
    """The cells of one comparison's row in the table of an experiment's page."""
    margin = "" if part["margin"] is None else f"{part['margin']:g}"
    return [part["statement"], format_interval(part), margin, describe_verdict(part), part["claim"] or ""]


def alt_texts(caption, n):
    """The alt texts of n figures: the first sentence of each figure's caption, and the sentences about its panels."""
    parts = [part for part in re.split(r"Figure \d: ", caption) if part] or [caption]
    texts = []
    for i in range(n):
        first, *others = parts[min(i, len(parts) - 1)].strip().rstrip(".").split(". ")
        texts.append(". ".join([first, *(text for text in others if "panel:" in text)]))
    return texts


def markdown(rows):
    """Format rows of strings, the header first, as a Markdown table; all columns but the first are right-aligned."""
    first, *widths = (max(map(len, column)) for column in zip(*rows))
    lines = [[name.ljust(first), *(text.rjust(w) for text, w in zip(texts, widths))] for name, *texts in rows]
    rule = "|".join(["-" * (first + 2), *("-" * (w + 1) + ":" for w in widths)])
    heads, *lines = (f"| {' | '.join(cells)} |" for cells in lines)
    return [heads, f"|{rule}|", *lines]
