"""The four figures of the main job, drawn from its JSON alone."""

import io
from pathlib import Path

import numpy as np

from ..formats import write_atomically

# Okabe and Ito's colours, told apart by colour-blind eyes too.
COLOURS = {
    "full": "#0072B2",
    "lora_qv": "#D55E00",
    "lora_vomlp": "#56B4E9",
    "lora_all": "#009E73",
    "head": "#CC79A7",
    "scratch": "#7F7F7F",
    "tfidf": "#000000",
}
STYLE = {
    "figure.dpi": 150,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw_figures(outcome, folder):
    """Draw all figures that the outcome has the numbers for.

    Parameters
    ----------
    outcome : dict, from `main_job` or its JSON file
    folder : where to write the PNG files

    Returns
    -------
    list of Path; a figure that has no run to show is left out
    """
    paths = [write_figure(Path(folder) / f"{name}.png", draw, outcome) for name, draw in FIGURES.items()]
    return [path for path in paths if path is not None]


def write_figure(path, draw, outcome):
    """Draw one figure and write it as PNG.

    Parameters
    ----------
    path : where to
    draw : function, outcome -> matplotlib Figure, or None where there is nothing to show
    outcome : dict, what it draws

    Returns
    -------
    Path, or None
    """
    import matplotlib

    # An object of its own, not pyplot's: no window, no state that a notebook would share.
    with matplotlib.rc_context(STYLE):
        figure = draw(outcome)
        if figure is None:
            return None
        png = io.BytesIO()
        figure.savefig(png, format="png", bbox_inches="tight")
    write_atomically(path, png.getvalue())
    return Path(path)


def new_figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def family(key):
    """A method without its rank: "lora_qv_r8" -> "lora_qv"."""
    return key.rpartition("_r")[0] if key.startswith("lora") else key


def colour(key):
    return COLOURS[family(key)]


def runs_of(outcome, key):
    return [run for run in outcome["runs"] if run["method"] == key]


def seeds_text(outcome):
    n = len(outcome["seeds"])
    return "one seed" if n == 1 else f"mean and standard deviation over {n} seeds"


def parameters_against_accuracy(outcome):
    """Figure 1: trained parameters (log axis) against test accuracy."""
    figure = new_figure(9, 5.4)
    axes = figure.subplots()
    rows = {row["method"]: row for row in outcome["table"]}
    for name in ("lora_qv", "lora_all"):
        curve = [row for key, row in rows.items() if family(key) == name]
        axes.plot(
            [row["trainable"] for row in curve],
            [100 * row["accuracy_mean"] for row in curve],
            color=COLOURS[name],
            alpha=0.5,
            zorder=1,
        )
    labels = {"head": "head only", "full": "full fine-tuning", "scratch": "full, from random weights"}
    labels |= {"lora_qv_r1": "LoRA on q and v", "lora_vomlp_r4": "LoRA on v, o, up and down"}
    labels |= {"lora_all_r8": "LoRA on all linear layers"}
    markers = {"head": "v", "lora_qv": "o", "lora_vomlp": "^", "lora_all": "D", "full": "s", "scratch": "X"}
    for key, row in rows.items():
        axes.errorbar(
            row["trainable"],
            100 * row["accuracy_mean"],
            yerr=100 * row["accuracy_std"] if row["accuracy_std"] is not None else None,
            fmt=markers[family(key)],
            color=colour(key),
            markersize=9,
            capsize=4,
            label=labels.get(key),
        )
        if row["rank"] is not None:
            std = row["accuracy_std"] or 0
            offset, side, end = {
                "lora_qv": ((5, -17), "right", -std),  # below its error bar; the others above theirs
                "lora_vomlp": ((2, 6), "right", std),
                "lora_all": ((-2, 6), "left", std),
            }[family(key)]
            axes.annotate(
                f"r={row['rank']}",
                (row["trainable"], 100 * (row["accuracy_mean"] + end)),
                xytext=offset,
                ha=side,
                color=colour(key),
                textcoords="offset points",
                fontsize=11,
            )
    baseline = 100 * outcome["baseline"]["test_accuracy"]
    axes.axhline(baseline, color=COLOURS["tfidf"], linestyle="--", linewidth=1.2)
    axes.annotate(
        f"tf-idf logistic regression {baseline:.1f} %",
        (0.62, baseline),
        xycoords=("axes fraction", "data"),
        xytext=(0, -17),
        textcoords="offset points",
        fontsize=11,
    )
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(f"Rotten Tomatoes sentiment: what is trained, and how well\n({seeds_text(outcome)})")
    figure.legend(loc="outside lower center", ncols=3, fontsize=11)
    return figure


def update_spectra(outcome):
    """Figure 2: the singular values of ΔW, layer type by layer type, full against LoRA."""
    shown = [("full", "full fine-tuning"), ("lora_all_r8", "LoRA, all linear layers, r=8")]
    shown += [("lora_qv_r8", "LoRA on q and v, r=8")]
    if not any(runs_of(outcome, key) for key, _ in shown):
        return None
    figure = new_figure(13, 7.6)
    grid = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    for axes, kind in zip(grid, ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")):
        lines = []
        for key, label in shown:
            spectra = [
                spectrum
                for run in runs_of(outcome, key)
                for name, spectrum in run["spectra"].items()
                if name.endswith(f"{kind}.weight")
            ]
            if not spectra:
                continue
            sigma = np.array([spectrum["singular_values"] for spectrum in spectra])  # (matrices, n)
            sigma = sigma / sigma[:, :1]
            n = int(np.max(np.sum(sigma > 1e-5, axis=1)))  # beyond LoRA's rank there is rounding alone
            sigma, index = sigma[:, :n], np.arange(1, n + 1)
            axes.plot(index, np.median(sigma, axis=0), color=colour(key), linewidth=2.2, label=label)
            axes.fill_between(index, sigma.min(axis=0), sigma.max(axis=0), color=colour(key), alpha=0.2, linewidth=0)
            ranks = [np.mean([s[field] for s in spectra]) for field in ("stable_rank", "effective_rank", "rank_90")]
            lines.append((colour(key), "{:>6.1f}{:>8.1f}{:>8.1f}".format(*ranks)))
        axes.set_title(kind)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 1.6)  # leaves room for the ranks below the curves
        text = [("black", "stable  effect.   90 %")] + lines
        for row, (shade, line) in enumerate(text):
            axes.text(
                0.03, 0.30 - 0.08 * row, line, color=shade, transform=axes.transAxes, fontsize=10.5, family="monospace"
            )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes in grid[3:]:
        axes.set_xlabel("index i")
    for axes in (grid[0], grid[3]):
        axes.set_ylabel("σᵢ / σ₁ of ΔW")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=12)
    figure.suptitle(
        "Singular values of the update ΔW (median and range over layers and seeds);\n"
        "in figures: mean stable rank, effective rank, and rank that holds 90 % of the energy",
        fontsize=14,
    )
    return figure


def truncated_accuracy(outcome):
    """Figure 3: test accuracy when full fine-tuning's ΔW is cut to rank k."""
    full = runs_of(outcome, "full")
    if not full:
        return None
    figure = new_figure(9, 5.2)
    axes = figure.subplots()
    ranks = sorted(int(k) for k in full[0]["truncation"])
    accuracy = 100 * np.array([[run["truncation"][str(k)] for k in ranks] for run in full])  # (seeds, ranks)
    position = np.arange(len(ranks))
    axes.errorbar(
        position,
        accuracy.mean(axis=0),
        yerr=accuracy.std(axis=0, ddof=1) if len(full) > 1 else None,
        fmt="s-",
        color=COLOURS["full"],
        capsize=4,
        linewidth=2,
        markersize=8,
        label="full fine-tuning, ΔW of every linear layer cut to rank k",
    )
    rows = [row for row in outcome["table"] if row["method"].startswith("lora_qv")]
    axes.errorbar(
        [ranks.index(row["rank"]) for row in rows],
        [100 * row["accuracy_mean"] for row in rows],
        yerr=[np.nan if row["accuracy_std"] is None else 100 * row["accuracy_std"] for row in rows],  # nan: no bar
        fmt="o",
        color=COLOURS["lora_qv"],
        capsize=4,
        markersize=8,
        label="LoRA on q and v, trained at rank k",
    )
    uncut = 100 * np.mean([run["test_accuracy"] for run in full])
    axes.axhline(uncut, color=COLOURS["full"], linestyle=":", label=f"full fine-tuning, uncut: {uncut:.1f} %")
    axes.set_xticks(position, [str(k) for k in ranks])
    axes.set_xlabel("rank k kept of each update (k = 0: the base's linear layers)")
    axes.set_ylabel("test accuracy in %")
    axes.set_title(f"How many directions does the update need? ({seeds_text(outcome)})")
    axes.legend(loc="lower right", fontsize=11)
    return figure


def loss_curves(outcome):
    """Figure 4: training and validation loss of full fine-tuning and LoRA, same batches, same order."""
    shown = [("full", "full fine-tuning"), ("lora_all_r8", "LoRA, all linear, r=8")]
    shown += [("lora_qv_r8", "LoRA on q and v, r=8"), ("lora_qv_r1", "LoRA on q and v, r=1")]
    if not any(runs_of(outcome, key) for key, _ in shown):
        return None
    figure = new_figure(12, 5)
    left, right = figure.subplots(1, 2, sharey=True)
    styles = {"lora_qv_r1": "--"}
    for key, label in shown:
        runs = runs_of(outcome, key)
        if not runs:  # the quick main job leaves some methods out
            continue
        loss = np.array([run["history"]["loss"] for run in runs])  # (seeds, steps)
        width = max(1, loss.shape[1] // 40)
        window = np.ones(width) / width
        smooth = np.array([np.convolve(line, window, mode="valid") for line in loss])
        steps = np.arange(smooth.shape[1]) + width
        band(left, steps, smooth, key, label, styles.get(key, "-"))
        eval_loss = np.array([run["history"]["eval_loss"] for run in runs])
        band(right, runs[0]["history"]["eval_step"], eval_loss, key, label, styles.get(key, "-"))
    left.set_title(f"training loss, running mean over {width} steps")
    right.set_title("validation loss")
    for axes in (left, right):
        axes.set_xlabel("optimiser step")
    left.set_ylabel("cross-entropy in nats per snippet")
    left.legend(loc="lower left", fontsize=11)
    figure.suptitle(
        f"The same batches in the same order: full fine-tuning and LoRA ({seeds_text(outcome)})", fontsize=14
    )
    return figure


def band(axes, x, values, key, label, style):
    """A line at the mean over seeds in a band of one standard deviation."""
    mean = values.mean(axis=0)
    axes.plot(x, mean, style, color=colour(key), label=label, linewidth=2)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(x, mean - std, mean + std, color=colour(key), alpha=0.18, linewidth=0)


FIGURES = {
    "1_parameters_against_accuracy": parameters_against_accuracy,
    "2_update_spectra": update_spectra,
    "3_truncated_accuracy": truncated_accuracy,
    "4_loss_curves": loss_curves,
}
