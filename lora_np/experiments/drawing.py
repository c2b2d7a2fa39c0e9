"""Shared helpers for the figures: colours, style, means with 95 % intervals, and PNG output."""

from collections import Counter
from functools import partial

import numpy as np

from ..tasks import pictures
from ..tasks.pictures import new_figure
from .evidence import format_interval, interval
from .runs import BASES

# Okabe and Ito's palette, which is suitable for colour-blind readers. The first four colours mean a method or the base,
# and nothing else, in all figures and lessons; everything else has the colours in OTHERS.
COLOURS = {"full": "#0072B2", "lora_qv": "#D55E00", "lora_all": "#009E73", "base": "#7F7F7F"}
OTHERS = ("#CC79A7", "#56B4E9", "#E69F00", "#000000")
COLOURS |= {"head": OTHERS[0], "tfidf": OTHERS[3]}
MARKERS = {"full": "s", "lora_qv": "o", "lora_all": "D", "head": "v"}
STYLES = ("-", ":", "-.", "--", (0, (5, 1)))  # distinguish lines of the same colour
STYLE = {
    "figure.dpi": 150,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 11,
}
MARKS = "mean and 95 % interval"  # what the markers of most figures show

as_png = partial(pictures.as_png, style=STYLE)


def family(key):
    """A method's name in COLOURS and MARKERS, the same at every rank: "lora_qv" for "qv_r8"."""
    name = key.removeprefix("lora_").partition("_r")[0]
    return name if name in COLOURS else f"lora_{name}"


def colour(key):
    """A method's colour, the same at every rank and learning rate."""
    return COLOURS[family(key)]


def marker(key):
    """A method's marker, the same at every rank and learning rate."""
    return MARKERS[family(key)]


def panels(outcome, title, width, height, columns=1, marks=MARKS, **grid):
    """Create a matplotlib Figure whose title also says what the markers show; return it and its Axes.

    With several `columns`, the Axes are returned as an array. `grid` contains further arguments for Figure.subplots.
    """
    figure, title = new_figure(width, height), f"{title} ({seeds_text(outcome, marks)})"
    axes = figure.subplots(1, columns, **grid)
    if columns == 1:
        axes.set_title(title)
    else:
        figure.suptitle(title, fontsize=14)
    return figure, axes


def legend_below(figure, axes, columns):
    """Put the legend of one panel below all panels."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def seeds_text(outcome, marks=MARKS):
    """Describe a figure's markers and, for bases other than the small one, the base and the number of snippets."""
    counts = Counter(str(run["settings"] | {"seed": 0}) for run in outcome["runs"]).values() or [len(outcome["seeds"])]
    n, on = " to ".join(map(str, sorted({min(counts), max(counts)}))), ""
    if outcome["base"] != "pretrained":
        examples = {run["settings"].get("examples") for run in outcome["runs"]}
        some = len(examples) == 1 and None not in examples
        on = f"; {BASES[outcome['base']]}" + (f", {examples.pop():,} training snippets" if some else "")
    return ("one seed" if n == "1" else f"{marks} over {n} seeds") + on


def means(values, log=False):
    """Return the means (n,) of values (n, seeds), and how far their intervals extend below and above, (2, n).

    With one seed, the extents are NaN, and no bar is drawn. With `log`, the logarithms are averaged, so the means are
    geometric.
    """
    mean, low, high = np.array([interval(row, log) for row in values], dtype=np.float64).T
    return mean, np.array([mean - low, high - mean])


def mean_line(axes, values, colour, label, marker="o", style="-", log=False):
    """Plot a line through means, with intervals as bars; `values` is a dict, x -> one per seed; `log` as in `means`.

    In an outcome that was read from JSON, each x is a str.
    """
    x, (mean, reach) = list(map(float, values)), means(values.values(), log)
    look = {"color": colour, "label": label, "capsize": 4, "linewidth": 1.8, "markersize": 7}
    axes.errorbar(x, mean, yerr=reach, fmt=marker + style, **look)


def band(axes, values, colour, label):
    """Plot a method that has no x value: a horizontal line at its mean, with its interval as a band."""
    mean, low, high = interval(values)
    axes.axhline(mean, color=colour, linestyle="--", linewidth=1.5, label=label)
    if low is not None:
        axes.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)


def log_axis(axes, values, label):
    """Make the x axis logarithmic, with ticks only at these values."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(values), [f"{value:,g}" for value in values])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label)


def plain_numbers(axis):
    """Write the numbers on an axis without powers of ten."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def beside_differences(outcome, title, height):
    """Create a Figure with a panel to draw in and, on its right, the `differences`; return the Figure and the panel."""
    figure, (axes, right) = panels(outcome, title, 13, height, 2, width_ratios=(3, 2))
    differences(right, outcome)
    return figure, axes


def differences(axes, outcome):
    """Plot the main comparison, at the top, and those in the same unit: seeds, mean and interval; the margin is grey.

    Each value is the difference of two methods with the same seed. Methods are equivalent if the 90 % interval, which
    is thick, is within the margin.
    """
    main = outcome["comparisons"][0]
    parts = [part for part in outcome["comparisons"] if part["unit"] == main["unit"]]
    for row, part in enumerate(parts):
        plot_row(axes, row, part["values"], (part["mean"], part["low"], part["high"]), OTHERS[3])
        axes.plot(np.array(part["interval_90"], dtype=np.float64), [row, row], color=OTHERS[3], linewidth=4)
        text = f"{part['statement'].replace(': test accuracy', '')}: {format_interval(part).split()[0]}"
        look = {"weight": "bold" if part is main else "normal", "fontsize": 10.5}
        look |= {"bbox": {"color": "white", "alpha": 0.85, "pad": 0.5}, "textcoords": "offset points"}
        axes.annotate(text, (0.01, row), (0, 9), xycoords=("axes fraction", "data"), **look)
    axes.axvspan(-main["margin"], main["margin"], color="black", alpha=0.07, linewidth=0)
    axes.axvline(0, color="black", linewidth=1.2)
    axes.set(yticks=[], ylim=(len(parts) - 0.5, -0.8), title="differences; grey: too small to matter")
    unit = "percentage points" if main["unit"] == "points" else main["unit"]
    axes.set_xlabel(f"difference in {unit} (thin: 95 % interval, thick: 90 %)")


def dots(axes, rows, unit, log=False):
    """Plot one row per method, the first at the top: a point for each seed, and the mean with its interval.

    `rows` is a list of (label, values, colour), with one value per seed; `log` as in `means`.
    """
    for row, (_, seeds, shade) in enumerate(rows):
        plot_row(axes, row, seeds, interval(seeds, log), shade)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(unit)


def plot_row(axes, row, values, estimate, colour):
    """Plot a point for each of the values, and their (mean, low, high); without an interval, low and high are None."""
    mean, low, high = np.array(estimate, dtype=np.float64)
    axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.3, markersize=5, markeredgewidth=0)
    reach = [[mean - low], [high - mean]]
    axes.errorbar(mean, row, xerr=reach, fmt="d", color=colour, capsize=4, markersize=7, linewidth=1.8)
