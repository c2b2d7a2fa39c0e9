"""The forgetting figure: perplexity in the new domain against perplexity in the old."""

from pathlib import Path

import numpy as np

from .figures import COLOURS, new_figure, write_figure

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
    return write_figure(Path(folder) / "dialect.png", forgetting, outcome)


def forgetting(outcome):
    """A panel for each domain: what each method ends at, LoRA's ranks joined from the base on."""
    figure = new_figure(13, 6)
    panels = figure.subplots(1, len(TITLES))
    old_base = np.exp(outcome["base"]["reviews"])
    for axes, (domain, title) in zip(panels, TITLES.items()):
        new_base = np.exp(outcome["base"][domain])
        rows = [row for row in outcome["table"] if row["domain"] == domain]
        lora = [row for row in rows if row["method"] != "full"]
        axes.axhline(old_base, color="black", linestyle=":", linewidth=1.2)
        way = [[new_base, *(row["new_mean"] for row in lora)], [old_base, *(row["old_mean"] for row in lora)]]
        axes.plot(*way, color=COLOURS["lora_all"], linewidth=1.5, alpha=0.6)
        points(axes, lora, COLOURS["lora_all"], "D", "LoRA on all linear layers")
        points(axes, [row for row in rows if row["method"] == "full"], COLOURS["full"], "s", "full fine-tuning")
        axes.plot(new_base, old_base, "*", color="black", markersize=17, zorder=4, label="base; LoRA taken off again")
        for row in lora:
            axes.annotate(
                row["method"].removeprefix("lora_").replace("r", "r="),
                (row["new_mean"], row["old_mean"]),
                xytext=(9, 6),
                textcoords="offset points",
                color=COLOURS["lora_all"],
            )
        for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            scale("log")
            low, high = axis.get_view_interval()
            axis.set_ticks(round_numbers(low, high))
            axis.set_ticks([], minor=True)
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(title)
        axes.set_xlabel(f"perplexity on {title} not seen in training")
    panels[0].set_ylabel("perplexity on film reviews, the old domain")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=12)
    n = len(outcome["seeds"])
    spread = "one seed" if n == 1 else f"mean and standard deviation over {n} seeds"
    figure.suptitle(f"What is learnt and what is forgotten: further left and lower is better\n({spread})", fontsize=14)
    return figure


def points(axes, rows, colour, marker, text):
    """The rows' means with their standard deviations both ways."""

    def std(part):  # nan: no bar
        return [np.nan if row[f"{part}_std"] is None else row[f"{part}_std"] for row in rows]

    axes.errorbar(
        [row["new_mean"] for row in rows],
        [row["old_mean"] for row in rows],
        xerr=std("new"),
        yerr=std("old"),
        fmt=marker,
        color=colour,
        markersize=9,
        capsize=3,
        zorder=3,
        label=text,
    )


def round_numbers(low, high):
    """Ticks of a logarithmic axis: steps of 5 over less than a doubling, else a few to a decade."""
    if high < 2.5 * low:
        return np.arange(5 * np.ceil(low / 5), high, 5)
    found = [digit * 10.0**power for power in range(0, 5) for digit in (1, 1.5, 2, 3, 4, 6)]
    return [value for value in found if low <= value <= high]
