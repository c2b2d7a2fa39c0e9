"""The main job: full fine-tuning next to LoRA on real reviews.

The base is taught Rotten Tomatoes' sentiment in three passes over 6,528 snippets: in full, with a head alone, with LoRA
on q and v at ranks 1 to 16, and with LoRA in more places. Full training from random weights shows what pretraining is
worth, and logistic regression on tf-idf weights what words alone say. Every method of a seed sees the same batches in
the same order. Steps are timed in turns on one thread.
"""

import numpy as np

from ...adapters import Adapter, adapter_deltas
from ...analysis import linear_updates, spectrum, truncated_updates
from ...training import blas_threads
from ..baseline import tfidf_baseline
from ..drawing import COLOURS, band, colour, curve, mean_line, means, new_figure, seeds_text
from ..evidence import EQUAL, check, differences, interval
from ..methods import METHODS, by_method, tuned_runs
from ..runs.classify import load_snippets, score, starting_point
from ..step_time import compare_step_times

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
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
WITH_SPECTRA = ("full", "all_r8", "qv_r8")
WITH_CURVES = ("full", "all_r8", "qv_r8", "qv_r1")


def runs(seeds, quick):
    keys, more = (QUICK_KEYS, QUICK) if quick else (KEYS, {})
    grid = tuned_runs(keys, seeds, passes=PASSES, **more)
    # The long ones first, so that none is left to run alone at the end.
    return dict(sorted(grid.items(), key=lambda item: item[1].adapter is not None))


def measure(results, runs, seeds, quick):
    keys = [key for key in KEYS if (key, seeds[0]) in runs]
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    step_time = compare_step_times(5 if quick else 30, keys=("full", *(key for key in keys if key != "full")))
    rows = []
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

    def worse(key):
        text = f"{METHODS[key].label} less full fine-tuning: test loss"
        return check(text, differences(loss[key], loss["full"]), at_most=EQUAL, unit="nats")

    asides = [worse(key) for key in ("vomlp_r4", "all_r8") if key in loss]
    if "scratch" in loss:
        gain = differences(accuracy["full"], accuracy["scratch"])
        asides.append(check("full less full from random weights: accuracy", gain, at_least=0.0, unit="points"))
    return {
        "checks": [worse("qv_r8")],
        "asides": asides,
        "rows": rows,
        "baseline": tfidf_baseline(runs["full", seeds[0]].limit),
        "step_time": step_time,
        "spectra": spectra(results, runs),
        "cut": cut_accuracy(results, runs),
        "curves": {key: loss_curve(results, runs, key, seeds) for key in WITH_CURVES if key in keys},
    }


def loss_curve(results, runs, key, seeds):
    """One method's losses along training: (seeds, parts of the run), and (seeds, evaluations)."""
    numbers = [results[runs[key, seed]] for seed in seeds]
    return {
        "steps": numbers[0]["steps"],
        "loss": [of_seed["loss"] for of_seed in numbers],
        "eval_step": numbers[0]["evaluations"]["step"],
        "eval_loss": [of_seed["evaluations"]["loss"] for of_seed in numbers],
    }


def updates_of(results, run):
    """The update ΔW of each linear layer that a run changed."""
    params, _, start = starting_point(run)
    if start is None:
        return linear_updates(params, results.arrays(run))
    return adapter_deltas(params, Adapter(start.config, results.arrays(run)))


def spectra(results, runs):
    """Method -> kind of layer -> singular values of ΔW and its ranks.

    Returns
    -------
    dict; "sigma" (n, seeds), shares of the largest, the geometric mean over layers; "ranks", the means over layers and
        seeds of stable rank, effective rank and rank_90
    """
    measured = {}
    for (key, _), run in runs.items():
        if key not in WITH_SPECTRA:
            continue
        updates = updates_of(results, run)
        for kind in KINDS:
            of_kind = [spectrum(update) for name, update in updates.items() if name.endswith(f"{kind}.weight")]
            if not of_kind:
                continue
            n = run.adapter.r if run.adapter is not None else len(of_kind[0].singular_values)
            sigma = np.array([s.singular_values[:n] / s.singular_values[0] for s in of_kind])
            entry = measured.setdefault(key, {}).setdefault(kind, {"sigma": [], "ranks": []})
            entry["sigma"].append(np.exp(np.log(np.maximum(sigma, 1e-12)).mean(axis=0)))
            entry["ranks"].append(np.mean([(s.stable_rank, s.effective_rank, s.rank_90) for s in of_kind], axis=0))
    for of_key in measured.values():
        for entry in of_key.values():
            entry["sigma"] = [[float(f"{value:.4g}") for value in row] for row in np.transpose(entry["sigma"])]
            entry["ranks"] = np.mean(entry["ranks"], axis=0).round(3).tolist()
    return {key: measured[key] for key in WITH_SPECTRA if key in measured}


def cut_accuracy(results, runs):
    """Rank k -> test accuracy in % of full fine-tuning with every ΔW cut to rank k, one number a seed."""
    accuracy = {str(k): [] for k in CUTS}
    for (key, _), run in runs.items():
        if key == "full":
            params, config, _ = starting_point(run)
            with blas_threads(1):
                for k, model in truncated_updates(params, results.arrays(run), CUTS):
                    scores = score(model, None, config, load_snippets(run.limit), "test")
                    accuracy[str(k)].append(100 * scores["accuracy"])
    return accuracy


# ---------------------------------------------------------------- the table


def table(outcome):
    """The table as rows of texts, the heads first."""
    lines = [["method", "rank", "trained", "%", "test accuracy %", "step ms", "optimiser kB", "saved kB"]]
    for row in outcome["rows"]:
        mean, low, high = interval(row["accuracy"])
        lines.append(
            [
                row["label"],
                str(row["rank"] or ""),
                f"{row['trainable']:,}",
                f"{row['percent']:.3f}",
                f"{mean:.1f}" + ("" if low is None else f" [{low:.1f}, {high:.1f}]"),
                f"{1e3 * row['step_seconds']:.0f}",
                f"{row['optimiser_bytes'] / 1e3:,.0f}",
                f"{row['saved_bytes'] / 1e3:,.0f}",
            ]
        )
    baseline = f"{100 * outcome['baseline']['test_accuracy']:.1f}"
    return [*lines, ["tf-idf logistic regression", "", "", "", baseline, "", "", ""]]


# ---------------------------------------------------------------- the figures


def parameters_against_accuracy(outcome):
    """Figure 1: trained parameters (log axis) against test accuracy."""
    figure = new_figure(9, 5.4)
    axes = figure.subplots()
    rows = {row["method"]: row for row in outcome["rows"]}
    for name, family in (("lora_qv", "qv_r"), ("lora_all", "all_r")):
        points = [row for key, row in rows.items() if key.startswith(family)]
        means_of = [np.mean(row["accuracy"]) for row in points]
        axes.plot([row["trainable"] for row in points], means_of, color=COLOURS[name], alpha=0.5, zorder=1)
    labels = {"head": "head only", "full": "full fine-tuning", "scratch": "full, from random weights"}
    labels |= {"qv_r1": "LoRA on q and v", "vomlp_r4": "LoRA on v, o, up and down"}
    labels |= {"all_r8": "LoRA on all linear layers"}
    markers = {"head": "v", "qv": "o", "vomlp": "^", "all": "D", "full": "s", "scratch": "X"}
    # Where a rank stands: the offset in points, the side, and above (1) or below (−1) the interval.
    places = {"qv": ((5, -17), "right", -1), "vomlp": ((2, 6), "right", 1), "all": ((-2, 6), "left", 1)}
    for key, row in rows.items():
        family = key.partition("_r")[0]
        mean_line(axes, [row["trainable"]], [row["accuracy"]], colour(key), labels.get(key), markers[family], "")
        if row["rank"] is not None:
            (mean,), reach = means([row["accuracy"]])
            offset, side, end = places[family]
            axes.annotate(
                f"r={row['rank']}", (row["trainable"], mean + end * np.nan_to_num(reach[0, 0])), xytext=offset, ha=side,
                color=colour(key), textcoords="offset points", fontsize=11,
            )  # fmt: skip
    baseline = 100 * outcome["baseline"]["test_accuracy"]
    axes.axhline(baseline, color=COLOURS["tfidf"], linestyle="--", linewidth=1.2)
    axes.annotate(
        f"tf-idf logistic regression {baseline:.1f} %", (0.62, baseline), xycoords=("axes fraction", "data"),
        xytext=(0, -17), textcoords="offset points", fontsize=11,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(f"Rotten Tomatoes sentiment: what is trained, and how well\n({seeds_text(outcome)})")
    figure.legend(loc="outside lower center", ncols=3, fontsize=11)
    return figure


def update_spectra(outcome):
    """Figure 2: the singular values of ΔW, one kind of layer after the other, full next to LoRA."""
    figure = new_figure(13, 7.6)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, kind in zip(panels.ravel(), KINDS):
        lines = [("black", "stable  effect.   90 %")]
        for key, of_key in outcome["spectra"].items():
            if kind in of_key:
                sigma = of_key[kind]["sigma"]
                curve(axes, range(1, len(sigma) + 1), sigma, colour(key), METHODS[key].label, log=True)
                lines.append((colour(key), "{:>6.1f}{:>8.1f}{:>8.1f}".format(*of_key[kind]["ranks"])))
        for row, (shade, line) in enumerate(lines):
            axes.text(
                0.03, 0.30 - 0.08 * row, line, color=shade, transform=axes.transAxes, fontsize=10.5, family="monospace"
            )
        axes.set_title(kind)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 1.6)  # leaves room for the ranks below the curves
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes in panels[1]:
        axes.set_xlabel("index i")
    for axes in panels[:, 0]:
        axes.set_ylabel("σᵢ / σ₁ of ΔW")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=12)
    figure.suptitle(
        f"Singular values of the update ΔW (geometric mean over layers; {seeds_text(outcome)});\n"
        "in figures: mean stable rank, effective rank, and rank that holds 90 % of the energy",
        fontsize=14,
    )
    return figure


def truncated_accuracy(outcome):
    """Figure 3: test accuracy when full fine-tuning's ΔW is cut to rank k."""
    figure = new_figure(9, 5.2)
    axes = figure.subplots()
    text = "full fine-tuning, ΔW of every linear layer cut to rank k"
    mean_line(axes, range(len(CUTS)), list(outcome["cut"].values()), COLOURS["full"], text, "s")
    rows = {row["method"]: row for row in outcome["rows"]}
    lora = [rows[key] for key in QV if key in rows]
    places = [CUTS.index(row["rank"]) for row in lora]
    accuracy = [row["accuracy"] for row in lora]
    mean_line(axes, places, accuracy, COLOURS["lora_qv"], "LoRA on q and v, trained at rank k", "o", "")
    uncut = rows["full"]["accuracy"]
    band(axes, uncut, COLOURS["full"], f"full fine-tuning, uncut: {np.mean(uncut):.1f} %")
    axes.set_xticks(range(len(CUTS)), [str(k) for k in CUTS])
    axes.set_xlabel("rank k that is left of each update (k = 0: the base's linear layers)")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(f"How many directions does the update need? ({seeds_text(outcome)})")
    axes.legend(loc="lower right", fontsize=11)
    return figure


def loss_curves(outcome):
    """Figure 4: training and validation loss of full fine-tuning and LoRA, same batches, same order."""
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2, sharey=True)
    for key, of_key in outcome["curves"].items():
        line = colour(key), METHODS[key].label, "--" if key == "qv_r1" else "-"
        n = len(of_key["loss"][0])
        steps = (np.arange(n) + 0.5) * of_key["steps"] / n  # each number is the mean of a part of the run
        curve(left, steps, np.transpose(of_key["loss"]), *line)
        curve(right, of_key["eval_step"], np.transpose(of_key["eval_loss"]), *line)
    left.set_title(f"training loss, means of {n} parts of the run")
    right.set_title("validation loss")
    for axes in (left, right):
        axes.set_xlabel("optimiser step")
    left.set_ylabel("cross-entropy in nats per snippet")
    left.legend(loc="lower left", fontsize=11)
    figure.suptitle(
        f"The same batches in the same order: full fine-tuning and LoRA ({seeds_text(outcome)})", fontsize=14
    )
    return figure


FIGURES = {
    "1_parameters_against_accuracy": parameters_against_accuracy,
    "2_update_spectra": update_spectra,
    "3_truncated_accuracy": truncated_accuracy,
    "4_loss_curves": loss_curves,
}
