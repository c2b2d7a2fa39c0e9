"""Plot the main job's figures from its JSON."""

import numpy as np

from ..tasks.pictures import new_figure
from .drawing import colour, curve, legend_below, mean_line, means, panels, plain_numbers, seeds_text
from .methods import METHODS, by_rank

# Label, marker, and position of the rank labels: offset in points, alignment, above (1) or below (−1) the interval.
FAMILIES = {
    "qv": ("LoRA on q and v", "o", ((5, -17), "right", -1)),
    "all": ("LoRA on all linear layers", "D", ((-6, 5), "right", 1)),
}
# Label, marker, and position of the label: offset in points, and alignment.
SINGLE = {
    "head": ("only the head", "v", ((9, -4), "left")),
    "full": ("full\nfine-tuning", "s", ((-10, -14), "right")),
}


def parameters_against_accuracy(outcome):
    """Figure 1: test accuracy against the number of trained parameters (log axis)."""
    figure, axes = panels(outcome, "Trained parameters and accuracy on film snippets\n", 9, 5.4)
    small = {"textcoords": "offset points", "fontsize": 12}
    accuracies, trainable = outcome["accuracy"], outcome["trainable"]
    for family, (label, marker, (offset, side, end)) in FAMILIES.items():
        trained, accuracy = (by_rank(table, family) for table in (trainable, accuracies))
        if trained:
            mean_line(axes, {trained[r]: accuracy[r] for r in trained}, colour(family), label, marker)
            mean, (reach, _) = means(accuracy.values())
            for (r, x), y in zip(trained.items(), mean + end * np.nan_to_num(reach)):
                axes.annotate(f"r={r}", (x, y), xytext=offset, ha=side, color=colour(family), **small)
    for key, (label, marker, (offset, side)) in SINGLE.items():
        if key in trainable:
            mean_line(axes, {trainable[key]: accuracies[key]}, colour(key), None, marker)
            point = trainable[key], np.mean(accuracies[key])
            axes.annotate(label, point, xytext=offset, ha=side, color=colour(key), weight="bold", **small)
    baseline = np.mean(accuracies["tfidf"])
    axes.axhline(baseline, color=colour("tfidf"), linestyle="--", linewidth=1.2)
    text, place = f"tf-idf logistic regression {baseline:.1f} %", (0.62, baseline)
    low, high = axes.get_ylim()
    offset = -17 if baseline - low > 0.08 * (high - low) else 5  # above the line if there is no room below it
    axes.annotate(text, place, xycoords=("axes fraction", "data"), xytext=(0, offset), **small)
    axes.set(xscale="log", xlabel="trained parameters", ylabel="test accuracy in %")
    legend_below(figure, axes, 3)
    return figure


def update_spectra(outcome):
    """Figure 2: the singular values of ΔW by kind of layer, for full fine-tuning and LoRA."""
    kinds = list(outcome["spectra"]["full"])
    figure = new_figure(13 if len(kinds) <= 6 else 17, 7.6)
    grid = figure.subplots(2, (len(kinds) + 1) // 2, sharex=True, sharey=True, squeeze=False)
    for axes in grid.ravel()[len(kinds) :]:
        axes.set_visible(False)
    for axes, kind in zip(grid.ravel(), kinds):
        for key in (key for key, kinds_of in outcome["spectra"].items() if kind in kinds_of):
            sigma = outcome["spectra"][key][kind]["sigma"]
            curve(axes, range(1, len(sigma) + 1), sigma, colour(key), METHODS[key].label, log=True)
        axes.set(title=kind, yscale="log", ylim=(1e-4, 1.6))
        axes.set_xscale("log", base=2)
        plain_numbers(axes.xaxis)
        axes.set(xlabel="index i", ylabel="σᵢ / σ₁ of ΔW")
        axes.label_outer()
    for axes in grid[0, np.arange(grid.shape[1]) >= len(kinds) - grid.shape[1]]:  # no panel is below these
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("index i")
    legend_below(figure, grid[0, 0], 3)
    title = f"Singular values of the update ΔW\n(geometric mean over layers; {seeds_text(outcome)})"
    figure.suptitle(title, fontsize=14)
    return figure


FIGURES = {"1_parameters_against_accuracy": parameters_against_accuracy, "2_update_spectra": update_spectra}
