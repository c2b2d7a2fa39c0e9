"""figures/README.md: every experiment's figure with its claim, its verdict and its command, from the JSON alone."""

from pathlib import Path

from ..formats import read_json, write_text
from .evidence import HOLDS, format_bound, format_interval
from .recipes import RECIPES
from .run_store import made_with

ABOUT = """\
Written by `python -m lora_np experiment` from the JSON beside each figure. A verdict is about this model, this data
and these settings, at this size: it is neither the paper's refutation nor its proof. All seeds share one base and one
test set of 1,000 snippets, on which an accuracy is known to 1.3 points; what other snippets would say is in no
interval. A classifier is trained for one pass over its snippets, and for more where they are few, so that all of this
takes two hours on a laptop; full fine-tuning is then further ahead of LoRA than after the main job's three passes.

An interval in square brackets is the 95 % confidence interval of the mean over seeds (Student's t), of a comparison
after the difference or the ratio was taken seed by seed; the mean of ratios is the geometric one. A claim holds here
where the intervals of all its parts are wholly on its side of the bound, does not hold here where one is wholly on the
other, and else we cannot tell. Each part is decided on its own. Where the claim is that two things are equal, the
bound leaves 0.01 nats of loss, which is about a point of accuracy here.
"""


def write_gallery(folder):
    """Write the gallery of the experiments whose results are in a folder.

    Parameters
    ----------
    folder : of the JSON files and figures

    Returns
    -------
    Path of the README.md. A file that has not what an experiment writes is named there, and left out.
    """
    folder = Path(folder)
    rows, sections, odd = [], [], []
    for number, name in enumerate(RECIPES, 1):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            outcome = read_json(path)
            lines = section(number, name, outcome)
            rows.append(summary_row(number, name, outcome))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            odd.append(f"`{name}.json` is not what this version writes ({error!r}), and is left out.")
            continue
        sections += lines
    lines = ["# The laboratory's figures", "", ABOUT]
    lines += [*odd, ""] if odd else []
    lines += ["| | experiment | the claim | parts that hold |", "|---:|---|---|---|", *rows, ""]
    write_text(folder / "README.md", "\n".join(lines + sections).rstrip("\n") + "\n")
    return folder / "README.md"


def summary_row(number, name, outcome):
    """One experiment in the table of all."""
    holding, n = sum(part["verdict"] == HOLDS for part in outcome["checks"]), len(outcome["checks"])
    title = outcome["title"].rstrip(".")
    return f"| {number} | [{title}](#{name}) | {outcome['verdict']} | {holding} of {n} |"


def section(number, name, outcome):
    """One experiment, as lines of Markdown."""
    lines = [f'<a id="{name}"></a>', f"## {number}. {outcome['title'].rstrip('.')}", ""]
    lines += [f"**Claim.** {outcome['claim']}", "", f"**Verdict: {outcome['verdict']}.**", ""]
    lines += ["| what was measured | mean [95 % interval] | the claim asks for | verdict |", "|---|---|---|---|"]
    lines += [table_row(part) for part in outcome["checks"]]
    if outcome["asides"]:
        lines += ["", "Measured beside it, without a say in the verdict:", ""]
        lines += ["| | mean [95 % interval] | expected | |", "|---|---|---|---|"]
        lines += [table_row(part) for part in outcome["asides"]]
    made = outcome["versions"]
    quick = " A quick look at shortened runs: not to learn from." if outcome["quick"] else ""
    lines += ["", f"![{outcome['title'].rstrip('.')}]({name}.png)", "", outcome["caption"] + quick, ""]
    lines += [f"    {outcome['command']}", ""]
    lines += [
        f"{len(outcome['seeds'])} seeds, lora_np {made['lora_np']}, NumPy {made['numpy']}, Python {made['python']}, "
        f"{made['machine']}; {outcome['seconds']:.0f} s with {outcome['reused']} of {len(outcome['runs'])} runs kept "
        f"from before. [Numbers]({name}.json)"
        + ("" if outcome["made_with"] == made_with() else " They are of another version of the code than this page."),
        "",
    ]
    return lines


def table_row(part):
    return f"| {part['statement']} | {format_interval(part)} | {format_bound(part)} | {part['verdict']} |"
