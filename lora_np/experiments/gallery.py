"""The gallery: one page of Markdown with every experiment whose JSON is in a folder."""

from pathlib import Path

from ..formats import read_json, write_text
from .evidence import HOLDS, format_bound, format_interval
from .recipes import RECIPES, bases_of, figures, recipe
from .store import made_with

NAMES = {"smollm2": "SmolLM2", "pretrained": "the small base"}
MILLIONS = {"smollm2": 134.5, "pretrained": 3.7}  # of parameters
ABOUT = """\
Written by `python -m lora_np experiment` from the JSON beside each figure. A verdict is about its model, this data
and its settings, at this size; it neither proves nor refutes the paper. All seeds share one base and one test set of
1,000 snippets. On other snippets an accuracy would differ: its 95 % interval is ±2.6 points at 77 %, and ±2.1 at 86
%. Only intervals described as "over snippets" include that.

All classifiers follow one protocol, except where an experiment says otherwise. The learning rate warms up over a
quarter of the first epoch and then decays linearly to zero. Its peak is the rate with the lowest validation loss, on
a grid of factors of 2 that extends beyond the best on both sides. The checkpoint with the lowest validation loss is
tested; this loss is a proper score and varies less than accuracy. The base, the number of epochs and the number of
training texts differ, and each experiment states them. On the small base, full fine-tuning is further ahead of LoRA
after one epoch than after the main job's three.

The two bases differ in more than size. Batches have 32 snippets on the small base and 16 on SmolLM2. Learning rates
were chosen by the mean loss over two seeds, which only the experiment on learning rates uses as well. SmolLM2's were
chosen on 2,000 snippets; on 6,528, the main job also runs two methods at half of their rates. The dialects' rates
were chosen on one seed. On SmolLM2 one seed varies by some hundredths of a nat, so a neighbouring rate may be as
good. Its runs on 2,000 snippets or fewer are evaluated once, at the end.

Square brackets, bars and bands are 95 % confidence intervals of the mean over seeds (Student's t). For a comparison,
the difference or the ratio is computed for each seed first; ratios have a geometric mean. A claim holds here if the
intervals of all its parts are on the claim's side of the bound. It does not hold here if one of them is entirely on
the other side. Otherwise we cannot tell. Each part is decided on its own. Where a claim says that two things are
equal, the bound allows 0.01 nats of loss, which is about a point of accuracy here.
"""


def folder_of(out, base):
    """The folder of an experiment's files: `out` for the small base, a folder in `out` for another one."""
    return Path(out) / ("" if base == "pretrained" else base)


def write_gallery(out):
    """Write the gallery, README.md, from the experiments' JSON files in a folder, and return its path.

    It names any file that is not what an experiment writes, and leaves it out.
    """
    out, rows, sections, odd = Path(out), [], [], []
    for number, name in enumerate(RECIPES):
        verdicts, lines = {}, []
        for base in (base for base in NAMES if base in bases_of(name)):
            path = folder_of(out, base) / f"{name}.json"
            if not path.exists():
                continue
            try:
                outcome = read_json(path)
                title, of_base = outcome["title"].rstrip("."), section(name, base, outcome)
                verdicts[base] = summary(outcome)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                place = path.relative_to(out).as_posix()
                odd += [f"`{place}` is not what this version writes ({error!r}), and is left out.", ""]
            else:
                lines += of_base
        if lines:
            cells = [verdicts.get(base, "") for base in NAMES]
            rows.append(f"| {number} | [{title}](#{name}) | {' | '.join(cells)} |")
            sections += [f'<a id="{name}"></a>', f"## {number}. {title}", "", *lines]
    on = " | ".join(f"on {name}" for name in NAMES.values())
    heads = [f"| | experiment | {on} |", "|---:|---|" + "---|" * len(NAMES)]
    pages = [f"[{path.stem}]({path.name})" for path in sorted(out.glob("*.md")) if path.name != "README.md"]
    beside = [f"Other pages in this folder: {', '.join(pages)}.", ""] if pages else []
    lines = ["# The experiments", "", ABOUT, *beside, *odd, *heads, *rows, "", *sections]
    write_text(out / "README.md", "\n".join(lines).rstrip("\n") + "\n")
    return out / "README.md"


def summary(outcome):
    """An experiment's verdict, and how many parts of its claim hold."""
    checks = outcome["checks"]
    holding = sum(part["verdict"] == HOLDS for part in checks)
    return f"{outcome['verdict']} ({holding} of {len(checks)} parts)"


def section(name, base, outcome):
    """One experiment on one base, as lines of Markdown."""
    title, made, n = outcome["title"].rstrip("."), outcome["versions"], len(outcome["seeds"])
    lines = [f"### On {NAMES[base]}, {MILLIONS[base]} million parameters", "", f"**Claim.** {outcome['claim']}", ""]
    lines += [f"**Verdict: {outcome['verdict']}.**", ""]
    if hasattr(recipe(name), "table"):
        lines += [*markdown(recipe(name).table(outcome)), ""]
    lines += check_table("| measured | mean [95 % interval] | bound of the claim | verdict |", outcome["checks"])
    if outcome["asides"]:
        lines += ["", "Also measured, without effect on the verdict:", ""]
        lines += check_table("| | mean [95 % interval] | expected | |", outcome["asides"])
    folder = folder_of("", base)
    lines += [""] + [f"![{title}]({(folder / figure).as_posix()}.png)" for figure in figures(name, base)]
    quick = " A quick look at shortened runs: it means nothing." * outcome["quick"]
    lines += ["", outcome["caption"] + quick, "", f"    {outcome['command']}", ""]
    try:
        same = outcome["made_with"] == made_with(*outcome["made_with"].get("modules", ()))
    except FileNotFoundError:  # a module that this version does not have
        same = False
    hours = sum(run["seconds"] for run in outcome["runs"]) / 3600  # of all runs, on one core each
    return [
        *lines,
        f"{training_texts(outcome)}{n} seed{'s' * (n > 1)}, lora_np {made['lora_np']}, NumPy {made['numpy']}, Python "
        f"{made['python']}, {made['machine']}; {outcome['seconds']:.0f} s with {outcome['reused']} of "
        f"{len(outcome['runs'])} runs reused; all runs took {hours:.1f} core hours. "
        f"[Numbers]({(folder / name).as_posix()}.json)"
        + ("" if same else " They are from another version of the code than this page."),
        "",
    ]


def training_texts(outcome):
    """The runs' epochs and training texts, as the beginning of a sentence."""
    settings = [run["settings"] for run in outcome["runs"] if "epochs" in run.get("settings", ())]
    several = len({one["base"] for one in settings}) > 1
    trained = set()
    for one in settings:
        tokens = f"{one['train_tokens']:,} tokens of " if one.get("train_tokens") else ""
        texts = f"{tokens}{one.get('examples') or one.get('domain') or 'all'} training texts"
        on_base = f" with {NAMES[one['base']]}" if several else ""
        trained.add(f"{one['epochs']} epoch{'s' * (one['epochs'] > 1)} on {texts}{on_base}")
    return ", ".join(sorted(trained)) + "; " if trained else ""


def check_table(heads, checks):
    """Checks as lines of a Markdown table under its heads."""
    rows = [(part["statement"], format_interval(part), format_bound(part), part["verdict"]) for part in checks]
    return [heads, "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def markdown(rows):
    """Rows of texts, the heads first, as an aligned Markdown table: names on the left, numbers on the right."""
    first, *widths = (max(map(len, column)) for column in zip(*rows))
    lines = [[name.ljust(first), *(text.rjust(w) for text, w in zip(texts, widths))] for name, *texts in rows]
    rule = "|".join(["-" * (first + 2), *("-" * (w + 1) + ":" for w in widths)])
    heads, *lines = (f"| {' | '.join(cells)} |" for cells in lines)
    return [heads, f"|{rule}|", *lines]
