"""What the laboratory's figures have in common: means over seeds with their 95 % intervals, and heat maps."""

import numpy as np

from .evidence import interval
from .figures import COLOURS, new_figure

GREY = "#7F7F7F"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", GREY)

__all__ = [
    "COLOURS",
    "GREY",
    "PALETTE",
    "band",
    "dots",
    "heat_map",
    "log_axis",
    "mark_mean",
    "mean_line",
    "new_figure",
    "seeds_text",
]


def seeds_text(outcome):
    """What the marks of a figure are."""
    n = len(outcome["seeds"])
    return "one seed" if n == 1 else f"mean and 95 % interval over {n} seeds"


def half_width(values):
    """Half the 95 % interval of each row's mean; nan, which draws no bar, from one seed."""
    found = [interval(row) for row in values]
    return [np.nan if i.low is None else i.mean - i.low for i in found]


def mean_line(axes, x, values, colour, label, marker="o", style="-", log=False):
    """A line through the means, with intervals as bars.

    Parameters
    ----------
    axes : matplotlib Axes
    x : (n,) numbers
    values : (n, seeds)
    log : bool, geometric means, and the intervals of the logarithms, for an axis of that kind
    """
    values = np.log(values) if log else np.asarray(values)
    means, half = values.mean(axis=1), np.array(half_width(values))
    if log:
        means, half = np.exp(means), np.exp(means) * np.array([1 - np.exp(-half), np.exp(half) - 1])
    axes.errorbar(
        x, means, yerr=half, fmt=marker + style, color=colour, label=label, capsize=4, linewidth=1.8, markersize=7
    )


def band(axes, values, colour, label):
    """A method that has no place on the x axis: a line at its mean, in a band of its interval."""
    mean, half = np.mean(values), half_width([values])[0]
    axes.axhline(mean, color=colour, linestyle="--", linewidth=1.5, label=label)
    if np.isfinite(half):
        axes.axhspan(mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)


def log_axis(axes, values, label):
    """A logarithmic x axis with a tick at each of the values, and no other."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:,g}" for value in values])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def dots(axes, labels, values, colours, unit=None):
    """A row for each method, the first on top: every seed faint, the mean with its interval.

    Parameters
    ----------
    axes : matplotlib Axes
    labels : (n,) texts
    values : (n, seeds)
    colours : (n,) or one
    """
    colours = [colours] * len(labels) if isinstance(colours, str) else colours
    for row, (seeds, half, colour) in enumerate(zip(values, half_width(values), colours)):
        axes.plot(seeds, [row] * len(seeds), "o", color=colour, alpha=0.3, markersize=5, markeredgewidth=0)
        axes.errorbar(np.mean(seeds), row, xerr=half, fmt="D", color=colour, capsize=4, markersize=7, linewidth=1.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    if unit:
        axes.set_xlabel(unit)


def mark_mean(axes, values, colour, label):
    """A method beside the rows of `dots`: a line at its mean over seeds."""
    axes.axvline(np.mean(values), color=colour, linestyle="--", label=label)


def heat_map(axes, table, title, limits=(0.0, 1.0)):
    """A table φ(i, j) as colours, i downwards and j to the right, both counted from 1."""
    table = np.asarray(table)
    rows, columns = table.shape
    image = axes.imshow(
        table, vmin=limits[0], vmax=limits[1], cmap="viridis", aspect="auto",
        extent=(0.5, columns + 0.5, rows + 0.5, 0.5),
    )  # fmt: skip
    axes.set_title(title)
    axes.grid(False)
    return image
