"""Set 06, full fine-tuning and LoRA: what the head reads, how good a model is and how sure of it one may be; the
optimiser and the project are in `training_loop.py`."""

import math

import numpy as np

from ...analysis import argmax_agreement
from ...model.layers import at_read
from ...ops.softmax import softmax
from ..item import Item
from .attention_steps import normal
from .training_loop import ADAMW, FIT

# ---------------------------------------------------------------- what the head reads


def draw_read(rng, size):
    """Texts of different lengths, of which none fills the array: one step too far is then a number and no error."""
    return {"h": normal(rng, size, "BTC"), "lengths": rng.permutation(np.arange(2, size.T))[: size.B]}


def right_read(h, lengths):
    return at_read(h, lengths - 1)[:, 0]


def real(i):
    """1 at a text's own tokens, 0 at the padding, (B, T, 1)."""
    return (np.arange(i.size.T) < i.lengths[:, None])[..., None].astype(float)


READ = Item(
    name="read_last",
    arguments="h, lengths",
    outputs=("pooled",),
    task="The position of each text that the head reads, its last real token.",
    draw=draw_read,
    right=right_read,
    factors=lambda i: {"T (the positions)": i.size.T},
    mistakes={
        "pooled": [
            ("this is the last position of the array, and there is padding", lambda i: i.h[:, -1]),
            (
                "this is the position after the last token, the first of the padding",
                lambda i: right_read(i.h, i.lengths + 1),
            ),
            ("this is the last token but one", lambda i: right_read(i.h, i.lengths - 1)),
            ("this is the first position, which has seen nothing but itself", lambda i: i.h[:, 0]),
            ("the positions are counted from the end", lambda i: right_read(i.h, i.size.T - i.lengths + 1)),
            ("the positions are counted from the end", lambda i: right_read(i.h, i.size.T - i.lengths)),
            ("this is the mean over a text's real tokens", lambda i: (i.h * real(i)).sum(axis=1) / i.lengths[:, None]),
            ("this is the mean over all positions, padding and all", lambda i: i.h.mean(axis=1)),
            ("this is the sum over a text's real tokens", lambda i: (i.h * real(i)).sum(axis=1)),
            ("all texts are read where the longest one ends", lambda i: i.h[:, i.lengths.max() - 1]),
            ("all texts are read where the shortest one ends", lambda i: i.h[:, i.lengths.min() - 1]),
            ("the largest number of each column is taken", lambda i: i.h.max(axis=1)),
        ]
    },
    hints={"pooled": "A text of one token: at which position does it stand? And a text of two? Each row has its own."},
    formula="pooled[b] = h[b, lengths[b] − 1];  h[np.arange(B), lengths - 1]",
)

# ---------------------------------------------------------------- how good it is


def draw_accuracy(rng, size):
    """The logits lean towards the label, so that about half of the rows are right. Some of the winners are below 0."""
    N, K = 6 * size.N, size.V
    labels = rng.integers(0, K - 2, N)
    return {"logits": rng.normal(-1.5, 1.0, (N, K)) + 1.8 * np.eye(K)[labels], "labels": labels}


def share(hits):
    return float(np.mean(hits))


def of_label(i, array):
    return array[np.arange(len(array)), i.labels]


def of_classes(i):
    """The mean of the accuracies within each class that occurs."""
    hits = i.logits.argmax(axis=1) == i.labels
    return share([share(hits[i.labels == label]) for label in np.unique(i.labels)])


ACCURACY = Item(
    name="accuracy",
    arguments="logits, labels",
    outputs=("accuracy",),
    task="The share of rows that get the right class.",
    draw=draw_accuracy,
    right=lambda logits, labels: argmax_agreement(logits, np.eye(logits.shape[1])[labels]),
    factors=lambda i: {
        "N (the rows): this is how many are right": len(i.labels),
        "K (the classes)": i.logits.shape[1],
        "100 (it is in per cent)": 100.0,
    },
    mistakes={
        "accuracy": [
            ("this is the share of the wrong ones", lambda i: 1 - i.right["accuracy"]),
            ("the smallest logit wins, not the largest", lambda i: share(i.logits.argmin(axis=1) == i.labels)),
            (
                "the classes are counted from 1, and the labels from 0",
                lambda i: share(i.logits.argmax(axis=1) + 1 == i.labels),
            ),
            (
                "the label's logit is asked to be above 0, whatever the others are",
                lambda i: share(of_label(i, i.logits) > 0),
            ),
            (
                "the label's probability is asked to be above ½, whatever the others are",
                lambda i: share(of_label(i, softmax(i.logits)) > 0.5),
            ),
            (
                "this is the label's probability, averaged over the rows",
                lambda i: share(of_label(i, softmax(i.logits))),
            ),
            (
                "every logit is taken for an answer of its own, right or wrong: above 0 or not",
                lambda i: share((i.logits > 0) == np.eye(i.logits.shape[1])[i.labels]),
            ),
            (
                "every class of a row is counted, also those that were rightly not chosen",
                lambda i: 1 - 2 * (1 - i.right["accuracy"]) / i.logits.shape[1],
            ),
            ("this is the mean over the classes, each counting the same however often it occurs", of_classes),
            (
                "this counts the class that is chosen most often, not the right one",
                lambda i: np.bincount(i.logits.argmax(axis=1)).max() / len(i.labels),
            ),
        ]
    },
    hints={"accuracy": "Which class does a row choose, whatever the logits' size? In how many rows is it the label?"},
    formula="accuracy = the mean over the rows of (1 where argmax_k logits[n, k] = labels[n], else 0)",
)

# ---------------------------------------------------------------- how sure one may be


def draw_error(rng, size):
    return {"accuracy": float(rng.uniform(0.7, 0.9)), "n": 100 * size.N}


STANDARD_ERROR = Item(
    name="standard_error",
    arguments="accuracy, n",
    outputs=("error",),
    task="How far an accuracy on n snippets scatters from one set of snippets to another.",
    draw=draw_error,
    right=lambda accuracy, n: math.sqrt(accuracy * (1 - accuracy) / n),
    factors=lambda i: {
        "100 (it is in points)": 100.0,
        "√n": math.sqrt(i.n),
        "n": i.n,
        "2: that is the way to 95 in a hundred": 2.0,
        "1.96: that is the way to 95 in a hundred": 1.96,
    },
    mistakes={
        "error": [
            ("the root is missing: this is the variance", lambda i: i.right["error"] ** 2),
            ("the root is taken of a part alone: n stands outside", lambda i: i.right["error"] / math.sqrt(i.n)),
            ("n is missing: this is how far a single toss scatters", lambda i: i.right["error"] * math.sqrt(i.n)),
            ("the factor 1 − p is missing", lambda i: math.sqrt(i.accuracy / i.n)),
            ("the factor p is missing", lambda i: math.sqrt((1 - i.accuracy) / i.n)),
            ("p² stands where p (1 − p) belongs", lambda i: i.accuracy / math.sqrt(i.n)),
            ("1 − p² stands where p (1 − p) belongs", lambda i: math.sqrt((1 - i.accuracy**2) / i.n)),
            ("this does not depend on the accuracy: it is right at one half alone", lambda i: 0.5 / math.sqrt(i.n)),
            ("this does not depend on the accuracy: only n is there", lambda i: 1 / math.sqrt(i.n)),
            ("n − 1 stands where n belongs", lambda i: i.right["error"] * math.sqrt(i.n / (i.n - 1))),
            (
                "this is the standard error of the number of right ones, not of their share",
                lambda i: i.right["error"] * i.n,
            ),
        ]
    },
    hints={"error": "How far does one toss of this coin scatter, and what is left of it in a mean over n of them?"},
    formula="error = √( accuracy (1 − accuracy) / n )",
)

# ---------------------------------------------------------------- two models on the same snippets


def draw_hits(rng, size):
    """Four different numbers of snippets: both models right, the first alone, the second alone, neither."""
    both, first, second, neither = {2: (11, 7, 3, 5), 3: (17, 4, 9, 6)}[size.r]
    pairs = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], (both, first, second, neither), axis=0) == 1
    order = rng.permutation(len(pairs))
    return {"hits_one": pairs[order, 0].copy(), "hits_other": pairs[order, 1].copy()}


def right_difference(hits_one, hits_other):
    d = hits_one.astype(float) - hits_other
    return d.mean(), d.std() / math.sqrt(len(d))


def steps(i):
    return i.hits_one.astype(float) - i.hits_other


def of_one(hits):
    return STANDARD_ERROR.right(share(hits), len(hits))


def differ(i):
    """The share of the snippets of which exactly one model is right."""
    return share(i.hits_one != i.hits_other)


DIFFERENCE = Item(
    name="paired_difference",
    arguments="hits_one, hits_other",
    outputs=("difference", "error"),
    task="By how much one model is better than another on the same snippets, and how sure that is.",
    draw=draw_hits,
    right=right_difference,
    factors=lambda i: {
        "n (the snippets)": len(i.hits_one),
        "√n": math.sqrt(len(i.hits_one)),
        "100 (it is in points)": 100.0,
        "2": 2.0,
    },
    mistakes={
        "difference": [
            ("this is the share of the snippets on which they differ, whoever is right", differ),
            ("only the snippets are counted that the first alone has right", lambda i: share(steps(i) > 0)),
            (
                "this is the difference among the snippets on which they differ, not among all",
                lambda i: steps(i).mean() / differ(i),
            ),
            ("this is the quotient of the two accuracies", lambda i: share(i.hits_one) / share(i.hits_other)),
            ("this is the share of the snippets that both have right", lambda i: share(i.hits_one & i.hits_other)),
            ("this is the share of the snippets on which they agree", lambda i: 1 - differ(i)),
        ],
        "error": [
            (
                "the two are taken for accuracies on two separate test splits: both saw the same snippets",
                lambda i: math.hypot(of_one(i.hits_one), of_one(i.hits_other)),
            ),
            (
                "the standard errors of the two accuracies are added up",
                lambda i: of_one(i.hits_one) + of_one(i.hits_other),
            ),
            (
                "the standard errors of the two accuracies are subtracted",
                lambda i: abs(of_one(i.hits_one) - of_one(i.hits_other)),
            ),
            ("this is the standard error of the first model's accuracy", lambda i: of_one(i.hits_one)),
            ("this is the standard error of the second model's accuracy", lambda i: of_one(i.hits_other)),
            ("√n is missing: this is how far a single snippet's difference scatters", lambda i: steps(i).std()),
            ("n stands where √n belongs", lambda i: steps(i).std() / len(i.hits_one)),
            ("the root is missing: this is a variance", lambda i: i.right["error"] ** 2),
            (
                "the standard deviation divides by n − 1, where n belongs",
                lambda i: steps(i).std(ddof=1) / math.sqrt(len(i.hits_one)),
            ),
            ("the square of the mean difference is not taken off", lambda i: math.sqrt(differ(i) / len(i.hits_one))),
            (
                "this is the standard error of the share on which they differ, whoever is right",
                lambda i: STANDARD_ERROR.right(differ(i), len(i.hits_one)),
            ),
            (
                "the difference is taken for an accuracy, and √(p (1 − p) / n) made of it",
                lambda i: math.sqrt(abs(i.right["difference"]) * (1 - abs(i.right["difference"])) / len(i.hits_one)),
            ),
            (
                "the snippets on which they agree are left out",
                lambda i: steps(i)[steps(i) != 0].std() / math.sqrt(np.sum(steps(i) != 0)),
            ),
        ],
    },
    hints={
        "difference": "Write one number for each snippet that says who was better there. Which values can it have?",
        "error": "One number for each snippet, n of them: how far does their mean scatter? (It is no coin any more.)",
    },
    formula="d = hits_one − hits_other, for each snippet 1, 0 or −1\n"
    "difference = mean of d\nerror = (standard deviation of d) / √n",
)

ITEMS = (READ, ACCURACY, STANDARD_ERROR, DIFFERENCE, ADAMW, FIT)
