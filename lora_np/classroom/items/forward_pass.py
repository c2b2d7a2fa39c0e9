"""Set 03, the way forward: the embedding, layer norm and attention, a step at a time; what needs the whole block or
model is in `whole_model.py`."""

import numpy as np

from ...ops import attention_scores, embedding_forward
from ...ops.attention import merge_heads, split_heads
from ...ops.layer_norm import layer_norm
from ...ops.softmax import softmax
from ..item import Item
from .attention_steps import normal, turned
from .whole_model import BLOCK, PERPLEXITY, READS

# ---------------------------------------------------------------- embedding


def draw_embed(rng, size):
    """The position table, of F rows here, is longer than the texts. Each id would be a row of it, too, so that whoever
    takes the id for the position gets numbers and not an error; and none is 0, so that one less is a token as well."""
    return {
        "ids": rng.integers(1, size.F, (size.B, size.T)),
        "tok_emb": normal(rng, size, "VC"),
        "pos_emb": normal(rng, size, "FC"),
    }


def right_embed(ids, tok_emb, pos_emb):
    return embedding_forward(ids, tok_emb)[0] + embedding_forward(np.arange(ids.shape[1]), pos_emb)[0]


def tokens(i):
    return i.tok_emb[i.ids]


EMBED = Item(
    name="embed",
    arguments="ids, tok_emb, pos_emb",
    outputs=("x",),
    task="What the blocks read: what each token is, and where it stands.",
    draw=draw_embed,
    right=right_embed,
    factors=lambda i: {"2": 2.0},
    mistakes={
        "x": [
            ("the positions are missing", tokens),
            ("the tokens are missing", lambda i: i.right["x"] - tokens(i)),
            ("the positions begin at 1, not at 0", lambda i: tokens(i) + i.pos_emb[1 : i.size.T + 1]),
            (
                "these are the last T rows of the position table, not the first",
                lambda i: tokens(i) + i.pos_emb[-i.size.T :],
            ),
            ("the positions are in reverse order", lambda i: tokens(i) + i.pos_emb[: i.size.T][::-1]),
            ("every place has got the first position's row", lambda i: tokens(i) + i.pos_emb[0]),
            ("every place has got the last position's row", lambda i: tokens(i) + i.pos_emb[i.size.T - 1]),
            ("the position's row is looked up by the token's id", lambda i: tokens(i) + i.pos_emb[i.ids]),
            (
                "each text has got one row of the position table, by its number in the batch",
                lambda i: tokens(i) + i.pos_emb[: i.size.B, None],
            ),
            (
                "the positions go on counting from one text to the next, where each text begins at 0",
                lambda i: tokens(i) + i.pos_emb[np.arange(i.ids.size).reshape(i.ids.shape) % i.size.F],
            ),
            ("all rows of the position table are added to every token", lambda i: tokens(i) + i.pos_emb.sum(axis=0)),
            ("the two rows are multiplied, not added", lambda i: tokens(i) * i.pos_emb[: i.size.T]),
            ("the tokens are one off: id 0 is the first row", lambda i: right_embed(i.ids - 1, i.tok_emb, i.pos_emb)),
            (
                "the tokens' rows are multiplied by √C, as some models do and this one does not",
                lambda i: i.right["x"] + (np.sqrt(i.size.C) - 1) * tokens(i),
            ),
        ]
    },
    hints={"x": "Which row of which table says what stands at place t of text b? And which says that it is place t?"},
    formula="x[b, t] = tok_emb[ids[b, t]] + pos_emb[t]",
)

# ---------------------------------------------------------------- layer norm


def draw_norm(rng, size):
    """Every position has a mean and a spread of its own, and ε is large enough for its place to show."""
    x = normal(rng, size, "BTC") * rng.uniform(0.5, 2.0, (size.B, size.T, 1)) + rng.normal(size=(size.B, size.T, 1))
    return {"x": x, "w": rng.normal(1.0, 0.5, size.C), "b": rng.normal(size=size.C), "eps": rng.uniform(0.1, 0.3)}


def bent_norm(i, axis=-1, spread=lambda variance, eps: np.sqrt(variance + eps), numerator=None, **of_var):
    """Layer norm along other axes, with another divisor or another numerator."""
    over = {"axis": axis, "keepdims": True}
    numerator = i.x - i.x.mean(**over) if numerator is None else numerator
    return numerator / spread(i.x.var(**over, **of_var), i.eps) * i.w + i.b


def x_hat(i):
    return (i.right["y"] - i.b) / i.w


LAYER_NORM = Item(
    name="layer_norm",
    arguments="x, w, b, eps",
    outputs=("y",),
    task="Layer normalisation at each position, scaled and shifted.",
    draw=draw_norm,
    right=layer_norm,
    factors=lambda i: {"C": i.size.C, "T": i.size.T},
    mistakes={
        "y": [
            ("this is x̂: w and b are missing", x_hat),
            ("the scale w is missing", lambda i: x_hat(i) + i.b),
            ("the shift b is missing", lambda i: i.right["y"] - i.b),
            ("w and b are exchanged", lambda i: x_hat(i) * i.b + i.w),
            ("b is added before w multiplies", lambda i: (x_hat(i) + i.b) * i.w),
            ("x̂ is multiplied by 1 + w, not by w", lambda i: i.right["y"] + x_hat(i)),
            ("the mean is not taken off", lambda i: bent_norm(i, numerator=i.x)),
            (
                "the mean is taken off neither above nor in the variance: this is the RMS norm",
                lambda i: i.x / np.sqrt(np.mean(i.x**2, axis=-1, keepdims=True) + i.eps) * i.w + i.b,
            ),
            ("it is not divided by the standard deviation", lambda i: bent_norm(i, spread=lambda v, e: 1)),
            ("it is divided by the variance, not by its root", lambda i: bent_norm(i, spread=np.add)),
            (
                "it is multiplied by the standard deviation",
                lambda i: bent_norm(i, spread=lambda v, e: 1 / np.sqrt(v + e)),
            ),
            ("ε is missing", lambda i: bent_norm(i, spread=lambda v, e: np.sqrt(v))),
            (
                "ε is added to the standard deviation, outside the root",
                lambda i: bent_norm(i, spread=lambda v, e: np.sqrt(v) + e),
            ),
            (
                "ε is 1e-5, and not the eps that was given",
                lambda i: bent_norm(i, spread=lambda v, e: np.sqrt(v + 1e-5)),
            ),
            ("ε is squared", lambda i: bent_norm(i, spread=lambda v, e: np.sqrt(v + e * e))),
            ("the variance is divided by C − 1, not by C", lambda i: bent_norm(i, ddof=1)),
            (
                "a sum of squares stands where their mean belongs",
                lambda i: bent_norm(i, spread=lambda v, e: np.sqrt(v * i.size.C + e)),
            ),
            (
                "mean and variance run along the positions, not along each position's columns",
                lambda i: bent_norm(i, axis=1),
            ),
            ("mean and variance are those of a whole text", lambda i: bent_norm(i, axis=(1, 2))),
            ("mean and variance are those of the whole array", lambda i: bent_norm(i, axis=(0, 1, 2))),
            ("mean and variance run along the texts", lambda i: bent_norm(i, axis=0)),
        ]
    },
    hints={"y": "Take one row of C numbers. Which mean and which standard deviation must it have before w and b?"},
    formula="x̂ = (x − mean) / √(variance + ε), along the last axis, the variance divided by C;  y = x̂ ⊙ w + b",
)

# ---------------------------------------------------------------- heads

MIXED_UP = "this is reshape alone: the shape is right, and positions and heads are mixed up"
EVERY_H_TH = "the heads have every H-th column, not columns side by side"


def strided(x, H):
    """Column c given to head c mod H."""
    B, T, C = x.shape
    return x.reshape(B, T, C // H, H).transpose(0, 3, 1, 2)


HEADS = Item(
    name="split_heads",
    arguments="x, H",
    outputs=("x_heads",),
    task="The columns cut into heads.",
    draw=lambda rng, size: {"x": normal(rng, size, "BTC"), "H": size.H},
    right=split_heads,
    mistakes={
        "x_heads": [
            (MIXED_UP, lambda i: i.x.reshape(i.right["x_heads"].shape)),
            (EVERY_H_TH, lambda i: strided(i.x, i.H)),
            ("the heads are in reverse order", lambda i: i.right["x_heads"][:, ::-1]),
            (
                "positions and columns are exchanged before the reshape, and not back after it",
                lambda i: turned(i.x).reshape(i.right["x_heads"].shape),
            ),
            (
                "every head has the columns of the first one",
                lambda i: i.right["x_heads"][:, :1] + np.zeros((i.H, 1, 1)),
            ),
        ]
    },
    hints={"x_heads": "Cut the last axis alone in two. What shape is that, and which two axes must change places?"},
    formula="x.reshape(B, T, H, D).transpose(0, 2, 1, 3) with D = C / H",
)

# ---------------------------------------------------------------- scores


def right_scores(q, k):
    return attention_scores(merge_heads(q), merge_heads(k), q.shape[1])


def below(i, shift=0):
    """True where key j stands at query i + shift or before it."""
    return np.tri(i.size.T, k=shift, dtype=bool)


def numbers_and_mask(i, outputs):
    """The scores of keys that may be seen, and what kind of number stands in each place."""
    scores = outputs["scores"]
    if scores.shape != (*i.q.shape[:3], i.size.T):
        return {"numbers": scores, "mask": scores}
    return {"numbers": np.where(below(i), scores, 0.0), "mask": kinds(scores)}


def kinds(scores):
    """A code for each place: infinities, no number, 0, far below all scores of a draw, or an ordinary number."""
    kind = [np.isnan(scores), np.isneginf(scores), np.isposinf(scores), scores < -20.0, scores == 0.0]
    return np.select(kind, [5, 4, 3, 2, 1], 0)


def visible(i, scores):
    return np.where(below(i), scores, 0.0)


def fit(i, q, k):
    return q @ turned(k) / np.sqrt(i.size.D)


def masked(i, allowed, elsewhere=-np.inf):
    return kinds(np.where(allowed, fit(i, i.q, i.k), elsewhere))


SCORES = Item(
    name="causal_scores",
    arguments="q, k",
    outputs=("scores",),
    task="How well each key fits each query, masked.",
    draw=lambda rng, size: {"q": normal(rng, size, "BHTD"), "k": normal(rng, size, "BHTD")},
    right=right_scores,
    compared=numbers_and_mask,
    factors=lambda i: {"√D": i.size.D**0.5, "√H (it has √C for √D)": i.size.H**0.5},
    mistakes={
        "numbers": [
            ("they are transposed: queries belong in rows, keys in columns", lambda i: visible(i, fit(i, i.k, i.q))),
            ("they have gone through the softmax already", lambda i: visible(i, softmax(right_scores(i.q, i.k)))),
            ("they have gone through a softmax over all keys already", lambda i: visible(i, softmax(fit(i, i.q, i.k)))),
            ("they are divided by D, not by its root", lambda i: visible(i, fit(i, i.q, i.k)) / i.size.D**0.5),
            (
                "they are divided by √T, not by √D",
                lambda i: visible(i, fit(i, i.q, i.k)) * (i.size.D / i.size.T) ** 0.5,
            ),
            ("queries are multiplied by queries", lambda i: visible(i, fit(i, i.q, i.q))),
            ("keys are multiplied by keys", lambda i: visible(i, fit(i, i.k, i.k))),
            (
                "1 has been added to them: perhaps a mask of zeros and ones, where 0 and −∞ were meant",
                lambda i: visible(i, fit(i, i.q, i.k) + 1),
            ),
        ],
        "mask": [
            ("there is none: queries see the keys after them", lambda i: masked(i, True)),
            ("it is the wrong way round: the keys before each query are hidden", lambda i: masked(i, below(i).T)),
            ("each query's own position is hidden, too", lambda i: masked(i, below(i, -1))),
            ("each query still sees the one key after it", lambda i: masked(i, below(i, 1))),
            ("0 stands where −∞ belongs, and exp(0) is not 0", lambda i: masked(i, below(i), 0.0)),
            (
                "a negative number stands where −∞ belongs: only exp(−∞) is 0 whatever else stands in the row",
                lambda i: masked(i, below(i), -1e9),
            ),
            ("+∞ stands where −∞ belongs", lambda i: masked(i, below(i), np.inf)),
            (
                "scores have been multiplied by −∞: negative ones become +∞ by that",
                lambda i: kinds(fit(i, i.q, i.k) * np.where(below(i), 1, -np.inf)),
            ),
            (
                "zeros and ones have been multiplied by −∞, and 0 · ∞ is no number",
                lambda i: kinds(fit(i, i.q, i.k) + ~below(i) * -np.inf),
            ),
        ],
    },
    hints={
        "numbers": "Row i holds the products of q_i with the keys. How large is a sum of D terms of size 1?",
        "mask": "In row i, which columns j come after i? And of which number is exp exactly 0?",
    },
    formula="scores_ij = q_i · k_j / √D for j ≤ i, and −∞ for j > i, in each head",
)

# ---------------------------------------------------------------- context


def draw_attend(rng, size):
    probs = softmax(right_scores(normal(rng, size, "BHTD"), normal(rng, size, "BHTD")))
    return {"probs": probs, "v": normal(rng, size, "BHTD")}


def averages(i):
    return i.probs @ i.v  # (B, H, T, D)


def unmixed(i, heads):
    return heads.reshape(i.right["context"].shape)


ATTEND = Item(
    name="attend",
    arguments="probs, v",
    outputs=("context",),
    task="Each head's averages of its values, with the heads side by side.",
    draw=draw_attend,
    right=lambda probs, v: merge_heads(probs @ v),
    factors=lambda i: {"H": i.size.H, "T": i.size.T, "√D": i.size.D**0.5},
    mistakes={
        "context": [
            (MIXED_UP, lambda i: unmixed(i, averages(i))),
            (EVERY_H_TH, lambda i: unmixed(i, averages(i).transpose(0, 2, 3, 1))),
            ("the heads are put side by side in reverse order", lambda i: merge_heads(averages(i)[:, ::-1])),
            (
                "keys and queries are exchanged: it adds up over the queries that look at a key",
                lambda i: merge_heads(turned(i.probs) @ i.v),
            ),
            ("probs is missing: each position has its own value", lambda i: merge_heads(i.v)),
            (
                "probs is missing: every value has the same share, those of later positions too",
                lambda i: merge_heads(i.v.mean(axis=2, keepdims=True) + 0 * i.v),
            ),
            (
                "probs is missing: all values up to a position have the same share",
                lambda i: merge_heads(np.cumsum(i.v, axis=2) / np.arange(1, i.size.T + 1)[:, None]),
            ),
            (
                "each position takes the value with the largest share alone",
                lambda i: merge_heads(np.take_along_axis(i.v, i.probs.argmax(axis=-1)[..., None], axis=2)),
            ),
            ("probs has gone through a softmax once more", lambda i: merge_heads(softmax(i.probs) @ i.v)),
            ("all heads have looked with the shares of the first", lambda i: merge_heads(i.probs[:, :1] @ i.v)),
        ]
    },
    hints={"context": "Row i of a head's result is Σ_j prob_ij v_j. How is the cutting into heads undone, in order?"},
    formula="O = probs v, (B, H, T, D);  context = O.transpose(0, 2, 1, 3).reshape(B, T, H · D)",
)

ITEMS = (EMBED, LAYER_NORM, HEADS, SCORES, ATTEND, BLOCK, PERPLEXITY, READS)
