"""The gallery: one page of Markdown with every experiment whose JSON is in a folder."""

from pathlib import Path

from ..formats import read_json, write_text
from .evidence import HOLDS, format_bound, format_interval
from .recipes import RECIPES, bases_of, figures, recipe
from .store import made_with

NAMES = {"smollm2": "SmolLM2", "pretrained": "the small base"}
MILLIONS = {"smollm2": 134.5, "pretrained": 3.7}  # of parameters
ABOUT = """\
Written by `python -m lora_np experiment` from the JSON beside each figure. A verdict is about its model, this data and
its settings, at this size; it neither refutes nor proves the paper. All seeds share one base and one test set of 1,000
snippets. On other snippets an accuracy would differ: its 95 % interval is ±2.6 points at 77 %, and ±2.1 at 86 %. Only
intervals that are said to be over snippets include that.

One protocol holds for every classifier, except where an experiment says that it changes a part of it. The learning rate
rises over a quarter of the first pass and then falls linearly to zero. Its peak is the one with the lowest validation
loss, on a grid of factors of 2 that reaches past the best on both sides. The weights that are tested are those of the
lowest validation loss, which is a proper score and scatters less than accuracy. The base, the numbers of passes over
the data and of training texts differ, and each experiment states them. On the small base, full fine-tuning is further
ahead of LoRA after one pass than after the main job's three.

The two bases differ in more than their size. Batches have 32 snippets on the small base, and 16 on SmolLM2. Rates have
the lowest mean over two seeds that no other experiment than the one on learning rates uses. SmolLM2's were chosen on
2,000 snippets; on 6,528 the main job also has half of two rates. The dialects' rates were chosen on one seed. On
SmolLM2 one seed scatters by some hundredths of a nat, so a neighbouring rate may be as good. Its runs on 2,000 snippets
and fewer are evaluated once, at the end.

Square brackets, bars and bands are 95 % confidence intervals of the mean over seeds (Student's t). For a comparison,
the difference or the ratio is taken seed by seed first; the mean of ratios is the geometric one. A claim holds here if
the intervals of all its parts are on its side of the bound. It does not hold here if one of them is wholly on the other
side. Otherwise we cannot tell. Each part is decided on its own. Where a claim says that two things are equal, the bound
leaves 0.01 nats of loss, which is about a point of accuracy here.
"""


def folder_of(out, base):
    """Where an experiment's files are: those of the small base in `out`, those of another one in a folder there."""
    return Path(out) / ("" if base == "pretrained" else base)


def write_gallery(out):
    """Write README.md, the gallery of the experiments whose JSON is in a folder, from that alone; return its path.

    A file that is not what an experiment writes is named there, and left out.
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
    lines = ["# The experiments", "", ABOUT, *odd, *heads, *rows, "", *sections]
    write_text(out / "README.md", "\n".join(lines).rstrip("\n") + "\n")
    return out / "README.md"


def summary(outcome):
    """An experiment's verdict, and how many parts of its claim hold."""
    checks = outcome["checks"]
    holding = sum(part["verdict"] == HOLDS for part in checks)
    return f"{outcome['verdict']} ({holding} of {len(checks)} parts)"


def section(name, base, outcome):
    """One experiment on one base, as lines of Markdown."""
    title, checks, made = outcome["title"].rstrip("."), outcome["checks"], outcome["versions"]
    n = len(outcome["seeds"])
    lines = [f"### On {NAMES[base]}, {MILLIONS[base]} million parameters", "", f"**Claim.** {outcome['claim']}", ""]
    lines += [f"**Verdict: {outcome['verdict']}.**", ""]
    if hasattr(recipe(name), "table"):
        lines += [*markdown(recipe(name).table(outcome)), ""]
    lines += check_table("| what was measured | mean [95 % interval] | the claim asks for | verdict |", checks)
    if outcome["asides"]:
        lines += ["", "Measured beside it, without a say in the verdict:", ""]
        lines += check_table("| | mean [95 % interval] | expected | |", outcome["asides"])
    folder = folder_of("", base)
    lines += [""] + [f"![{title}]({(folder / figure).as_posix()}.png)" for figure in figures(name, base)]
    quick = " A quick look at shortened runs: it means nothing." * outcome["quick"]
    lines += ["", outcome["caption"] + quick, "", f"    {outcome['command']}", ""]
    try:
        same = outcome["made_with"] == made_with(*outcome["made_with"].get("modules", ()))
    except FileNotFoundError:  # a module that this version does not have
        same = False
    other = "" if same else " They are of another version of the code than this page."
    lines += [
        f"{passes(outcome)}{n} seed{'s' * (n > 1)}, lora_np {made['lora_np']}, NumPy {made['numpy']}, Python "
        f"{made['python']}, {made['machine']}; {outcome['seconds']:.0f} s with {outcome['reused']} of "
        f"{len(outcome['runs'])} runs kept from before; the runs took {hours(outcome):.1f} core hours. "
        f"[Numbers]({(folder / name).as_posix()}.json){other}",
        "",
    ]
    return lines


def hours(outcome):
    """What the runs took in all, wherever they were carried out, on one core each."""
    return sum(run["seconds"] for run in outcome["runs"]) / 3600


def passes(outcome):
    """How often the runs went over which training texts, as the beginning of a sentence."""
    settings = [run["settings"] for run in outcome["runs"] if "epochs" in run.get("settings", ())]
    several = len({one["base"] for one in settings}) > 1
    found = set()
    for one in settings:
        tokens = f"{one['train_tokens']:,} tokens of " if one.get("train_tokens") else ""
        texts = f"{tokens}{one.get('examples') or one.get('domain') or 'all'} training texts"
        of_base = f" with {NAMES[one['base']]}" if several else ""
        found.add(f"{one['epochs']} pass{'es' * (one['epochs'] > 1)} over {texts}{of_base}")
    return ", ".join(sorted(found)) + "; " if found else ""


def check_table(heads, checks):
    rows = [(part["statement"], format_interval(part), format_bound(part), part["verdict"]) for part in checks]
    return [heads, "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def markdown(rows):
    """Rows of texts, the heads first, as an aligned Markdown table: names on the left, numbers on the right."""
    first, *widths = (max(map(len, column)) for column in zip(*rows))
    lines = [[name.ljust(first), *(text.rjust(w) for text, w in zip(texts, widths))] for name, *texts in rows]
    rule = "|".join(["-" * (first + 2), *("-" * (w + 1) + ":" for w in widths)])
    heads, *lines = (f"| {' | '.join(cells)} |" for cells in lines)
    return [heads, f"|{rule}|", *lines]
