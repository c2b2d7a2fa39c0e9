"""How an experiment is carried out: its runs, its measures, its verdict, and what is written of it.

A recipe (`recipes/`) is a module whose docstring is its method section, with

    CLAIM                    what the paper says, and which paper
    CAPTION                  what to see in the figure
    KEYS                     the methods that are trained, each from every seed at its own rate; or
    runs(seeds, quick)       -> dict, name -> training run that it needs: a dataclass of `runs/`
    measure(results, runs, seeds, quick)   -> dict with "checks" (see `evidence.py`), which decide the verdict; perhaps
                             "asides", checks without a say in it; and whatever the figure shows
    draw(outcome)            -> the figure, from what the JSON holds

and perhaps

    FIGURES                  file name -> function like `draw`, for a recipe with several figures
    table(outcome)           -> rows of texts, the heads first
    write_more(outcome, folder)
"""

import os
import platform
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from .. import __version__
from ..checked import one_of, whole_number
from ..formats import check_file, check_folder, read_json, write_json, write_text
from .drawing import write_figure
from .evidence import HOLDS, format_bound, format_check, format_interval, verdict
from .methods import tuned_runs
from .recipes import RECIPES
from .store import STORE, DivergedError, carry_out_all, made_with

QUICK_SEEDS = 2
ABOUT = """\
Written by `python -m lora_np experiment` from the JSON beside each figure. A verdict is about this model, this data and
these settings, at this size; it neither refutes nor proves the paper. All seeds share one base and one test set of
1,000 snippets, on which an accuracy is known to 1.3 points; no interval includes what other snippets would give.

One protocol holds for every classifier. The learning rate rises over a quarter of the first pass and then falls
linearly to zero. Its peak has the lowest mean validation loss, over two other seeds, on a grid of factors of 2 that
reaches past the best on both sides. The weights that are tested are those of the lowest validation loss, which is a
proper score and scatters less than accuracy. Only the numbers of passes over the data and of training texts differ, and
each experiment states them. After one pass, full fine-tuning is further ahead of LoRA than after the main job's three.

Square brackets, bars and bands are 95 % confidence intervals of the mean over seeds (Student's t). For a comparison,
the difference or the ratio is taken seed by seed first; the mean of ratios is the geometric one. A claim holds here if
the intervals of all its parts are on its side of the bound. It does not hold here if one of them is wholly on the other
side. Otherwise we cannot tell. Each part is decided on its own. Where a claim says that two things are equal, the bound
leaves 0.01 nats of loss, which is about a point of accuracy here.
"""


def recipe(name):
    """The module of an experiment."""
    return import_module(f".recipes.{one_of('experiment', name, RECIPES)}", __package__)


def headline(name):
    """What an experiment is about, in one line."""
    return recipe(name).__doc__.partition("\n")[0]


def runs_of(name, seeds, quick):
    """Name -> training run, for each run that an experiment needs."""
    module = recipe(name)
    return module.runs(seeds, quick) if hasattr(module, "runs") else tuned_runs(module.KEYS, seeds, quick)


def figures(name):
    """File name without suffix -> function that draws it, for each figure of an experiment."""
    return getattr(recipe(name), "FIGURES", None) or {name: recipe(name).draw}


def experiment(name, seeds=5, quick=False, out="figures", store=STORE, executor=None, report=print, json_path=None):
    """Carry out one experiment; write NAME.json and its figures, and the gallery anew.

    Parameters
    ----------
    name : str, of a recipe
    seeds : int, how many
    quick : bool, two seeds of shortened runs: to see that it works, not to learn from
    out : folder to write to
    store, executor, report : see `store.carry_out_all`
    json_path : where to write the JSON, if not to NAME.json in the folder

    Returns
    -------
    dict, what the JSON holds. If runs failed, or a run that the recipe needs diverged, it holds only "failed", and
        nothing is written

    Raises
    ------
    ValueError
        If an argument is unusable.
    """
    module = recipe(name)
    whole_number("seeds", seeds)
    check_folder(out, "out")
    check_folder(store, "store")
    json_path = Path(json_path or Path(out) / f"{name}.json")
    check_file(json_path, "out" if json_path.parent == Path(out) else "json_path", (store,))
    started, seeds = time.perf_counter(), list(range(QUICK_SEEDS if quick else seeds))
    report(f"{name}: {headline(name)}")
    runs = runs_of(name, seeds, quick)
    results, failed, reused = carry_out_all(runs.values(), store, executor, report)
    if failed:
        return {"failed": failed}
    try:
        measured = module.measure(results, runs, seeds, quick)
    except DivergedError as error:
        report(f"  cannot be measured: {error}")
        return {"failed": [{"error": str(error)}]}
    outcome = {
        "experiment": name,
        "title": headline(name),
        "command": f"python -m lora_np experiment {name}" + (" --quick" if quick else f" --seeds {len(seeds)}"),
        "claim": module.CLAIM,
        "caption": module.CAPTION,
        "verdict": verdict(measured["checks"]),
        "quick": quick,
        "seeds": seeds,
        "asides": [],
        **measured,
        "versions": {
            "lora_np": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        "made_with": made_with(*{run.__module__ for run in runs.values()}),
        "reused": reused,
        "runs": results.listed(runs.values()),
        "seconds": time.perf_counter() - started,
    }
    if hasattr(module, "table"):
        report("\n" + "\n".join(markdown(module.table(outcome))) + "\n")
    for kind, beside in (("checks", ""), ("asides", "beside: ")):
        for part in outcome[kind]:
            report(f"  {beside}{format_check(part)}")
    report(f"  {outcome['verdict']}{' (of shortened runs: not to learn from)' * quick}: {module.CLAIM}")
    names = ", ".join(path.name for path in write_outcome(name, outcome, Path(out), json_path))
    n, seconds = len(outcome["runs"]), outcome["seconds"]
    report(f"  {seconds:.0f} s, {reused} of {n} runs were there; {json_path}; {out}: {names}\n")
    return outcome


def write_outcome(name, outcome, folder, json_path):
    """Write the figures, the JSON and the gallery; return the figures' paths. What cannot be drawn is not written."""
    paths = [write_figure(folder / f"{figure}.png", draw, outcome) for figure, draw in figures(name).items()]
    write_json(json_path, outcome)
    if hasattr(recipe(name), "write_more"):
        recipe(name).write_more(outcome, folder)
    write_gallery(folder)
    return paths


def draw_again(name, out="figures"):
    """An experiment's figures with their caption, and the gallery, anew from the JSON in the folder `out`.

    Returns the figures' paths. Raises FileNotFoundError if the JSON is not there, and ValueError if it is not what this
    version writes.
    """
    path = Path(out) / f"{name}.json"
    outcome = read_json(path)
    try:
        return write_outcome(name, outcome | {"caption": recipe(name).CAPTION}, path.parent, path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); carry the experiment out again") from None


# ---------------------------------------------------------------- the gallery


def write_gallery(folder):
    """Write README.md, the gallery of the experiments whose JSON is in a folder, from that alone; return its path.

    A file that is not what an experiment writes is named there, and left out.
    """
    folder = Path(folder)
    rows, sections, odd = [], [], []
    for number, name in enumerate(RECIPES):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            row, lines = section(number, name, read_json(path))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            odd += [f"`{name}.json` is not what this version writes ({error!r}), and is left out.", ""]
        else:
            rows.append(row)
            sections += lines
    lines = ["# The experiments", "", ABOUT, *odd]
    lines += ["| | experiment | the claim | parts that hold |", "|---:|---|---|---|", *rows, ""]
    write_text(folder / "README.md", "\n".join(lines + sections).rstrip("\n") + "\n")
    return folder / "README.md"


def section(number, name, outcome):
    """One experiment: its row in the table of all, and its section as lines of Markdown."""
    title, checks, made = outcome["title"].rstrip("."), outcome["checks"], outcome["versions"]
    holding = sum(part["verdict"] == HOLDS for part in checks)
    row = f"| {number} | [{title}](#{name}) | {outcome['verdict']} | {holding} of {len(checks)} |"
    lines = [f'<a id="{name}"></a>', f"## {number}. {title}", ""]
    lines += [f"**Claim.** {outcome['claim']}", "", f"**Verdict: {outcome['verdict']}.**", ""]
    if hasattr(recipe(name), "table"):
        lines += [*markdown(recipe(name).table(outcome)), ""]
    lines += check_table("| what was measured | mean [95 % interval] | the claim asks for | verdict |", checks)
    if outcome["asides"]:
        lines += ["", "Measured beside it, without a say in the verdict:", ""]
        lines += check_table("| | mean [95 % interval] | expected | |", outcome["asides"])
    lines += [""] + [f"![{title}]({figure}.png)" for figure in figures(name)]
    quick = " A quick look at shortened runs: not to learn from." * outcome["quick"]
    lines += ["", outcome["caption"] + quick, "", f"    {outcome['command']}", ""]
    try:
        same = outcome["made_with"] == made_with(*outcome["made_with"].get("modules", ()))
    except FileNotFoundError:  # a module that this version does not have
        same = False
    other = "" if same else " They are of another version of the code than this page."
    lines += [
        f"{passes(outcome)}{len(outcome['seeds'])} seeds, lora_np {made['lora_np']}, NumPy {made['numpy']}, Python "
        f"{made['python']}, {made['machine']}; {outcome['seconds']:.0f} s with {outcome['reused']} of "
        f"{len(outcome['runs'])} runs kept from before. [Numbers]({name}.json){other}",
        "",
    ]
    return row, lines


def passes(outcome):
    """How often the runs went over which training texts, as the beginning of a sentence."""
    settings = [run["settings"] for run in outcome["runs"] if "epochs" in run.get("settings", ())]
    pairs = {(one["epochs"], one.get("examples") or one.get("domain") or "all") for one in settings}
    texts = [f"{n} pass{'es' * (n > 1)} over {texts} training texts" for n, texts in sorted(pairs, key=str)]
    return ", ".join(texts) + "; " if texts else ""


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
