"""Is LoRA as good as full fine-tuning?

A base model is fine-tuned to predict the sentiment of Rotten Tomatoes snippets: in full, with LoRA, or by training only
a head on the frozen model. Logistic regression on tf-idf weights is a baseline without a neural network. With the same
seed, all methods see the same batches in the same order. The methods' training steps are timed in alternation on one
thread.
"""

import numpy as np

from ...data import load_tokenizer, normalise
from ...formats import PRETRAINED
from ...tasks.baseline import word_classifier
from ...tasks.pictures import new_figure
from ..design import FOLDS, Design, Recipe, accuracies, accuracy, judge, over_seeds
from ..drawing import beside_differences, colour, legend_below, marker, mean_line, means, plain_numbers, seeds_text
from ..methods import METHODS, by_rank, label, tuned_runs
from ..runs.classify import split_reviews
from ..step_time import compare_step_times
from ..tables import between, cell, gathered, means_of, scores
from ..updates import spectra

PASSES = {"pretrained": 3, "minilm": 1, "smollm2": 1}  # epochs
SMALL = "head", "qv_r1", "qv_r8", "all_r8", "full"
KEYS = {"pretrained": SMALL, "minilm": SMALL, "smollm2": ("all_r4", "full")}
QUICK_KEYS = {"smollm2": KEYS["smollm2"]} | dict.fromkeys(("pretrained", "minilm"), ("head", "all_r8", "full"))
QUICK_LIMIT = {"pretrained": 400, "minilm": 600, "smollm2": 16}  # snippets; with 400, LoRA hardly beats MiniLM's head
WORDS_LIMIT = 400  # minimum number of snippets for the quick baseline; fewer would all have the same class
WITH_SPECTRA = "full", "all_r8", "qv_r8", "all_r4"
BEST_LORA = {"pretrained": "all_r8", "minilm": "all_r8", "smollm2": "all_r4"}  # of the main comparison
TIMED = {"pretrained": 30, "minilm": 5, "smollm2": 5}  # steps of each method
# Label, and position of the rank labels: offset in points, alignment, above (1) or below (−1) the interval.
FAMILIES = {
    "qv": ("LoRA on q and v", ((5, -17), "right", -1)),
    "all": ("LoRA on all linear layers", ((-6, 5), "right", 1)),
}
# Label, and position of the label: offset in points, and alignment.
SINGLE = {
    "head": ("head only", ((9, -4), "left")),
    "full": ("full\nfine-tuning", ((-10, -14), "right")),
}
PILOT = {"scatter": 0.76, "pilot": "the same with another test set, three seeds"}


def runs(seeds, quick, base="minilm"):
    """A dict, (method, seed) -> run."""
    keys, more = KEYS[base], {"passes": PASSES[base], "folds": base != "pretrained"}
    if quick:
        keys, more = QUICK_KEYS[base], more | {"epochs": 1, "limit": QUICK_LIMIT[base]}
        more["tuned_on"] = 600 if base == "minilm" else None
    # Start with the long runs, so that the last run is not a long one.
    longest_first = sorted(keys, key=lambda key: METHODS[key].adapter is not None)
    return tuned_runs(longest_first, seeds, base=base, **more)


def measure(results, runs, seeds, quick):
    tables, first = scores(results, runs, seeds, quick), runs["full", seeds[0]]
    base, percent = first.base, tables["accuracy"]
    keys = [key for key in KEYS[base] if key in percent]
    full_first = sorted(keys, key=lambda key: key != "full")  # the reference of the other methods' times
    step_time = compare_step_times(3 if quick else TIMED[base], full_first, base)
    limit = max(WORDS_LIMIT, QUICK_LIMIT[base]) if quick else None
    tested = QUICK_LIMIT[base] if quick else None  # the snippets that the other methods are tested on
    by_words = [tfidf_baseline(limit, seed % FOLDS if first.folds else None)[:tested] for seed in seeds]
    percent["tfidf"] = [100 * float(np.mean(right)) for right in by_words]
    tables["right"]["tfidf"] = [np.packbits(right).tobytes().hex() for right in by_words]
    rows = {
        key: {
            "percent": results[runs[key, seeds[0]]]["percent"],
            "optimiser_bytes": 2 * 4 * tables["trainable"][key],  # two moments in float32
            "saved_bytes": results.file_bytes(runs[key, seeds[0]]),
        }
        for key in keys
    }
    of_runs = {
        key: mean_spectra([spectra(results, runs[key, seed]) for seed in seeds]) for key in WITH_SPECTRA if key in keys
    }
    return tables | {"rows": rows, "step_time": step_time, "spectra": of_runs}


def tfidf_baseline(limit=None, fold=None):
    """Fit logistic regression to words and word pairs, weighted by tf-idf, on the splits that all other methods use.

    The term frequencies (raw or sublinear) and the parameter C are chosen by validation accuracy. At most `limit`
    snippets of each split are used; `fold` is as in `split_reviews`. Returns an array (N,) bool: whether each of the N
    test snippets is classified correctly.
    """
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    train, validation, (texts, labels) = (
        ([normalise(tokenizer, text) for text in split.texts[:limit]], split.labels[:limit])
        for split in split_reviews(fold)
    )
    # Normalised text has spaces between words and punctuation.
    return word_classifier(train, validation, r"\S+").predict(texts) == labels


def conclude(outcome):
    best, mean = BEST_LORA[outcome["base"]], means_of(outcome["accuracy"])
    pairs = (best, "head"), (best, "tfidf"), ("qv_r8", "full"), ("qv_r1", "full")
    others = accuracies(outcome, [pair for pair in pairs if {*pair} <= mean.keys()])
    nats = Design(f"{label(best)} − full fine-tuning: test loss", 0.02, "nats", "equal")
    losses = np.subtract(outcome["loss"][best], outcome["loss"]["full"])
    others.append((nats, over_seeds(outcome, losses)))
    return accuracy(outcome, best, "full"), others, finding_of(mean, best, outcome["rows"][best]["percent"])


def finding_of(mean, best, percent):
    """The finding from the mean accuracies, and the share of the weights, in %, that the best LoRA method trains."""
    listed = ", ".join(f"{label(key)} {mean[key]:.1f} %" for key in ("head", best, "full", "tfidf") if key in mean)
    start = "head" if "head" in mean else "tfidf"
    gain = mean["full"] - mean[start]
    if gain < 1:
        return f"Full fine-tuning gains less than a point over {label(start)}: {listed}."
    of = "the frozen model" if start == "head" else label(start)
    share = 100 * (mean[best] - mean[start]) / gain
    return (
        f"With {percent:.2g} % of the parameters, LoRA keeps {share:.0f} % of what full fine-tuning gains over {of}: "
        f"{listed}."
    )


def mean_spectra(of_seeds):
    """A dict, kind of layer -> {"sigma": (n, seeds), "ranks": means over seeds (layers, 3)}; see `spectra`."""
    return {
        kind: {"sigma": np.transpose(of["sigma"]).tolist(), "ranks": np.mean(of["ranks"], axis=0).round(3).tolist()}
        for kind, of in gathered(of_seeds).items()
    }


def table(outcome):
    lines = [["method", "test accuracy, %", "− full", "trainable", "%", "step, ms", "AdamW's moments, kB", "file, kB"]]
    for key, row in outcome["rows"].items():
        sizes = [f"{row[name] / 1e3:,.0f}" for name in ("optimiser_bytes", "saved_bytes")]
        trained = f"{outcome['trainable'][key]:,}", f"{row['percent']:.3f}"
        step = f"{1e3 * outcome['step_time'][key]['seconds']:,.0f}"
        lines.append([label(key), *scores_of(outcome, key), *trained, step, *sizes])
    return [*lines, [label("tfidf"), *scores_of(outcome, "tfidf"), *[""] * 5]]


def scores_of(outcome, key):
    """Format a method's accuracy, and its difference from that of full fine-tuning, with their intervals."""
    mean = cell(outcome["accuracy"][key])
    if key == "full":
        return mean, ""
    part = judge(outcome, Design(""), accuracy(outcome, key, "full"))
    return mean, between([part[name] for name in ("mean", "low", "high")], "+")


def details(outcome):
    rows = [["ΔW, mean over layers", "stable rank", "effective rank", "rank with 90 % of the energy"]]
    for key, kinds in outcome["spectra"].items():
        for kind, of_kind in kinds.items():
            ranks = np.mean(of_kind["ranks"], axis=0)
            rows.append([f"{label(key)}, {kind}", *(f"{rank:.1f}" for rank in ranks)])
    return rows


def parameters_against_accuracy(outcome):
    """Figure 1: test accuracy against the number of trained parameters (log axis), and the paired differences."""
    figure, axes = beside_differences(outcome, "Trained parameters and accuracy on film snippets", 5.6)
    small = {"textcoords": "offset points", "fontsize": 12}
    percent, trainable = outcome["accuracy"], outcome["trainable"]
    for family, (text, (offset, side, end)) in FAMILIES.items():
        trained, values = by_rank(trainable, family), by_rank(percent, family)
        if trained:
            mean_line(axes, {trained[r]: values[r] for r in trained}, colour(family), text, marker(family))
            mean, (reach, _) = means(values.values())
            for (r, x), y in zip(trained.items(), mean + end * np.nan_to_num(reach)):
                axes.annotate(f"r={r}", (x, y), xytext=offset, ha=side, color=colour(family), **small)
    for key, (text, (offset, side)) in SINGLE.items():
        if key in trainable:
            mean_line(axes, {trainable[key]: percent[key]}, colour(key), None, marker(key))
            point = trainable[key], np.mean(percent[key])
            axes.annotate(text, point, xytext=offset, ha=side, color=colour(key), weight="bold", **small)
    baseline = np.mean(percent["tfidf"])
    axes.axhline(baseline, color=colour("tfidf"), linestyle="--", linewidth=1.2)
    text, place = f"tf-idf logistic regression {baseline:.1f} %", (0.62, baseline)
    low, high = axes.get_ylim()
    offset = -17 if baseline - low > 0.08 * (high - low) else 5  # above the line if there is no room below it
    axes.annotate(text, place, xycoords=("axes fraction", "data"), xytext=(0, offset), **small)
    axes.set(xscale="log", xlabel="trained parameters", ylabel="test accuracy in %")
    axes.margins(x=0.1)
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
            i, (mean, (down, up)) = range(1, len(sigma) + 1), means(sigma, log=True)
            axes.plot(i, mean, color=colour(key), label=label(key), linewidth=2)
            axes.fill_between(i, mean - down, mean + up, color=colour(key), alpha=0.18, linewidth=0)
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


RECIPE = Recipe(
    claim="""LoRA performs on par with full fine-tuning or better, although it trains far fewer parameters (Hu et al.
    2021, abstract).""",
    design={
        base: Design(f"{label(best)} − full fine-tuning: test accuracy", expected="equal", **PILOT)
        for base, best in BEST_LORA.items()
    },
    bases=("minilm", "smollm2", "pretrained"),
    draw={"1_parameters_against_accuracy": parameters_against_accuracy, "2_update_spectra": update_spectra},
    columns=5,  # on a screen, without times and sizes
    caption="""Figure 1: test accuracy against the number of trainable parameters. The bars on the left contain what
    all methods share: a seed's easy or hard test snippets. Right panel: the differences for each seed, which decide.
    Figure 2: singular values of the update ΔW by kind of layer, relative to the largest.""",
)
