"""The main job: full fine-tuning and LoRA on real reviews.

A base model is trained on 6,528 Rotten Tomatoes snippets to predict their sentiment: by full fine-tuning, with LoRA on
q and v at several ranks, with LoRA on more layers, and by training only the head. The small base is trained for three
epochs with batches of 32, and MiniLM and SmolLM2 for one epoch with batches of 16. On SmolLM2, two methods are also run
at half their learning rates. The small base is also trained from random weights, to show the value of pretraining.
Logistic regression on tf-idf weights is a baseline without a neural network. With the same seed, all methods see the
same batches in the same order. The methods' training steps are timed in alternation on one thread.
"""

import numpy as np

from .. import main_job_figures
from ..baseline import tfidf_baseline
from ..evidence import ahead, as_good, interval
from ..methods import METHODS, QUICK_ON, by_method, tuned_runs
from ..step_time import compare_step_times
from ..updates import scores_when_cut, spectra

CLAIM = """LoRA performs on par with full fine-tuning or better, although it trains far fewer parameters (Hu et al.
2021, abstract)."""
FIRST = """Figure 1: test accuracy against the number of trainable parameters. Figure 2: singular values of the update
ΔW by kind of layer, relative to the largest."""
THIRD = "Figure 3: test accuracy of full fine-tuning with ΔW truncated to rank k, and of LoRA trained at rank k."
FOURTH = "Figure 4: loss curves on the same batches in the same order."
FIFTH = "Figure 5: the three measures of rank for the ΔW of every matrix in every block."
CAPTION = {base: f"{FIRST} {THIRD} {FOURTH}" for base in ("pretrained", "minilm")}
CAPTION |= {"smollm2": f"{FIRST} {FOURTH} {FIFTH}"}
PASSES = {"pretrained": 3, "minilm": 1, "smollm2": 1}  # epochs
KEYS = {
    "pretrained": ("head", *(f"qv_r{r}" for r in (1, 2, 4, 8, 16)), "vomlp_r4", "all_r1", "all_r8", "full", "scratch"),
    "minilm": ("head", "qv_r1", "qv_r8", "all_r8", "full"),
    "smollm2": ("head", "qv_r1", "qv_r8", "qv_r64", "all_r1", "all_r4", "half_all_r4", "all_r16", "full", "half_full"),
}
QUICK_KEYS = ("head", "qv_r8", "full")
QUICK = {base: {"epochs": 1, "limit": 400} | QUICK_ON[base] for base in KEYS}
QUICK["minilm"]["limit"] = 600  # with fewer snippets, LoRA would hardly be ahead of the head
WORDS_LIMIT = 400  # minimum number of snippets for the quick baseline; fewer would all have the same class
COLUMNS = 4  # on a screen, without the comparisons and sizes
FIGURES = main_job_figures.FIGURES
CUTS = {"pretrained": (0, 1, 2, 4, 8, 16, 32, 64, 128, 256), "minilm": (0, 1, 4, 8, 16)}
QUICK_CUTS = (0, 8)
WITH_SPECTRA = {base: ("full", "all_r8", "qv_r8") for base in CUTS} | {"smollm2": ("full", "all_r4")}
BEST_LORA = {"pretrained": "qv_r16", "minilm": "all_r8", "smollm2": "all_r4"}  # named in the finding
TIMED = {"pretrained": 30, "minilm": 5, "smollm2": 5}  # steps of each method
COMPARED = {  # the reference -> the header of its column
    "full": "− full [over snippets]",
    "half_full": "− full at half the learning rate [over snippets]",
    "words": "− tf-idf [over snippets]",
}


def runs(seeds, quick, base="pretrained"):
    """A dict, (method, seed) -> run."""
    keys, more = (QUICK_KEYS, QUICK[base]) if quick else (KEYS[base], {})
    # Start with the long runs, so that the last run is not a long one.
    longest_first = sorted(keys, key=lambda key: METHODS[key].adapter is not None)
    return tuned_runs(longest_first, seeds, passes=PASSES[base], base=base, **more)


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    base = runs["full", seeds[0]].base
    keys = [key for key in KEYS[base] if key in accuracy]
    full_first = sorted(keys, key=lambda key: key != "full")  # the reference of the other methods' times
    step_time = compare_step_times(3 if quick else TIMED[base], full_first, base)
    baseline, words = tfidf_baseline(max(WORDS_LIMIT, QUICK[base]["limit"]) if quick else None)
    n = min(runs["full", seeds[0]].limit or len(words), len(words))  # snippets that all methods classified
    right = {key: np.mean([right_on_test(results[runs[key, seed]])[:n] for seed in seeds], axis=0) for key in keys}
    right["words"] = words[:n]

    def row(key):
        run = runs[key, seeds[0]]
        numbers = results[run]
        return {
            "method": key,
            "label": METHODS[key].label,
            "rank": run.adapter.r if run.adapter is not None and run.adapter.targets else None,
            "learning_rate": run.learning_rate,
            "trainable": numbers["trainable"],
            "percent": numbers["percent"],
            "accuracy": accuracy[key],
            "loss": loss[key],
            # Intervals over the snippets.
            **{f"less_{one}": list(interval(100 * (right[key] - right[one]))) for one in COMPARED if one in right},
            "step_seconds": step_time[key]["seconds"],
            "optimiser_bytes": 2 * 4 * numbers["trainable"],  # two moments in float32
            "saved_bytes": results.file_bytes(run),
        }

    def near_full(key):
        return as_good(f"{METHODS[key].label} − full fine-tuning: test loss", loss, key, "full")

    asides = [near_full(key) for key in ("vomlp_r4", "all_r4", "all_r8") if key in loss]
    if "all_r4" in loss:
        text = f"{METHODS['all_r4'].label} − full fine-tuning"
        asides.append(ahead(f"{text}: test accuracy", accuracy, "all_r4", "full", by=-2.0))
        text = f"{text}, both at half the learning rate: test accuracy"
        asides.append(ahead(text, accuracy, "half_all_r4", "half_full", by=-2.0))
    if "scratch" in loss:
        asides.append(ahead("full fine-tuning − training from scratch: test accuracy", accuracy, "full", "scratch"))
    shown = [key for key in WITH_SPECTRA[base] if key in loss]
    drawn = [key for key in (*WITH_SPECTRA[base], "qv_r1") if key in loss]
    measured = {
        "checks": [near_full("qv_r8")],
        "asides": asides,
        "rows": [row(key) for key in keys],
        "baseline": baseline,
        "step_time": step_time,
        "spectra": {key: mean_spectra([results.measured(spectra, runs[key, seed]) for seed in seeds]) for key in shown},
        "curves": {key: loss_curve([results[runs[key, seed]] for seed in seeds]) for key in drawn},
    }
    if base in CUTS:
        cut = scores_when_cut(results, [runs["full", seed] for seed in seeds], QUICK_CUTS if quick else CUTS[base])
        measured["cut"] = {k: scores["accuracy"] for k, scores in cut.items()}  # in %, at rank k
    return measured


def right_on_test(numbers):
    """For each test snippet, 1 if it is classified correctly, else 0; padded with zeros to a multiple of 8."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(numbers["test_right"]), np.uint8))


def loss_curve(numbers):
    """The training losses (seeds, chunks of the run) and validation losses (seeds, evaluations) of one method."""
    return {
        "steps": numbers[0]["steps"],
        "loss": [of_seed["loss"] for of_seed in numbers],
        "eval_step": numbers[0]["evaluations"]["step"],
        "eval_loss": [of_seed["evaluations"]["loss"] for of_seed in numbers],
    }


def mean_spectra(of_seeds):
    """A dict, kind of layer -> {"sigma": (n, seeds), "ranks": means over seeds (layers, 3)}; see `spectra`."""
    return {
        kind: {
            "sigma": [list(row) for row in zip(*(of_seed[kind]["sigma"] for of_seed in of_seeds))],
            "ranks": np.mean([of_seed[kind]["ranks"] for of_seed in of_seeds], axis=0).round(3).tolist(),
        }
        for kind in of_seeds[0]
    }


def finding(outcome):
    """The main result in one sentence."""
    rows, base = {row["method"]: row for row in outcome["rows"]}, outcome["base"]
    mean = {key: np.mean(row["accuracy"]) for key, row in rows.items()}
    best = BEST_LORA[base] if BEST_LORA[base] in rows else "qv_r8"
    scores = [f"{METHODS[key].label} {mean[key]:.1f} %" for key in ("head", best, "full")]
    scores += [f"tf-idf {100 * outcome['baseline']['test_accuracy']:.1f} %"]
    gain, percent = mean["full"] - mean["head"], rows[best]["percent"]
    if gain < 1:
        return f"Full fine-tuning gains less than a point over the head alone: {', '.join(scores)}."
    share = 100 * (mean[best] - mean["head"]) / gain
    return (
        f"With {percent:.2g} % of the parameters, LoRA keeps {share:.0f} % of what full fine-tuning gains over the "
        f"frozen model: {', '.join(scores)}."
    )


def table(outcome):
    """The rows of the table as lists of strings, the header first."""
    compared = [other for other in COMPARED if f"less_{other}" in outcome["rows"][0]]
    heads = ["method", "trainable", "%", "test accuracy, %", *(COMPARED[other] for other in compared)]
    lines = [[*heads, "step, ms", "AdamW's moments, kB", "file, kB"]]
    for row in outcome["rows"]:
        sizes = [f"{row[name] / 1e3:,.0f}" for name in ("optimiser_bytes", "saved_bytes")]
        differences = ["" if row["method"] == other else between(row[f"less_{other}"], "+") for other in compared]
        cells = [row["label"], f"{row['trainable']:,}", f"{row['percent']:.3f}", between(interval(row["accuracy"]))]
        lines.append([*cells, *differences, f"{1e3 * row['step_seconds']:,.0f}", *sizes])
    baseline = f"{100 * outcome['baseline']['test_accuracy']:.1f}"
    return [*lines, ["tf-idf logistic regression", "", "", baseline] + [""] * (len(compared) + 3)]


def details(outcome):
    """The measures of ΔW's rank as the rows of a table, the header first."""
    rows = [["ΔW, mean over layers", "stable rank", "effective rank", "rank with 90 % of the energy"]]
    for key, kinds in outcome["spectra"].items():
        for kind, of_kind in kinds.items():
            ranks = np.mean(of_kind["ranks"], axis=0)
            rows.append([f"{METHODS[key].label}, {kind}", *(f"{rank:.1f}" for rank in ranks)])
    return rows


def between(values, sign=""):
    """Format a mean and its interval as text."""
    mean, low, high = values
    return f"{mean:{sign}.1f}" + ("" if low is None else f" [{low:{sign}.1f}, {high:{sign}.1f}]")
