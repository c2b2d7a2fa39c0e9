"""The main job: full fine-tuning next to LoRA on real reviews.

The base is taught Rotten Tomatoes' sentiment in three passes over 6,528 snippets: in full, with a head alone, with LoRA
on q and v at ranks 1 to 16, and with LoRA in more places. Full training from random weights shows what pretraining is
worth, and logistic regression on tf-idf weights what words alone say. Every method of a seed sees the same batches in
the same order. Steps are timed in turns on one thread.
"""

import numpy as np

from ...analysis import spectrum
from ..baseline import tfidf_baseline
from ..drawing import COLOURS, colour, curve, legend_below, mean_line, means, new_figure, panels, seeds_text
from ..evidence import ahead, as_good, interval
from ..methods import ATTENTION, METHODS, MLP, by_method, tuned_runs
from ..step_time import compare_step_times
from ..updates import draw_cut, scores_when_cut, updates_of

CLAIM = (
    "LoRA is on a par with full fine-tuning, or better, although it trains far fewer parameters (Hu et al. 2021, "
    "abstract)."
)
CAPTION = (
    "1: trained parameters against test accuracy. 2: singular values of each kind of layer's update ΔW, as a share of "
    "the largest; the numbers are the mean stable rank, effective rank, and rank that holds 90 % of the energy. 3: "
    "test accuracy when full fine-tuning's ΔW is cut to rank k, next to LoRA trained at rank k. 4: loss curves on the "
    "same batches in the same order."
)
PASSES = 3
QV = tuple(f"qv_r{r}" for r in (1, 2, 4, 8, 16))
KEYS = ("head", *QV, "vomlp_r4", "all_r1", "all_r8", "full", "scratch")
QUICK_KEYS, QUICK = ("head", "qv_r1", "qv_r8", "full"), {"epochs": 1, "limit": 400}
CUTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
KINDS = (*ATTENTION, *MLP)
WITH_SPECTRA = ("full", "all_r8", "qv_r8")
WITH_CURVES = (*WITH_SPECTRA, "qv_r1")


def runs(seeds, quick):
    keys, more = (QUICK_KEYS, QUICK) if quick else (KEYS, {})
    # The long ones first, so that none is left to run alone at the end.
    return tuned_runs(sorted(keys, key=lambda key: METHODS[key].adapter is not None), seeds, passes=PASSES, **more)


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    keys, rows = [key for key in KEYS if key in accuracy], []
    step_time = compare_step_times(5 if quick else 30, keys=sorted(keys, key=lambda key: key != "full"))
    for key in keys:
        run = runs[key, seeds[0]]
        numbers = results[run]
        rows.append(
            {
                "method": key,
                "label": METHODS[key].label,
                "rank": run.adapter.r if run.adapter is not None and run.adapter.targets else None,
                "learning_rate": run.learning_rate,
                "trainable": numbers["trainable"],
                "percent": numbers["percent"],
                "accuracy": accuracy[key],
                "loss": loss[key],
                "step_seconds": step_time[key]["seconds"],
                "optimiser_bytes": 2 * 4 * numbers["trainable"],  # two moments in float32
                "saved_bytes": results.file_bytes(run),
            }
        )

    def near_full(key):
        return as_good(f"{METHODS[key].label} less full fine-tuning: test loss", loss, key, "full")

    asides = [near_full(key) for key in ("vomlp_r4", "all_r8") if key in loss]
    if "scratch" in loss:
        asides.append(ahead("full less full from random weights: accuracy", accuracy, "full", "scratch"))
    cut = scores_when_cut(results, [runs["full", seed] for seed in seeds], CUTS)
    return {
        "checks": [near_full("qv_r8")],
        "asides": asides,
        "rows": rows,
        "baseline": tfidf_baseline(runs["full", seeds[0]].limit),
        "step_time": step_time,
        "spectra": spectra(results, runs),
        "cut": {k: scores["accuracy"] for k, scores in cut.items()},  # in %, at rank k
        "curves": {key: loss_curve([results[runs[key, seed]] for seed in seeds]) for key in WITH_CURVES if key in loss},
    }


def loss_curve(numbers):
    """The losses along training of one method's runs: (seeds, parts of the run), and (seeds, evaluations)."""
    return {
        "steps": numbers[0]["steps"],
        "loss": [of_seed["loss"] for of_seed in numbers],
        "eval_step": numbers[0]["evaluations"]["step"],
        "eval_loss": [of_seed["evaluations"]["loss"] for of_seed in numbers],
    }


def spectra(results, runs):
    """Method -> kind of layer -> singular values of ΔW and its ranks.

    "sigma" (n, seeds) are shares of the largest, the geometric mean over layers; "ranks" are the means over layers and
    seeds of stable rank, effective rank and rank_90.
    """
    measured = {}
    for key in WITH_SPECTRA:
        updates = [updates_of(results, run) for (method, _), run in runs.items() if method == key]
        n = None if key == "full" else METHODS[key].adapter.r  # an adapter's ΔW has r directions
        for kind in KINDS:
            of_kind = [
                [spectrum(update) for name, update in of_seed.items() if name.endswith(f"{kind}.weight")]
                for of_seed in updates
            ]
            if not any(of_kind):
                continue
            sigma = np.array([[s.singular_values[:n] / s.singular_values[0] for s in of_seed] for of_seed in of_kind])
            sigma = np.exp(np.log(np.maximum(sigma, 1e-12)).mean(axis=1)).T  # (n, seeds)
            ranks = [[(s.stable_rank, s.effective_rank, s.rank_90) for s in of_seed] for of_seed in of_kind]
            measured.setdefault(key, {})[kind] = {
                "sigma": [[float(f"{value:.4g}") for value in row] for row in sigma],
                "ranks": np.mean(ranks, axis=1).mean(axis=0).round(3).tolist(),
            }
    return measured


def table(outcome):
    """The table as rows of texts, the heads first."""
    lines = [["method", "rank", "trained", "%", "test accuracy %", "step ms", "optimiser kB", "saved kB"]]
    for row in outcome["rows"]:
        mean, low, high = interval(row["accuracy"])
        between = "" if low is None else f" [{low:.1f}, {high:.1f}]"
        sizes = [f"{row[name] / 1e3:,.0f}" for name in ("optimiser_bytes", "saved_bytes")]
        trained = [row["label"], str(row["rank"] or ""), f"{row['trainable']:,}", f"{row['percent']:.3f}"]
        lines.append([*trained, f"{mean:.1f}{between}", f"{1e3 * row['step_seconds']:.0f}", *sizes])
    baseline = f"{100 * outcome['baseline']['test_accuracy']:.1f}"
    return [*lines, ["tf-idf logistic regression", "", "", "", baseline, "", "", ""]]


# ---------------------------------------------------------------- the figures

# Label, marker, and where the ranks are written: offset in points, side, above (1) or below (−1) the interval.
FAMILIES = {
    "head": ("head only", "v", None),
    "qv": ("LoRA on q and v", "o", ((5, -17), "right", -1)),
    "vomlp": ("LoRA on v, o, up and down", "^", ((2, 6), "right", 1)),
    "all": ("LoRA on all linear layers", "D", ((-2, 6), "left", 1)),
    "full": ("full fine-tuning", "s", None),
    "scratch": ("full, from random weights", "X", None),
}


def parameters_against_accuracy(outcome):
    """Figure 1: trained parameters (log axis) against test accuracy."""
    title = "Rotten Tomatoes sentiment: what is trained, and how well\n"
    figure, axes = panels(outcome, title, 9, 5.4)
    small = {"textcoords": "offset points", "fontsize": 11}
    for family, (label, marker, place) in FAMILIES.items():
        rows = [row for row in outcome["rows"] if row["method"].partition("_r")[0] == family]
        if not rows:
            continue
        trained, accuracy = [row["trainable"] for row in rows], [row["accuracy"] for row in rows]
        mean_line(axes, trained, accuracy, colour(family), label, marker)
        if place is not None:
            offset, side, end = place
            mean, (reach, _) = means(accuracy)
            for row, *point in zip(rows, trained, mean + end * np.nan_to_num(reach)):
                axes.annotate(f"r={row['rank']}", point, xytext=offset, ha=side, color=colour(family), **small)
    baseline = 100 * outcome["baseline"]["test_accuracy"]
    axes.axhline(baseline, color=COLOURS["tfidf"], linestyle="--", linewidth=1.2)
    text, place = f"tf-idf logistic regression {baseline:.1f} %", (0.62, baseline)
    axes.annotate(text, place, xycoords=("axes fraction", "data"), xytext=(0, -17), **small)
    axes.set(xscale="log", xlabel="trained parameters", ylabel="test accuracy in %")
    legend_below(figure, axes, 3)
    return figure


def update_spectra(outcome):
    """Figure 2: the singular values of ΔW, one kind of layer after the other, full next to LoRA."""
    figure = new_figure(13, 7.6)
    grid = figure.subplots(2, 3, sharex=True, sharey=True)
    style = {"fontsize": 10.5, "family": "monospace"}
    for axes, kind in zip(grid.ravel(), KINDS):
        axes.text(0.03, 0.30, "stable  effect.   90 %", color="black", transform=axes.transAxes, **style)
        shown = {key: of_key[kind] for key, of_key in outcome["spectra"].items() if kind in of_key}
        for row, (key, of_kind) in enumerate(shown.items(), 1):
            sigma, ranks = of_kind["sigma"], "{:>6.1f}{:>8.1f}{:>8.1f}".format(*of_kind["ranks"])
            curve(axes, range(1, len(sigma) + 1), sigma, colour(key), METHODS[key].label, log=True)
            axes.text(0.03, 0.30 - 0.08 * row, ranks, color=colour(key), transform=axes.transAxes, **style)
        axes.set(title=kind, yscale="log", ylim=(1e-4, 1.6))  # leaves room for the ranks below the curves
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel="index i", ylabel="σᵢ / σ₁ of ΔW")
        axes.label_outer()
    legend_below(figure, grid[0, 0], 3)
    figure.suptitle(
        f"Singular values of the update ΔW (geometric mean over layers; {seeds_text(outcome)});\n"
        "in figures: mean stable rank, effective rank, and rank that holds 90 % of the energy",
        fontsize=14,
    )
    return figure


def truncated_accuracy(outcome):
    """Figure 3: test accuracy when full fine-tuning's ΔW is cut to rank k."""
    figure, axes = panels(outcome, "How many directions does the update need?", 9, 5.2)
    rows = {row["method"]: row for row in outcome["rows"]}
    lora = {str(rows[key]["rank"]): rows[key]["accuracy"] for key in QV if key in rows}
    name = "lora_qv", "LoRA on q and v, trained at that rank", "o"
    draw_cut(axes, outcome["cut"], rows["full"]["accuracy"], lora, name, style="")
    return figure


def loss_curves(outcome):
    """Figure 4: training and validation loss of full fine-tuning and LoRA, same batches, same order."""
    title = "The same batches in the same order: full fine-tuning and LoRA"
    figure, (left, right) = panels(outcome, title, 12, 5, 2, sharey=True)
    for key, of_key in outcome["curves"].items():
        line = colour(key), METHODS[key].label, "--" if key == "qv_r1" else "-"
        n = len(of_key["loss"][0])
        steps = (np.arange(n) + 0.5) * of_key["steps"] / n  # each number is the mean of a part of the run
        curve(left, steps, np.transpose(of_key["loss"]), *line)
        curve(right, of_key["eval_step"], np.transpose(of_key["eval_loss"]), *line)
    title = f"training loss, means of {n} parts of the run"
    left.set(title=title, xlabel="optimiser step", ylabel="cross-entropy in nats per snippet")
    right.set(title="validation loss", xlabel="optimiser step")
    left.legend(loc="lower left")
    return figure


FIGURES = {
    "1_parameters_against_accuracy": parameters_against_accuracy,
    "2_update_spectra": update_spectra,
    "3_truncated_accuracy": truncated_accuracy,
    "4_loss_curves": loss_curves,
}
