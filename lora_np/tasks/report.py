"""Report on a classifier: scores with intervals, a comparison with simpler classifiers, and the confusion matrix."""

import io
import warnings
from collections import Counter
from statistics import NormalDist

import numpy as np

from ..checked import shown
from ..data import text_digest

DRAWS, SEED = 2000, 0  # number of draws and seed of the bootstrap
Z = NormalDist().inv_cdf(0.975)  # the normal quantile for 95 % intervals
WIDTH = 100  # maximum line length of the report
MOST_COLUMNS = 12  # maximum number of classes in a confusion matrix as text
MOST_ROWS = 30  # maximum number of classes that are listed
MOST_PAIRS = 10
LABEL_WIDTH = 20
MEASURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def class_report(labels, true, answered, others=None, texts=None):
    """Compare a classifier's predictions, and those of other classifiers for the same texts, with the true classes.

    Accuracies have Wilson intervals. Macro-F1 is the mean of F1 over the classes that occur or are predicted at least
    once, as in scikit-learn; its interval is a percentile bootstrap over texts (2,000 draws, seed 0).

    Parameters
    ----------
    labels : list of K str
    true, answered : (N,) integers from 0 to K − 1
    others : dict, name -> (N,) integers, the predictions of other classifiers, or None
    texts : list of N str, or None if all are different. If text i occurs m_i times, the intervals are those of
        N² / Σ m_i² independent texts (Kish 1965), where the sum is over the different texts

    Returns
    -------
    dict, ready for JSON
        "texts" and "different_texts", their numbers; the scores "accuracy", "accuracy_interval", "macro_f1",
        "macro_f1_interval", as fractions; "others", the same scores for each other classifier and for a baseline that
        always predicts the most frequent class; "commonest_share", the share of texts in the most frequent class;
        "classes", label -> "texts" in this class, "precision" (None if the class is never predicted), "recall" (None if
        the class has no texts); "confusion", K lists of K: the number of texts of each class (row) that were predicted
        as each class (column)
    """
    confusion = confusion_matrix(true, answered, len(labels))
    sizes, answers, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    commonest = int(sizes.argmax())
    occurrences = np.array(list(Counter(map(text_digest, texts)).values())) if texts else np.ones(len(true))
    n_independent = len(true) ** 2 / float((occurrences**2).sum())
    others = {**(others or {}), f'always "{labels[commonest]}"': np.full(len(true), commonest)}
    classes = {
        label: {"texts": int(n), "precision": share(hits, of_answers), "recall": share(hits, n)}
        for label, n, of_answers, hits in zip(labels, sizes, answers, right)
    }
    return {
        "texts": len(true),
        "different_texts": len(occurrences),
        **scores(confusion, n_independent),
        "others": {n: scores(confusion_matrix(true, its, len(labels)), n_independent) for n, its in others.items()},
        "commonest_share": float(sizes.max() / sizes.sum()),
        "classes": classes,
        "confusion": confusion.tolist(),
    }


def confusion_matrix(true, answered, n_classes):
    """Return the confusion matrix (K, K): the number of texts of each class (row) predicted as each class (column)."""
    pairs = np.asarray(true) * n_classes + np.asarray(answered)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def share(part, whole):
    return float(part / whole) if whole else None


def scores(confusion, n_independent):
    """Compute accuracy and macro-F1, and their intervals for a number of independent texts, from a confusion matrix."""
    n = int(confusion.sum())
    true, answered = np.nonzero(confusion)
    counts = confusion[true, answered]
    # Resampling texts is equivalent to drawing the matrix's entries from a multinomial distribution.
    rng = np.random.default_rng(SEED)
    draws = [macro_f1(true, answered, rng.multinomial(round(n_independent), counts / n)) for _ in range(DRAWS)]
    right = int(np.trace(confusion))
    return {
        "accuracy": right / n,
        "accuracy_interval": wilson_interval(right * n_independent / n, n_independent),
        "macro_f1": macro_f1(true, answered, counts),
        "macro_f1_interval": np.quantile(draws, [0.025, 0.975]).tolist(),
    }


def wilson_interval(right, n):
    """Return the 95 % Wilson interval (Wilson 1927) for the proportion right / n; it is always within [0, 1]."""
    middle = (right + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * np.sqrt(right * (n - right) / n + Z**2 / 4)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def macro_f1(true, answered, counts):
    """Return the mean over classes of F1 = 2 correct / (true + predicted), from a confusion matrix's entries."""
    K = max(true.max(), answered.max()) + 1
    hits = np.where(true == answered, counts, 0)
    sums = np.bincount(true, counts, K) + np.bincount(answered, counts, K)  # (K,)
    return float((2 * np.bincount(true, hits, K)[sums > 0] / sums[sums > 0]).mean())


def format_report(report, advice=""):
    """Format the report as text of at most 100 columns. `advice` is appended if some class is never predicted."""
    return "\n".join([*score_lines(report), "", *class_lines(report), *verdicts(report, advice)])


def score_lines(report):
    """Format the scores of the classifier and of the classifiers that it is compared with."""
    rows = {"this model": report, **report["others"]}
    width = max(34, *(len(shown(name, 50)) + 2 for name in rows))
    lines = [f"{report['texts']:,} test texts".ljust(width) + "accuracy %".rjust(22) + "macro-F1 %".rjust(22)]
    for name, its in rows.items():
        cells = [with_interval(its[measure], its[f"{measure}_interval"]).rjust(22) for measure in MEASURES]
        lines.append(f"  {shown(name, 50)}".ljust(width) + "".join(cells))
    if "tf-idf" in rows:
        lines.append("  tf-idf: logistic regression on words and pairs of words, trained on the same texts")
    if report["different_texts"] < report["texts"]:
        lines.append(f"  only {report['different_texts']:,} different text(s), so the intervals are wider")
    return [*lines, f"  [95 % intervals: Wilson's; for macro-F1 the bootstrap's over texts, {DRAWS:,} draws]"]


def with_interval(value, interval):
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def class_lines(report):
    """Format each class's size, precision and recall in %, and the confusion matrix or the most frequent confusions."""
    labels, confusion = list(report["classes"]), np.array(report["confusion"])
    columns = f"{'texts':>6}{'precision':>11}{'recall':>8}"
    space, digits = WIDTH - len(columns) - 7, len(f"{confusion.max()}")
    cell = digits + (3 if space - (digits + 3) * len(labels) >= LABEL_WIDTH else 2)
    room = space - cell * len(labels)  # for a label beside the matrix, in columns
    with_matrix = len(labels) <= MOST_COLUMNS and room >= 8
    room = min(room, LABEL_WIDTH) if with_matrix else LABEL_WIDTH
    width = max(5, *(len(shown(label, room)) for label in labels)) + 5
    head = "class".ljust(width) + columns
    lines = [head]
    if with_matrix:
        numbers = "".join(f"{k + 1:>{cell - 1}} " for k in range(len(labels)))
        lines = [" " * len(head) + "  answered as class", f"{head}  {numbers}".rstrip()]
    recalls = [its["recall"] for its in report["classes"].values()]
    worst_first = sorted(range(len(labels)), key=lambda k: (recalls[k] is None, recalls[k]))
    for k in sorted(worst_first[:MOST_ROWS]):
        label, its = shown(labels[k], room), report["classes"][labels[k]]
        precision, recall = ("-" if x is None else f"{100 * x:.1f}" for x in (its["precision"], its["recall"]))
        line = f"{k + 1:>3} {label}".ljust(width) + f"{its['texts']:>6,}{precision:>11}{recall:>8}"
        if with_matrix:
            cells = [f"[{n}]" if j == k else f"{n or '.'} " for j, n in enumerate(confusion[k])]
            line += "  " + "".join(text.rjust(cell) for text in cells)
        lines.append(line.rstrip())
    if len(labels) > MOST_ROWS:
        lines.append(f"    … and {len(labels) - MOST_ROWS} more, with a higher recall or without test texts")
    return lines if with_matrix else [*lines, *pair_lines(labels, confusion)]


def pair_lines(labels, confusion):
    """Format the most frequent confusions as lines of text."""
    wrong = Counter({pair: n for pair, n in np.ndenumerate(confusion) if n and pair[0] != pair[1]})
    lines = ["", "most often confused"]
    for (true, answered), n in wrong.most_common(MOST_PAIRS):
        of_class = f"{n:>7,} of {confusion[true].sum():<7,}"
        lines.append(f'{of_class} "{shown(labels[true], 30)}" answered as "{shown(labels[answered], 30)}"')
    return lines if wrong else []


def verdicts(report, advice=""):
    """Return a line for each simpler classifier that scores higher, and for each class that is never predicted."""
    lines = []
    for name, its in report["others"].items():
        for measure, title in MEASURES.items():
            if its[measure] > report[measure]:
                overlap = its[f"{measure}_interval"][0] <= report[f"{measure}_interval"][1]
                numbers = f"{100 * its[measure]:.1f} against {100 * report[measure]:.1f} %"
                intervals = f"the intervals {'overlap' if overlap else 'do not overlap'}"
                lines.append(f"{shown(name, 30)} wins in {title}: {numbers} ({intervals})")
    classes = report["classes"].items()
    silent = [(label, its["texts"]) for label, its in classes if its["texts"] and its["precision"] is None]
    for label, n in silent[:MOST_PAIRS]:
        lines.append(f'"{shown(label, 30)}" is never predicted; test texts of this class: {n:,} of {report["texts"]:,}')
    if len(silent) > MOST_PAIRS:
        lines.append(f"and {len(silent) - MOST_PAIRS} more classes are never predicted")
    if silent and advice:
        lines.append(advice)
    return ["", *lines] if lines else []


def confusion_picture(report):
    """Plot the confusion matrix, with cells shaded by their share of the row, and return it as the bytes of a PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    labels, confusion = list(report["classes"]), np.array(report["confusion"])
    K, texts = len(labels), confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(texts, 1)
    side = float(np.clip(2.5 + 0.55 * K, 5.0, 16.0))
    png = io.BytesIO()
    with matplotlib.rc_context({"font.size": 11, "figure.dpi": 100}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font may lack some of a label's characters
        figure = Figure(figsize=(side + 1.5, side), layout="constrained")
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
        figure.savefig(png, format="png", bbox_inches="tight")
    return png.getvalue()
