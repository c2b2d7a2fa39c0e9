"""Set 09, second part: from logits to what the next token is drawn from."""

import numpy as np

from ...model import Sampling, next_probabilities
from ...model.sampling import keep_top_k, keep_top_p
from ...ops.softmax import softmax
from ..item import Item
from .attention_steps import normal

# ---------------------------------------------------------------- temperature and top-k


def draw_logits(rng, size):
    """The rows stand on different levels; in the second draw so far apart that exp overflows, or is 0 throughout,
    unless each row is moved by its own largest logit."""
    levels, temperature, k = {2: ([0.0, 2.0], 1.6, 4), 3: ([0.0, 1000.0, -1000.0], 0.7, 5)}[size.r]
    logits = 1.5 * normal(rng, size, "BV") + np.reshape(levels, (-1, 1))
    return {"logits": logits, "temperature": temperature, "top_k": k}


def right_next(logits, temperature, top_k):
    nothing_yet = np.zeros((len(logits), 1), dtype=int)  # a text; only the repetition penalty looks at it
    return next_probabilities(logits, nothing_yet, Sampling(temperature=temperature, top_k=top_k))


def bent_next(i, k=None, power=1.0, cut=keep_top_k, softmax=softmax):
    """With another number of tokens, another power of 1/τ, another cut or another softmax."""
    return softmax(cut(i.logits, i.top_k if k is None else k) / i.temperature**power)


def of_all(x):
    return softmax(x.reshape(1, -1)).reshape(x.shape)


def cut_to_zero(logits, k):
    return np.where(np.isneginf(keep_top_k(logits, k)), 0.0, logits)


def least(logits, k):
    return np.where(np.isneginf(keep_top_k(-logits, k)), -np.inf, logits)


def of_whole_batch(logits, k):
    return keep_top_k(logits.reshape(1, -1), k).reshape(logits.shape)


def by_row(row):
    """The k-th logit of one row as everybody's limit."""
    return lambda logits, k: np.where(logits < np.sort(logits[row])[-k], -np.inf, logits)


def sorted_rows(probs):
    return -np.sort(-probs, axis=-1)


NEXT = Item(
    name="next_probabilities",
    arguments="logits, temperature, top_k",
    outputs=("probs",),
    task="What the next token is drawn from, with a temperature and top-k.",
    draw=draw_logits,
    right=right_next,
    factors=lambda i: {"the temperature": i.temperature},
    mistakes={
        "probs": [
            ("the temperature is missing", lambda i: bent_next(i, power=0)),
            ("the logits are multiplied by the temperature, not divided", lambda i: bent_next(i, power=-1)),
            ("the temperature has been at work twice", lambda i: bent_next(i, power=2)),
            ("the cut to k tokens is missing", lambda i: softmax(i.logits / i.temperature)),
            ("one token too few is kept, k − 1", lambda i: bent_next(i, i.top_k - 1)),
            ("one token too many is kept, k + 1", lambda i: bent_next(i, i.top_k + 1)),
            ("the k least likely tokens are kept", lambda i: bent_next(i, cut=least)),
            (
                "the first k tokens of the vocabulary are kept",
                lambda i: bent_next(i, cut=lambda z, k: np.where(np.arange(z.shape[1]) < k, z, -np.inf)),
            ),
            ("the logits that were cut are 0, and exp(0) is not", lambda i: bent_next(i, cut=cut_to_zero)),
            (
                "what is left does not add up to 1: the cut comes after the softmax, and nothing after the cut",
                lambda i: softmax(i.logits / i.temperature) * (right_next(i.logits, i.temperature, i.top_k) > 0),
            ),
            ("the k tokens are those of the whole batch, not of each row", lambda i: bent_next(i, cut=of_whole_batch)),
            ("every row is cut at the first row's k-th logit", lambda i: bent_next(i, cut=by_row(0))),
            ("every row is cut at the last row's k-th logit", lambda i: bent_next(i, cut=by_row(-1))),
            ("the whole batch adds up to 1, where each row should", lambda i: bent_next(i, softmax=of_all)),
            ("the k tokens all have the same probability", lambda i: (i.right["probs"] > 0) / i.top_k),
            (
                "the probabilities are sorted, and no longer where their tokens are",
                lambda i: sorted_rows(i.right["probs"]),
            ),
            (
                "the temperature divides probabilities, which then go through a softmax once more",
                lambda i: softmax(keep_top_k(softmax(i.logits), i.top_k) / i.temperature),
            ),
        ]
    },
    hints={"probs": "Two tokens' odds are exp of a difference of logits. What may then be taken off a whole row?"},
    formula="z = logits / τ, and −∞ where that is below its row's k-th largest;  probs = softmax(z), along each row",
)

# ---------------------------------------------------------------- the nucleus


def draw_nucleus(rng, size):
    """The first row reaches p exactly, whichever way one adds up, for its numbers are powers of ½. The second draw has
    a row besides whose likeliest token is above p by itself."""
    halves = 0.5 ** np.minimum(np.arange(1, size.V + 1), size.V - 1)
    unsure, sure = softmax(1.2 * normal(rng, size, "V")), softmax(normal(rng, size, "V") + 6 * np.eye(size.V)[2])
    rows = [halves, unsure, sure]
    return {"probs": rng.permuted(np.array(rows[: size.B]), axis=1), "p": {2: 0.75, 3: 0.875}[size.r]}


def right_nucleus(probs, p):
    """The package takes logits. Through a logarithm ½ + ¼ may round to either side of ¾, so its p is a hair lower."""
    return softmax(keep_top_p(np.log(probs), p * (1 - 1e-12)))


def kept(i, rule, order=None):
    """Probabilities of the tokens that stay, divided by their sum. `rule(sum before, sum with)` says in each row,
    in an order, the likeliest first unless it is given, which stay."""
    order = np.argsort(-i.probs, axis=-1) if order is None else order
    falling = np.take_along_axis(i.probs, order, axis=-1)
    upto = np.cumsum(falling, axis=-1)
    stays = np.empty(i.probs.shape, dtype=bool)
    np.put_along_axis(stays, order, rule(upto - falling, upto), axis=-1)
    return normed(i.probs * stays)


def normed(kept):
    return kept / kept.sum(axis=-1, keepdims=True)


def how_many(i):
    return np.count_nonzero(i.right["kept"], axis=-1)[:, None]


def fixed(i, count):
    """The likeliest `count` tokens of each row, a number or one for each row."""
    return kept(i, lambda before, upto: np.arange(i.probs.shape[1]) < count)


def through_order(i):
    """The rank's verdict taken for the token's: `stays[order]` where `stays[order] = …` belongs."""
    order = np.argsort(-i.probs, axis=-1)
    falling = np.take_along_axis(i.probs, order, axis=-1)
    stays = np.cumsum(falling, axis=-1) - falling < i.p
    return normed(i.probs * np.take_along_axis(stays, order, axis=-1))


def whole_order(i, order):
    return kept(i, lambda before, upto: before < i.p, order)


PLACES = "places in the sorted row are taken for tokens: those that stay are the first ones of the vocabulary"

NUCLEUS = Item(
    name="nucleus",
    arguments="probs, p",
    outputs=("kept",),
    task="Top-p: the fewest tokens that have a probability of p together.",
    draw=draw_nucleus,
    right=right_nucleus,
    factors=lambda i: {"p": i.p},
    mistakes={
        "kept": [
            (
                "the token that carries the sum to p or beyond it is missing",
                lambda i: kept(i, lambda before, upto: (upto <= i.p) | (before == 0)),
            ),
            (
                "the token that carries the sum to p or beyond it is missing, even where p is reached exactly",
                lambda i: kept(i, lambda before, upto: (upto < i.p) | (before == 0)),
            ),
            (
                "there is one token too many where p is reached exactly: p is enough",
                lambda i: kept(i, lambda before, upto: before <= i.p),
            ),
            ("there is one token too many in each row", lambda i: fixed(i, how_many(i) + 1)),
            ("what is left does not add up to 1", lambda i: i.probs * (i.right["kept"] > 0)),
            ("what is left is divided by p, and not by its own sum", lambda i: i.probs * (i.right["kept"] > 0) / i.p),
            (
                "what is left has gone through a softmax, as if it were logits",
                lambda i: softmax(np.where(i.right["kept"] > 0, i.probs, -np.inf)),
            ),
            ("all tokens that are left have the same probability", lambda i: normed((i.right["kept"] > 0) * 1.0)),
            (
                "the probabilities are sorted, and no longer where their tokens are",
                lambda i: sorted_rows(i.right["kept"]),
            ),
            (PLACES, lambda i: normed(i.probs * (np.arange(i.probs.shape[1]) < how_many(i)))),
            (PLACES, lambda i: normed(i.probs * (np.cumsum(sorted_rows(i.probs), axis=-1) <= i.p))),
            ("the way back from the sorted row is the way there once more", through_order),
            (
                "the sum runs in the order of the vocabulary, not from the likeliest on",
                lambda i: whole_order(i, np.tile(np.arange(i.probs.shape[1]), (len(i.probs), 1))),
            ),
            ("the sum begins with the least likely token", lambda i: whole_order(i, np.argsort(i.probs, axis=-1))),
            (
                "the order of the first row's tokens is used for all rows",
                lambda i: whole_order(i, np.tile(np.argsort(-i.probs[0]), (len(i.probs), 1))),
            ),
            (
                "each token is held against 1 − p by itself; p is for all of them together",
                lambda i: normed(i.probs * (i.probs >= 1 - i.p)),
            ),
            (
                "each token is held against p times the likeliest one; p is for all of them together",
                lambda i: normed(i.probs * (i.probs >= i.p * i.probs.max(axis=-1, keepdims=True))),
            ),
            ("all rows keep as many tokens as the first one", lambda i: fixed(i, how_many(i)[0])),
            ("all rows keep as many tokens as the last one", lambda i: fixed(i, how_many(i)[-1])),
            (
                "p is taken for a share of the tokens: p · V of them are kept",
                lambda i: fixed(i, round(i.p * i.probs.shape[1])),
            ),
        ]
    },
    hints={"kept": "Sort a row, the likeliest first, and add up. Which is the first sum that is p or more?"},
    formula="a token stays if those that are likelier add up to less than p;  kept = what stays, divided by its sum",
)
