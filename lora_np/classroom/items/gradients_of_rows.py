"""Set 02, second part: softmax, cross-entropy and layer norm, where the entries of a row hang together."""

import math

import numpy as np

from ...ops import cross_entropy_backward, cross_entropy_forward, layer_norm_backward, softmax_backward
from ...ops.layer_norm import LayerNormCache, normalise, row_mean
from ...ops.softmax import SoftmaxCache, softmax
from ..item import Item

# ---------------------------------------------------------------- softmax


def draw_softmax(rng, size):
    shape = (size.N, size.V)  # the lesson's (N, K)
    return {"dp": rng.normal(size=shape), "p": softmax(rng.normal(size=shape))}


def right_softmax(dp, p):
    return softmax_backward(dp, SoftmaxCache(p)).dx


def total(array, axis=-1):
    return array.sum(axis=axis, keepdims=True)


SOFTMAX = Item(
    name="softmax_backward",
    arguments="dp, p",
    outputs=("dx",),
    task="The gradient of softmax, row by row, from its output.",
    draw=draw_softmax,
    right=right_softmax,
    factors=lambda i: {"N (the rows)": i.size.N, "K (the entries of a row)": i.size.V},
    mistakes={
        "dx": [
            ("only the numerator is derived: the other way, through the sum, is missing", lambda i: i.p * i.dp),
            ("each p_i is derived by its own x_i alone", lambda i: i.p * (1 - i.p) * i.dp),
            ("dp is missing: this is the diagonal of the derivatives", lambda i: i.p * (1 - i.p)),
            ("the factor p_i in front is missing", lambda i: i.dp - total(i.dp * i.p)),
            ("p is missing inside the sum", lambda i: i.p * (i.dp - total(i.dp))),
            ("a mean stands where a sum belongs", lambda i: i.p * (i.dp - total(i.dp * i.p) / i.size.V)),
            ("the sum runs down the columns, not along each row", lambda i: i.p * (i.dp - total(i.dp * i.p, 0))),
            ("the sum runs over all rows at once", lambda i: i.p * (i.dp - np.sum(i.dp * i.p))),
            ("the sum is added, not subtracted", lambda i: i.p * (i.dp + total(i.dp * i.p))),
            ("this is the gradient of log softmax", lambda i: i.dp - i.p * total(i.dp)),
        ]
    },
    hints={"dx": "x_i moves p_i, and through the sum in the denominator every other p_j. What does each pass on?"},
    formula="dx_i = p_i (dp_i − Σ_j dp_j p_j), row by row",
)

# ---------------------------------------------------------------- cross-entropy


def draw_entropy(rng, size):
    # No class is drawn twice: then a mistake in the places of the targets cannot hide.
    return {"logits": 2 * rng.normal(size=(size.N, size.V)), "targets": rng.choice(size.V, size.N, replace=False)}


def right_entropy(logits, targets):
    return cross_entropy_backward(1.0, cross_entropy_forward(logits, targets)[1]).dlogits


def entropy_factors(i):
    loss = float(cross_entropy_forward(i.logits, i.targets)[0])
    bits = {"ln 2 (bits in place of nats)": math.log(2)}
    return {"N (the rows)": i.size.N, "K (the classes)": i.size.V, "the loss": loss, **bits}


def one_hot(i, shift=0):
    return np.eye(i.size.V)[(i.targets + shift) % i.size.V]


def right_but_targets(i, entry):
    return np.where(one_hot(i) == 1, entry / i.size.N, i.right["dlogits"])


ENTROPY = Item(
    name="cross_entropy_backward",
    arguments="logits, targets",
    outputs=("dlogits",),
    task="The gradient of the mean cross-entropy with respect to the logits.",
    draw=draw_entropy,
    right=right_entropy,
    factors=entropy_factors,
    mistakes={
        "dlogits": [
            ("the target's own term is missing: this is p / N", lambda i: softmax(i.logits) / i.size.N),
            ("p is missing: only the target's own term is there", lambda i: -one_hot(i) / i.size.N),
            ("all entries but the target's are 0", lambda i: i.right["dlogits"] * one_hot(i)),
            ("the target's entry is set to −1/N: its own p is missing there", lambda i: right_but_targets(i, -1.0)),
            ("the logits stand where their softmax belongs", lambda i: (i.logits - one_hot(i)) / i.size.N),
            ("log p stands where p belongs", lambda i: (np.log(softmax(i.logits)) - one_hot(i)) / i.size.N),
            ("it is divided by K, the classes, not by N, the rows", lambda i: i.right["dlogits"] * i.size.N / i.size.V),
            (
                "every row has lost 1 at all rows' targets, not at its own alone",
                lambda i: (softmax(i.logits) - one_hot(i).sum(axis=0)) / i.size.N,
            ),
            (
                "this is the gradient with respect to the probabilities",
                lambda i: -one_hot(i) / softmax(i.logits) / i.size.N,
            ),
            ("the softmax runs down the columns", lambda i: (softmax(i.logits.T).T - one_hot(i)) / i.size.N),
            (
                "it has gone back through the softmax twice",
                lambda i: right_softmax(i.right["dlogits"], softmax(i.logits)),
            ),
            ("the target's place is one too far left", lambda i: (softmax(i.logits) - one_hot(i, -1)) / i.size.N),
        ]
    },
    hints={"dlogits": "One row's loss is log Σ_j exp(x_j) − x_t: derive both terms. How many rows share the mean?"},
    formula="dlogits = (softmax(logits) − onehot(targets)) / N",
)

# ---------------------------------------------------------------- layer norm


def draw_norm(rng, size):
    x = rng.normal(size=(size.N, size.C)) * rng.uniform(0.5, 2.0, (size.N, 1)) + rng.normal(size=(size.N, 1))
    x_hat, inv_std = normalise(x, 1e-5)
    return {"dy": rng.normal(size=x.shape), "x_hat": x_hat, "inv_std": inv_std, "w": rng.normal(1.0, 0.5, size.C)}


def right_norm(dy, x_hat, inv_std, w):
    return layer_norm_backward(dy, LayerNormCache(x_hat, inv_std, w, ("x", "weight", "bias")))


def bent_norm(i, mean=1.0, variance=1.0):
    """dx with its two means each times a number (or an array that broadcasts)."""
    d = i.dy * i.w
    return (d - mean * row_mean(d) - variance * i.x_hat * row_mean(d, i.x_hat)) * i.inv_std


def down_the_columns(i):
    d = i.dy * i.w
    return (d - d.mean(axis=0) - i.x_hat * (d * i.x_hat).mean(axis=0)) * i.inv_std


def w_outside(i):
    """The two means of dy, and w as a factor of the whole."""
    return (i.dy - row_mean(i.dy) - i.x_hat * row_mean(i.dy, i.x_hat)) * i.inv_std * i.w


NORM = Item(
    name="layer_norm_backward",
    arguments="dy, x_hat, inv_std, w",
    outputs=("dx", "dw", "db"),
    task="The gradients of layer normalisation, from what its forward pass has kept.",
    draw=draw_norm,
    right=right_norm,
    factors=lambda i: {"N (the rows)": i.size.N, "C (the columns)": i.size.C},
    mistakes={
        "dx": [
            ("the mean's term of layer norm is missing", lambda i: bent_norm(i, mean=0)),
            ("the variance's term of layer norm is missing", lambda i: bent_norm(i, variance=0)),
            ("the terms of mean and variance are missing: only the direct way is there", lambda i: bent_norm(i, 0, 0)),
            ("sums stand where means belong", lambda i: bent_norm(i, i.size.C, i.size.C)),
            ("a sum stands where a mean belongs, in the mean's term", lambda i: bent_norm(i, mean=i.size.C)),
            ("a sum stands where a mean belongs, in the variance's term", lambda i: bent_norm(i, variance=i.size.C)),
            ("the variance's term is added, not subtracted", lambda i: bent_norm(i, variance=-1)),
            ("the variance's term is twice as large as it should be", lambda i: bent_norm(i, variance=2)),
            ("the variance's term is half as large as it should be", lambda i: bent_norm(i, variance=0.5)),
            (
                "C − 1 stands in the variance's term, where C belongs",
                lambda i: bent_norm(i, variance=i.size.C / (i.size.C - 1)),
            ),
            ("inv_std stands once too often in the variance's term", lambda i: bent_norm(i, variance=i.inv_std)),
            ("x̂ is missing in front of the variance's term", lambda i: bent_norm(i, variance=1 / i.x_hat)),
            (
                "x̂ is missing inside the variance's mean",
                lambda i: bent_norm(i, variance=row_mean(i.dy * i.w) / row_mean(i.dy * i.w, i.x_hat)),
            ),
            ("the means run down the columns, not along each row", down_the_columns),
            ("w is missing", lambda i: w_outside(i) / i.w),
            ("w multiplies the result, and is missing inside the means", w_outside),
            ("inv_std is missing", lambda i: i.right["dx"] / i.inv_std),
            (
                "inv_std multiplies the direct way alone",
                lambda i: i.dy * i.w * (i.inv_std - 1) + i.right["dx"] / i.inv_std,
            ),
            ("it is divided by inv_std, not multiplied", lambda i: i.right["dx"] / i.inv_std**2),
        ],
        "dw": [
            ("w stands in dw, where x̂ alone belongs", lambda i: i.w * i.right["dw"]),
            ("x less its mean stands in dw, where x̂ belongs", lambda i: np.sum(i.dy * i.x_hat / i.inv_std, axis=0)),
        ],
        "db": [("w stands in db, where dy alone belongs", lambda i: i.w * i.right["db"])],
    },
    hints={
        "dx": "Three ways lead from x_i to its row's x̂: directly, by the mean, by the variance. What does each give?",
        "dw": "w_c multiplies column c of x̂, in every row.",
        "db": "b_c is added to column c, in every row.",
    },
    formula="db = Σ_n dy,  dw = Σ_n dy ⊙ x̂,  dx̂ = dy ⊙ w\n"
    "dx = (dx̂ − mean(dx̂) − x̂ ⊙ mean(dx̂ ⊙ x̂)) · inv_std, the means along each row",
)
