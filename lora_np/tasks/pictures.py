"""Draw a classifier's confusion matrix and its calibration."""

import io
import warnings

import numpy as np

from ..checked import shown
from .report import LABEL_WIDTH, MEASURES, MOST_ROWS, wilson_interval, with_interval

STYLE = {"font.size": 11, "figure.dpi": 100}


def confusion_figure(report):
    """Plot the confusion matrix of a `class_report`, with cells shaded by their share of the row."""
    labels, confusion = list(report["classes"]), np.array(report["confusion"])
    K, texts = len(labels), confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(texts, 1)
    side = float(np.clip(2.5 + 0.55 * K, 5.0, 16.0))
    figure = new_figure(side + 1.5, side)
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    if K <= MOST_ROWS:
        for (row, column), n in np.ndenumerate(confusion):
            colour = "white" if shares[row, column] > 0.55 else "black" if n else "lightgrey"
            axes.text(column, row, f"{n:,}", ha="center", va="center", color=colour)
    if K <= 2 * MOST_ROWS:
        names = [f"{k + 1} {shown(label, LABEL_WIDTH)}" for k, label in enumerate(labels)]
        plain = {"parse_math": False}  # a $ does not begin a formula
        axes.set_xticks(range(K), names, rotation=45, ha="right", rotation_mode="anchor", **plain)
        axes.set_yticks(range(K), [f"{name} ({n:,})" for name, n in zip(names, texts[:, 0])], **plain)
    axes.set(xlabel="answered as", ylabel="true class (texts)")
    accuracy, f1 = (with_interval(report[m], report[f"{m}_interval"]) for m in MEASURES)
    axes.set_title(f"{report['texts']:,} test texts: accuracy {accuracy} %\nmacro-F1 {f1} %", fontsize=12)
    figure.colorbar(image, label="% of the true class", shrink=0.8)
    return figure


def calibration_figure(report):
    """Plot the fraction of correct predictions against the predicted probability (a reliability diagram)."""
    figure = new_figure(6.4, 5.6)
    axes = figure.subplots()
    n, stated, right = np.array(report["calibration"]).T
    low, high = 100 * np.array([wilson_interval(share * size, size) for size, share in zip(n, right)]).T
    axes.plot([0, 100], [0, 100], color="grey", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.vlines(100 * stated, low, high, color="tab:blue", alpha=0.5, label="95 % interval")
    axes.scatter(
        100 * stated, 100 * right, 15 + 300 * n / n.sum(), color="tab:blue", label="texts (area: their number)"
    )
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="predicted probability in %", ylabel="correct predictions in %")
    error, noise = (100 * report[f"calibration_{name}"] for name in ("error", "noise"))
    title = f"{report['texts']:,} test texts: expected calibration error {error:.1f} points\n"
    axes.set_title(f"{title}(perfectly calibrated: {noise:.1f} by chance)", fontsize=12)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def new_figure(width, height):
    """Create an empty matplotlib Figure; width and height are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def as_png(draw, values, style=STYLE):
    """Render the matplotlib Figure that draw(values) returns, and return it as PNG bytes."""
    import matplotlib

    # Without pyplot, a Figure opens no window and shares no state with a notebook.
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font may lack some of a label's characters
        png = io.BytesIO()
        draw(values).savefig(png, format="png", bbox_inches="tight")
    return png.getvalue()
