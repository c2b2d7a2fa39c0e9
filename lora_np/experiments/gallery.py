"""Write the gallery: a Markdown page of all experiments whose JSON files are in a folder."""

import math
import re
from pathlib import Path

from ..formats import read_json, write_text
from .evidence import HOLDS, format_bound, format_interval
from .recipes import RECIPES, bases_of, figures, recipe
from .runs import BASES
from .store import made_with

MILLIONS = {"minilm": 22.6, "smollm2": 134.5, "pretrained": 3.7}  # number of parameters
ABOUT = Path(__file__).parent / "about.txt"  # describes the protocol, and explains how to read the page


def folder_of(out, base):
    """The folder of an experiment's files: `out` for the small base, a subfolder of `out` for any other base."""
    return Path(out) / ("" if base == "pretrained" else base)


def write_gallery(out):
    """Write the gallery, README.md, from the experiments' JSON files in a folder, and return its path.

    Files with unexpected contents are omitted and listed on the page.
    """
    out, rows, sections, odd = Path(out), [], [], []
    for number, name in enumerate(RECIPES):
        verdicts, lines = {}, []
        for base in (base for base in BASES if base in bases_of(name)):
            path = folder_of(out, base) / f"{name}.json"
            if not path.exists():
                continue
            try:
                outcome = read_json(path)
                title, of_base = outcome["title"].rstrip("."), section(name, base, outcome)
                holding = [part["verdict"] == HOLDS for part in outcome["checks"]]
                verdicts[base] = f"{outcome['verdict']} ({sum(holding)} of {len(holding)})"
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                place = path.relative_to(out).as_posix()
                odd += [f"`{place}` was not written by this version ({error!r}) and is omitted.", ""]
            else:
                lines += of_base
        if lines:
            cells = [verdicts.get(base, "") for base in BASES]
            rows.append(f"| {number} | [{title}](#{name}) | {' | '.join(cells)} |")
            sections += [f'<a id="{name}"></a>', f"## {number}. {title}", "", *lines]
    on = " | ".join(f"verdict on {name} (parts of the claim that hold)" for name in BASES.values())
    heads = [f"| | experiment | {on} |", "|---:|---|" + "---|" * len(BASES)]
    pages = [f"[{path.stem}]({path.name})" for path in sorted(out.glob("*.md")) if path.name != "README.md"]
    beside = [f"Other pages in this folder: {', '.join(pages)}.", ""] if pages else []
    lines = ["# The experiments", "", ABOUT.read_text("utf-8"), *beside, *odd, *heads, *rows, "", *sections]
    write_text(out / "README.md", "\n".join(lines).rstrip("\n") + "\n")
    return out / "README.md"


def section(name, base, outcome):
    """Format one experiment on one base as lines of Markdown."""
    made, n = outcome["versions"], len(outcome["seeds"])
    lines = [f"### On {BASES[base]}, {MILLIONS[base]} million parameters", "", f"**Claim.** {outcome['claim']}", ""]
    lines += [f"**Verdict: {outcome['verdict']}.**", ""]
    if hasattr(recipe(name), "finding"):
        lines += [recipe(name).finding(outcome), ""]
    if hasattr(recipe(name), "table"):
        lines += [*markdown(recipe(name).table(outcome)), ""]
    lines += check_table("| measured | mean [95 % interval] | claim's bound | verdict |", outcome["checks"])
    if outcome["asides"]:
        lines += ["", "Also measured, but not part of the verdict:", ""]
        lines += check_table("| | mean [95 % interval] | expected | |", outcome["asides"])
    if hasattr(recipe(name), "details"):
        lines += ["", *markdown(recipe(name).details(outcome))]
    folder = folder_of("", base)
    names = figures(name, base)
    shown = zip(names, alt_texts(outcome["caption"], len(names)))
    lines += [""] + [f"![{alt}]({(folder / figure).as_posix()}.png)" for figure, alt in shown]
    quick = " These runs are shortened, so their results are meaningless." * outcome["quick"]
    lines += ["", outcome["caption"] + quick, "", f"    {outcome['command']}", ""]
    try:
        same = outcome["made_with"] == made_with(*outcome["made_with"].get("modules", ()))
    except FileNotFoundError:  # this version lacks one of the modules
        same = False
    hours = sum(run["seconds"] for run in outcome["runs"]) / 3600  # core-hours: each run uses one core
    about = (
        f"{training_texts(outcome)}{n} seed{'s' * (n > 1)}; lora_np {made['lora_np']}, NumPy {made['numpy']}, Python "
        f"{made['python']}; {made['machine']}. Wall time: {outcome['seconds']:.0f} s with {outcome['reused']} of "
        f"{len(outcome['runs'])} runs reused. Total computing time: {hours:.1f} core-hours. "
        f"[Numbers]({(folder / name).as_posix()}.json)"
    )
    return [*lines, about + " †" * (not same), ""]


def alt_texts(caption, n):
    """Say what each of n figures shows: the first sentence of its part of the caption, and those on its panels."""
    parts = [part for part in re.split(r"Figure \d: |Below: ", caption) if part] or [caption]
    texts = []
    for i in range(n):
        first, *others = parts[min(i, len(parts) - 1)].strip().rstrip(".").split(". ")
        texts.append(". ".join([first, *(text for text in others if "panel:" in text)]))
    return texts


def training_texts(outcome):
    """Format the runs' numbers of epochs and training texts as the start of a sentence."""
    settings = [run["settings"] for run in outcome["runs"] if "epochs" in run.get("settings", ())]
    several = len({one["base"] for one in settings}) > 1
    trained = set()
    for one in settings:
        tokens = f"{one['train_tokens']:,} tokens of " if one.get("train_tokens") else ""
        number = f"{one['examples']:,} " if one.get("examples") else "all " * (not tokens)
        texts = f"{tokens}{number}training texts" + (f" ({one['domain']})" if one.get("domain") else "")
        on_base = f" with {BASES[one['base']]}" if several else ""
        phrase = f"{one['epochs']} epoch{'s' * (one['epochs'] > 1)} on {texts}{on_base}"
        trained.add((one.get("examples") or math.inf, phrase))
    return ", ".join(phrase for _, phrase in sorted(trained)) + "; " if trained else ""


def check_table(heads, checks):
    """Format checks as the lines of a Markdown table with the header line `heads`."""
    rows = [(part["statement"], format_interval(part), format_bound(part), part["verdict"]) for part in checks]
    return [heads, "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def markdown(rows):
    """Format rows of strings, the header first, as a Markdown table; all columns but the first are right-aligned."""
    first, *widths = (max(map(len, column)) for column in zip(*rows))
    lines = [[name.ljust(first), *(text.rjust(w) for text, w in zip(texts, widths))] for name, *texts in rows]
    rule = "|".join(["-" * (first + 2), *("-" * (w + 1) + ":" for w in widths)])
    heads, *lines = (f"| {' | '.join(cells)} |" for cells in lines)
    return [heads, f"|{rule}|", *lines]
