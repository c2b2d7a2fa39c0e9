"""How an experiment is carried out: its runs, its measures, its verdict, and what is written of it.

A recipe (`recipes/`) is a module whose docstring is its method section, with

    CLAIM                    what the paper says, and which paper
    CAPTION                  what to see in the figure
    KEYS                     base -> the methods that are trained on it, each from every seed at its own rate; or
    runs(seeds, quick, base) -> dict, name -> training run that it needs: a dataclass of `runs/`
    measure(results, runs, seeds, quick)   -> dict with "checks" (see `evidence.py`), which decide the verdict; perhaps
                             "asides", checks without a say in it; and whatever the figure shows
    draw(outcome)            -> the figure, from what the JSON holds

and perhaps

    BASES                    the bases that it is carried out on, where that is neither what KEYS says nor the small one
    ON                       base -> other fields of the runs of KEYS
    FIGURES                  base -> file name -> function like `draw`, for a recipe with several figures
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
from ..formats import check_file, check_folder, model_place, read_json, write_json, write_text
from .drawing import write_figure
from .evidence import HOLDS, format_bound, format_check, format_interval, verdict
from .methods import tuned_runs
from .recipes import RECIPES
from .store import STORE, DivergedError, carry_out_all, made_with

QUICK_SEEDS = 2
NAMES = {"smollm2": "SmolLM2, 134.5 million parameters", "pretrained": "the small base, 3.7 million parameters"}
SEEDS = {"smollm2": 3, "pretrained": 5}  # by default
ABOUT = """\
Written by `python -m lora_np experiment` from the JSON beside each figure. A verdict is about this model, this data and
these settings, at this size; it neither refutes nor proves the paper. All seeds share one base and one test set of
1,000 snippets, on which an accuracy is known to 1.3 points; where it is not said, no interval includes what other
snippets would give.

One protocol holds for every classifier. The learning rate rises over a quarter of the first pass and then falls
linearly to zero. Its peak has the lowest mean validation loss, over other seeds, on a grid of factors of 2 that
reaches past the best on both sides. The weights that are tested are those of the lowest validation loss, which is a
proper score and scatters less than accuracy. Only the base, the numbers of passes over the data and of training texts
differ, and each experiment states them. On the small base, full fine-tuning is further ahead of LoRA after one pass
than after the main job's three.

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


def bases_of(name):
    """The bases that an experiment is carried out on, the real one first."""
    module = recipe(name)
    bases = getattr(module, "BASES", None) or getattr(module, "KEYS", ("pretrained",))
    return [base for base in NAMES if base in bases]


def runs_of(name, seeds, quick, base="pretrained"):
    """Name -> training run, for each run that an experiment needs."""
    module = recipe(name)
    if hasattr(module, "runs"):
        return module.runs(seeds, quick, base)
    return tuned_runs(module.KEYS[base], seeds, quick, base=base, **getattr(module, "ON", {}).get(base, {}))


def folder_of(out, base):
    """Where an experiment's files are: those of the small base in `out`, those of another one in a folder there."""
    return Path(out) / ("" if base == "pretrained" else base)


def figures(name, base="pretrained"):
    """File name without suffix -> function that draws it, for each figure of an experiment."""
    module = recipe(name)
    return module.FIGURES[base] if hasattr(module, "FIGURES") else {name: module.draw}


def experiment(
    name,
    seeds=None,
    quick=False,
    out="figures",
    store=STORE,
    executor=None,
    report=print,
    json_path=None,
    base="pretrained",
):
    """Carry out one experiment; write NAME.json and its figures, and the gallery anew.

    Parameters
    ----------
    name : str, of a recipe
    seeds : int, how many; None: `SEEDS`
    quick : bool, two seeds of shortened runs: to see that it works, not to learn from
    out : folder to write to; see `folder_of`
    store, executor, report : see `store.carry_out_all`
    json_path : where to write the JSON, if not to NAME.json in the folder
    base : "pretrained" or "smollm2", which the recipe has to know

    Returns
    -------
    dict, what the JSON holds. If runs failed, or a run that the recipe needs diverged, it holds only "failed", and
        nothing is written

    Raises
    ------
    ValueError
        If an argument is unusable.
    """
    module, base = recipe(name), one_of("base", base, bases_of(name))
    seeds = whole_number("seeds", SEEDS[base] if seeds is None else seeds)
    model_place(base)  # or the error says how to install it
    check_folder(out, "out")
    check_folder(store, "store")
    folder = folder_of(out, base)
    json_path = Path(json_path or folder / f"{name}.json")
    check_file(json_path, "out" if json_path.parent == folder else "json_path", (store,))
    started, seeds = time.perf_counter(), list(range(QUICK_SEEDS if quick else seeds))
    report(f"{name}: {headline(name)}")
    runs = runs_of(name, seeds, quick, base)
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
        "base": base,
        "command": " ".join(
            ["python -m lora_np experiment", name]
            + [f"--base {base}"] * (base != "pretrained")
            + ["--quick" if quick else f"--seeds {len(seeds)}"]
        ),
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
    names = ", ".join(path.name for path in write_outcome(name, outcome, out, json_path))
    n, seconds = len(outcome["runs"]), outcome["seconds"]
    report(f"  {seconds:.0f} s, {reused} of {n} runs were there; {json_path}; {folder}: {names}\n")
    return outcome


def write_outcome(name, outcome, out, json_path):
    """Write the figures, the JSON and the gallery; return the figures' paths. What cannot be drawn is not written."""
    folder, of_base = folder_of(out, outcome["base"]), figures(name, outcome["base"])
    paths = [write_figure(folder / f"{figure}.png", draw, outcome) for figure, draw in of_base.items()]
    write_json(json_path, outcome)
    if hasattr(recipe(name), "write_more"):
        recipe(name).write_more(outcome, folder)
    write_gallery(out)
    return paths


def draw_again(name, out="figures", base="pretrained"):
    """An experiment's figures with their caption, and the gallery, anew from its JSON.

    Returns the figures' paths. Raises FileNotFoundError if the JSON is not there, and ValueError if it is not what this
    version writes.
    """
    path = folder_of(out, base) / f"{name}.json"
    outcome = read_json(path)
    try:
        return write_outcome(name, outcome | {"caption": recipe(name).CAPTION}, out, path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: written by another version ({error!r}); carry the experiment out again") from None


# ---------------------------------------------------------------- the gallery


def write_gallery(out):
    """Write README.md, the gallery of the experiments whose JSON is in a folder, from that alone; return its path.

    A file that is not what an experiment writes is named there, and left out.
    """
    out, rows, sections, odd = Path(out), [], [], []
    for number, name in enumerate(RECIPES):
        verdicts, lines = {}, []
        for base in bases_of(name):
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
    heads = ["| | experiment | on SmolLM2 | on the small base |", "|---:|---|---|---|"]
    lines = ["# The experiments", "", ABOUT, *odd, *heads, *rows, "", *sections]
    write_text(out / "README.md", "\n".join(lines).rstrip("\n") + "\n")
    return out / "README.md"


def summary(outcome):
    """An experiment's verdict, and how many parts of its claim hold."""
    checks = outcome["checks"]
    holding = sum(part["verdict"] == HOLDS for part in checks)
    return f"{outcome['verdict']}, {holding} of {len(checks)}"


def section(name, base, outcome):
    """One experiment on one base, as lines of Markdown."""
    title, checks, made = outcome["title"].rstrip("."), outcome["checks"], outcome["versions"]
    lines = [f"### On {NAMES[base]}", "", f"**Claim.** {outcome['claim']}", ""]
    lines += [f"**Verdict: {outcome['verdict']}.**", ""]
    if hasattr(recipe(name), "table"):
        lines += [*markdown(recipe(name).table(outcome)), ""]
    lines += check_table("| what was measured | mean [95 % interval] | the claim asks for | verdict |", checks)
    if outcome["asides"]:
        lines += ["", "Measured beside it, without a say in the verdict:", ""]
        lines += check_table("| | mean [95 % interval] | expected | |", outcome["asides"])
    folder = folder_of("", base)
    lines += [""] + [f"![{title}]({(folder / figure).as_posix()}.png)" for figure in figures(name, base)]
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
