"""The forgetting figure: perplexity in the new domain against perplexity in the old."""

import io
from pathlib import Path

import numpy as np

from ..formats import write_atomically
from .dialect_run import label
from .figures import COLOURS, STYLE, new_figure

SHADES = {"full": COLOURS["full"]}
SHADES |= {"lora_r1": "#F0A878", "lora_r4": "#E07B39", "lora_r16": "#C25700", "lora_r64": "#7F3A00"}
MARKERS = {"lora_r1": "o", "lora_r4": "^", "lora_r16": "D", "lora_r64": "v", "full": "s"}
TITLES = {"critics": "critics' snippets", "licences": "software licences"}


def draw_dialect(outcome, folder):
    """Draw `dialect.png` from the experiment's outcome.

    Parameters
    ----------
    outcome : dict, from `dialect.run` or its JSON file
    folder : where to write

    Returns
    -------
    Path
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = forgetting(outcome)
        png = io.BytesIO()
        figure.savefig(png, format="png", bbox_inches="tight")
    path = Path(folder) / "dialect.png"
    write_atomically(path, png.getvalue())
    return path


def forgetting(outcome):
    """A panel for each domain: where each method ends over the seeds, and the way there."""
    figure = new_figure(13, 6)
    panels = figure.subplots(1, len(TITLES))
    old_base = np.exp(outcome["base"]["reviews"])
    for axes, (domain, title) in zip(panels, TITLES.items()):
        new_base = np.exp(outcome["base"][domain])
        axes.plot(new_base, old_base, "*", color="black", markersize=17, zorder=4, label="base; LoRA taken off again")
        axes.axhline(old_base, color="black", linestyle=":", linewidth=1.2)
        for row in [row for row in outcome["table"] if row["domain"] == domain]:
            method, shade = row["method"], SHADES[row["method"]]
            runs = [r for r in outcome["runs"] if (r["domain"], r["method"]) == (domain, method)]
            way = np.exp(np.mean([[r["history"]["eval_loss"], r["history"]["eval_old"]] for r in runs], axis=0))
            axes.plot(*way, color=shade, linewidth=1.2, alpha=0.6)
            axes.errorbar(
                row["new_mean"],
                row["old_mean"],
                xerr=row["new_std"],
                yerr=row["old_std"],
                fmt=MARKERS[method],
                color=shade,
                markersize=9,
                capsize=3,
                zorder=3,
                label=label(method),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticks())
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(lambda value, _: "")
        axes.set_title(title)
        axes.set_xlabel(f"perplexity on {title} not seen in training")
    panels[0].set_ylabel("perplexity on film reviews, the old domain")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=11)
    n = len(outcome["seeds"])
    spread = "one seed" if n == 1 else f"mean and standard deviation over {n} seeds"
    figure.suptitle(f"What is learnt and what is forgotten: down and left is better ({spread})", fontsize=14)
    return figure


def ticks():
    """Round numbers on a logarithmic axis that spans less than a decade."""
    from matplotlib.ticker import LogLocator

    return LogLocator(base=10, subs=(1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))
