"""Report on a classifier: its scores with intervals, a comparison with simpler classifiers, and its confusions."""

import hashlib
from collections import Counter
from statistics import NormalDist

import numpy as np

from ..checked import shown

DRAWS, SEED = 2000, 0  # number of draws and seed of the bootstrap
ENDS = 0.025, 0.975  # the quantiles that are the ends of a 95 % interval
BINS = 15
MISTAKE = "text", "label", "predicted", "probability"  # the columns of mistakes.csv
Z = NormalDist().inv_cdf(0.975)  # the normal quantile for 95 % intervals
WIDTH = 100  # maximum line length of the report
MOST_COLUMNS = 12  # maximum number of classes in a confusion matrix as text
MOST_ROWS = 30  # maximum number of classes that are listed
MOST_PAIRS = MOST_MISTAKES = 10
FEW = 50  # fewer test texts than this are few
LABEL_WIDTH = 20
MEASURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def class_report(labels, true, probabilities, others=None, keys=None):
    """Evaluate a classifier's predictions, and those of other classifiers for the same texts, against the true classes.

    Accuracies have Wilson intervals. Macro-F1 is the mean of F1 over the classes that occur or are predicted at least
    once, as in scikit-learn. Macro-F1 and the differences between classifiers have percentile bootstrap intervals
    (2,000 resamples of the texts, seed 0; for differences, see `lead`). The expected calibration error is the mean
    absolute difference between the probability of the predicted class and the fraction of correct predictions, in 15
    bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    labels : list of K str
    true : (N,) integers from 0 to K − 1
    probabilities : (N, K)
    others : dict, name -> (N,) integers, the predictions of other classifiers, or None
    keys : (N,) integers, the `text_keys` of the texts, or None if all are different; of rows with the same text, only
        the first is counted

    Returns
    -------
    dict, ready for JSON
        "texts", the number of different texts, and "repeated", that of the other rows; the scores "accuracy",
        "accuracy_interval", "macro_f1", "macro_f1_interval", as fractions; "others", the same scores for each other
        classifier and for a baseline that always predicts the most frequent class, and how far this classifier is ahead
        of it, "ahead": for each score, the difference and the ends of its interval; "calibration_error" and
        "calibration_noise", what it would be if the same probabilities were perfectly calibrated; "calibration", a row
        for each non-empty bin: the number of texts, the mean probability, the fraction of correct predictions;
        "commonest_share", the share of texts in the most frequent class; "classes", label -> "texts" in this class,
        "precision" (None if the class is never predicted), "recall" (None if the class has no texts); "confusion", K
        lists of K: the number of texts of each class (row) that were predicted as each class (column)
    """
    rows = np.arange(len(true)) if keys is None else np.sort(np.unique(keys, return_index=True)[1])
    n_rows, true, probabilities = len(true), np.asarray(true)[rows], probabilities[rows]
    answered = probabilities.argmax(axis=1)
    confusion = confusion_matrix(true, answered, len(labels))
    sizes, answers, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    commonest = int(sizes.argmax())
    others = {name: np.asarray(its)[rows] for name, its in (others or {}).items()}
    others[f'always "{labels[commonest]}"'] = np.full(len(true), commonest)
    classes = {
        label: {"texts": int(n), "precision": share(hits, of_answers), "recall": share(hits, n)}
        for label, n, of_answers, hits in zip(labels, sizes, answers, right)
    }
    confidence = probabilities.max(axis=1)
    bins = calibration(confidence, answered == true)
    return {
        "texts": len(true),
        "repeated": n_rows - len(true),
        **scores(true, answered),
        "others": {name: scores(true, its) | {"ahead": lead(true, answered, its)} for name, its in others.items()},
        "calibration_error": sum(n * abs(p - of_right) for n, p, of_right in bins) / len(true),
        "calibration_noise": calibration_noise(confidence),
        "calibration": bins,
        "commonest_share": float(sizes.max() / sizes.sum()),
        "classes": classes,
        "confusion": confusion.tolist(),
    }


def text_keys(texts):
    """Return a key for each text, (N,) integers; texts that differ only in case and spacing have the same key."""
    digests = (hashlib.sha256(" ".join(text.lower().split()).encode("utf-8")).digest() for text in texts)
    return np.array([int.from_bytes(digest[:8], "little") for digest in digests], dtype=np.uint64)


def calibration(confidence, right):
    """Return [number of texts, mean confidence, fraction of correct predictions] for each non-empty bin."""
    of_bin = bins_of(confidence)
    bins = [of_bin == k for k in np.unique(of_bin)]
    return [[int(rows.sum()), float(confidence[rows].mean()), float(right[rows].mean())] for rows in bins]


def bins_of(confidence):
    """Return the index of the bin of each confidence."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_noise(confidence):
    """Return the expected calibration error that perfectly calibrated predictions would have, by chance alone.

    In a bin, the number of correct predictions then has the variance σ² = Σ p (1 − p). Its mean absolute deviation from
    Σ p is √(2/π) σ, as for a normal distribution.
    """
    variances = np.bincount(bins_of(confidence), confidence * (1 - confidence))
    return float(np.sqrt(2 / np.pi * variances).sum() / len(confidence))


def confusion_matrix(true, answered, n_classes):
    """Return the confusion matrix (K, K): the number of texts of each class (row) predicted as each class (column)."""
    pairs = np.asarray(true) * n_classes + np.asarray(answered)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def share(part, whole):
    return float(part / whole) if whole else None


def scores(true, answered):
    """Compute a classifier's accuracy and macro-F1, with intervals."""
    cells, counts = np.unique(np.stack([true, answered]), axis=1, return_counts=True)
    # Resampling texts is equivalent to drawing the numbers of texts with each combination of classes.
    draws = np.random.default_rng(SEED).multinomial(len(true), counts / len(true), DRAWS)
    right = int(np.sum(true == answered))
    return {
        "accuracy": right / len(true),
        "accuracy_interval": wilson_interval(right, len(true)),
        "macro_f1": float(macro_f1(*cells, counts)),
        "macro_f1_interval": np.quantile(macro_f1(*cells, draws), ENDS).tolist(),
    }


def lead(true, answered, other):
    """Return one classifier's lead over another, as a dict: score -> [difference, low, high]; see `class_report`.

    If one classifier is right on every text on which the two differ, it leads in almost every bootstrap sample, so even
    a few such texts would look like a clear difference. As in Agresti and Min (2005), one extra text on which the
    classifiers differ is therefore added: half its weight goes to the predictions as observed, and half to the
    predictions swapped between the classifiers.
    """
    cells, counts = np.unique(np.stack([true, answered, other]), axis=1, return_counts=True)
    differs = counts * (cells[1] != cells[2])
    added = differs / max(1, 2 * differs.sum())
    cells = np.concatenate([cells, cells[[0, 2, 1]]], axis=1)
    weights = np.concatenate([counts + added, added])
    draws = np.random.default_rng(SEED).multinomial(len(true), weights / weights.sum(), DRAWS)

    def differences(counts):
        hits = counts @ ((cells[0] == cells[1]).astype(int) - (cells[0] == cells[2]))
        return hits / len(true), macro_f1(cells[0], cells[1], counts) - macro_f1(cells[0], cells[2], counts)

    found = differences(np.concatenate([counts, np.zeros_like(counts)]))
    low, high = np.quantile(differences(draws), ENDS, axis=1)
    return {name: [float(x) for x in of] for name, *of in zip(MEASURES, found, low, high)}


def wilson_interval(right, n):
    """Return the 95 % Wilson interval (Wilson 1927) for the proportion right / n; it is always within [0, 1]."""
    middle = (right + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * np.sqrt(right * (n - right) / n + Z**2 / 4)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def macro_f1(true, answered, counts):
    """Return the mean over classes of F1 = 2 correct / (true + predicted), from a confusion matrix's entries.

    `true` and `answered`, both (n,), are the entries' row and column indices. `counts`, the entries, is (n,), or
    (draws, n) for several matrices.
    """
    classes = np.arange(max(true.max(), answered.max()) + 1)
    is_true, is_answered = np.equal.outer(true, classes), np.equal.outer(answered, classes)  # (n, K)
    sums = counts @ (is_true.astype(float) + is_answered)  # (..., K)
    f1 = np.divide(2.0 * (counts @ (is_true & is_answered)), sums, out=np.zeros_like(sums), where=sums > 0)
    return f1.sum(axis=-1) / (sums > 0).sum(axis=-1)


def format_report(report, advice=""):
    """Format the report as text of at most 100 columns. `advice` is appended if some class is never predicted."""
    return "\n".join([*score_lines(report), "", *class_lines(report), *verdicts(report, advice)])


def score_lines(report):
    """Format the scores of the classifier and of the classifiers that it is compared with."""
    rows = {"this model": report, **report["others"]}
    width = max(34, *(len(shown(name, 36)) + 15 for name in rows))
    lines = [f"{report['texts']:,} test texts".ljust(width) + "accuracy %".rjust(22) + "macro-F1 %".rjust(22)]
    for name, its in rows.items():
        cells = [with_interval(its[measure], its[f"{measure}_interval"]).rjust(22) for measure in MEASURES]
        lines.append(f"  {shown(name, 36)}".ljust(width) + "".join(cells))
    for name, its in report["others"].items():
        cells = [with_interval(ahead, ends, "+").rjust(22) for ahead, *ends in its["ahead"].values()]
        lines.append(f"  this model − {shown(name, 36)}".ljust(width) + "".join(cells))
    lines.append(
        f"  [95 % intervals: Wilson's; for macro-F1 and differences the bootstrap's, {DRAWS:,} draws of texts]"
    )
    if "tf-idf" in rows:
        lines.append(
            "  tf-idf: logistic regression on words and word pairs of the training texts, C tuned on validation"
        )
    if report["repeated"]:
        lines.append(f"  {report['repeated']:,} rows with a text that occurs earlier are not counted")
    off, noise = (100 * report[f"calibration_{name}"] for name in ("error", "noise"))
    by_chance = f"{noise:.1f} by chance if perfectly calibrated"
    return [*lines, f"  expected calibration error: {off:.1f} points ({by_chance})"]


def with_interval(value, interval, sign=""):
    """Format a score with its interval, or without one if all draws of the bootstrap are equal."""
    value, low, high = (f"{100 * number:{sign}.1f}".replace("-", "−") for number in (value, *interval))
    return value if interval[0] == interval[1] else f"{value} [{low}, {high}]"


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
    return [*lines, *pair_lines(labels, confusion, 3 if with_matrix else MOST_PAIRS)]


def pair_lines(labels, confusion, most):
    """Format the pairs of classes with at least two confused texts, the most frequent first; with two classes, none."""
    both, sizes = confusion + confusion.T, confusion.sum(axis=1)
    mixed = Counter({(i, j): n for (i, j), n in np.ndenumerate(both) if n > 1 and i < j})
    lines = ["", "classes that look most alike"]
    for (i, j), n in mixed.most_common(most):
        of_both = f"{n:>7,} of {sizes[i] + sizes[j]:,} texts confused:"
        lines.append(f'{of_both:<32} "{shown(labels[i], 28)}" and "{shown(labels[j], 28)}"')
    return lines if mixed and len(labels) > 2 else []


def mistakes(labels, true, probabilities, texts):
    """Return table rows for the classifier's most confident mistakes, in decreasing order of confidence."""
    answered, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    worst = sorted(np.flatnonzero(answered != true), key=lambda i: -confidence[i])[:MOST_MISTAKES]
    cells = ((texts[i], labels[true[i]], labels[answered[i]], f"{confidence[i]:.6f}") for i in worst)
    return [dict(zip(MISTAKE, of_row)) for of_row in cells]


def verdicts(report, advice=""):
    """Return sentences: whether the texts are few, a comparison with simpler classifiers, classes never predicted."""
    lines = [f"{report['texts']} test texts are few: cross-validation would test every text."] * (report["texts"] < FEW)
    for name, its in report["others"].items():
        if name != next(iter(report["others"])) and all(low > 0 for _, low, _ in its["ahead"].values()):
            continue  # the first sentence, on a better classifier, says enough
        words = {"better": [], "worse": [], "no clear difference": []}
        for measure, (_, low, high) in its["ahead"].items():
            verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
            words[verdict].append(MEASURES[measure])
        found = [f"{verdict} in {' and '.join(measures)}" for verdict, measures in words.items() if measures]
        lines.append(f"Compared with {shown(name, 20)}, this model: {'; '.join(found)}.")
    classes = report["classes"].items()
    silent = [(label, its["texts"]) for label, its in classes if its["texts"] and its["precision"] is None]
    for label, n in silent[:MOST_PAIRS]:
        lines.append(f'"{shown(label, 30)}" is never predicted; test texts of this class: {n:,} of {report["texts"]:,}')
    if len(silent) > MOST_PAIRS:
        lines.append(f"and {len(silent) - MOST_PAIRS} more classes are never predicted")
    if silent and advice:
        lines.append(advice)
    return ["", *lines]
