"""Set 04, the way back: the residual sum, the embedding, and what a step of descent promises; attention's part of the
way is in `attention_steps.py`."""

import numpy as np

from ...ops import add, embedding_backward, gelu_backward, gelu_forward, linear_forward
from ...ops.embedding import EmbeddingCache
from ...training.clip import global_norm
from ..item import Item
from .attention_steps import ATTEND, HALF, QUERY_KEY, SCORES, WAYS, linear_back, normal

# ---------------------------------------------------------------- one residual sum


def draw_residual(rng, size):
    """The branch is an MLP: up, GELU, down."""
    x, up, down = normal(rng, size, "BTC"), normal(rng, size, "FC"), normal(rng, size, "CF")
    act, cache = gelu_forward(linear_forward(x, up)[0])  # (B, T, F)
    back_up, back_down = linear_back(x, up), linear_back(act, down)
    return {
        "dy": normal(rng, size, "BTC"),
        "branch_backward": lambda d: back_up(gelu_backward(back_down(d), cache).dx),
    }


RESIDUAL = Item(
    name="residual_backward",
    arguments="dy, branch_backward",
    outputs=("dx",),
    task="The gradient of a residual sum, y = x + f(x).",
    draw=draw_residual,
    right=lambda dy, branch_backward: add(dy, branch_backward(dy)),
    factors=lambda i: {"2": 2.0},
    mistakes={
        "dx": [
            ("the way around the branch is missing: x reaches y as it is, too", lambda i: i.branch_backward(i.dy)),
            ("the way through the branch is missing", lambda i: i.dy),
            ("one way's gradient is subtracted", lambda i: i.dy - i.branch_backward(i.dy)),
            ("one way's gradient is subtracted", lambda i: i.branch_backward(i.dy) - i.dy),
            ("1 stands where dy belongs on the way around", lambda i: 1 + i.branch_backward(i.dy)),
            ("the branch has been given ones in place of dy", lambda i: i.dy + i.branch_backward(np.ones_like(i.dy))),
            ("the two ways are multiplied", lambda i: i.dy * i.branch_backward(i.dy)),
            (
                "what comes out of the branch is taken for a slope, and dy multiplied by it once more",
                lambda i: i.dy * (1 + i.branch_backward(i.dy)),
            ),
            ("dy has gone through the branch twice", lambda i: i.dy + i.branch_backward(i.branch_backward(i.dy))),
        ]
    },
    hints={"dx": "x reaches y by two ways. What comes back along the one on which nothing is done to it?"},
    formula="dx = dy + branch_backward(dy)",
)

# ---------------------------------------------------------------- what a small step promises


def draw_drop(rng, size):
    shapes = {"q_proj.weight": (size.C, size.C), "q_proj.bias": (size.C,), "up_proj.weight": (size.F, size.C)}
    return {"grads": {name: rng.normal(size=shape) for name, shape in shapes.items()}, "lr": 0.01 + 0.02 * rng.random()}


def each(i, number):
    """A number of each array, all added up."""
    return sum(float(number(g)) for g in i.grads.values())


DROP = Item(
    name="predicted_drop",
    arguments="grads, lr",
    outputs=("drop",),
    task="By how much a small step of gradient descent lowers the loss.",
    draw=draw_drop,
    right=lambda grads, lr: lr * global_norm(grads) ** 2,
    factors=lambda i: {
        "lr": i.lr,
        "2": 2.0,
        "the number of arrays": len(i.grads),
        "the number of parameters": sum(g.size for g in i.grads.values()),
    },
    mistakes={
        "drop": [
            ("the norm of the gradient is not squared", lambda i: i.lr * global_norm(i.grads)),
            ("the arrays' norms are added up without being squared", lambda i: i.lr * each(i, np.linalg.norm)),
            ("the norms are added up first and squared after that", lambda i: i.lr * each(i, np.linalg.norm) ** 2),
            ("each array's mean stands where its sum belongs", lambda i: i.lr * each(i, lambda g: np.mean(g**2))),
            ("the gradient's numbers are added up without being squared", lambda i: i.lr * each(i, np.sum)),
            ("the gradient's numbers are added up first and squared after that", lambda i: i.lr * each(i, np.sum) ** 2),
            ("the absolute values stand where the squares belong", lambda i: i.lr * each(i, lambda g: np.abs(g).sum())),
            ("this is the last array's part alone", lambda i: i.lr * np.sum(i.grads["up_proj.weight"] ** 2)),
            ("this is the first array's part alone", lambda i: i.lr * np.sum(i.grads["q_proj.weight"] ** 2)),
        ]
    },
    hints={"drop": "By how much does each parameter move, and by how much does the loss change for each unit of that?"},
    formula="drop = lr · Σ g², over every number of every array",
)

# ---------------------------------------------------------------- the embedding


def draw_ids(rng, size):
    """Few of the V tokens, so that some occur in both texts, some twice in one, and others never."""
    used = rng.choice(np.arange(1, size.V - 1), size.T - 1, replace=False)  # neither the first token nor the last
    ids = np.stack([rng.permutation(np.append(used, used[n % len(used)])) for n in range(size.B)])  # (B, T)
    return {"dy": normal(rng, size, "BTC"), "ids": ids, "V": size.V}


def scattered(i, texts=slice(None), joined=lambda old, new: old + new):
    """The table's gradient, place by place, with another way of joining a place's gradient to what is there."""
    table = np.zeros_like(i.right["dtable"])
    for token, d in zip(i.ids[texts].ravel(), i.dy[texts].reshape(-1, i.dy.shape[-1])):
        table[token] = joined(table[token], d)
    return table


def occurrences(i):
    return np.bincount(i.ids.ravel(), minlength=i.V)[:, None]  # (V, 1)


EMBEDDING = Item(
    name="embedding_backward",
    arguments="dy, ids, V",
    outputs=("dtable",),
    task="The gradient of an embedding table, in which a token may be looked up more than once.",
    draw=draw_ids,
    right=lambda dy, ids, V: embedding_backward(dy, EmbeddingCache(ids, (V, dy.shape[-1]))).dweight,
    factors=lambda i: {"B (the texts)": i.size.B, "T (the tokens of a text)": i.size.T, "B·T": i.size.B * i.size.T},
    mistakes={
        "dtable": [
            (
                "a token that occurs more than once has the gradient of its last place alone",
                lambda i: scattered(i, joined=lambda old, new: new),
            ),
            (
                "a token that occurs more than once has the gradient of its first place alone",
                lambda i: scattered(i, joined=lambda old, new: old if old.any() else new),
            ),
            (
                "a token's places are averaged, not added up",
                lambda i: i.right["dtable"] / np.maximum(occurrences(i), 1),
            ),
            ("only the first text has been counted", lambda i: scattered(i, slice(1))),
            ("only the last text has been counted", lambda i: scattered(i, slice(-1, None))),
            (
                "dy is missing: this counts how often each token occurs",
                lambda i: occurrences(i) + 0 * i.right["dtable"],
            ),
            (
                "a row for each position, not for each token: this is the position table's gradient",
                lambda i: np.pad(i.dy.sum(axis=0), ((0, i.V - i.size.T), (0, 0))),
            ),
        ]
    },
    hints={"dtable": "A row of the table is copied to wherever its token stands. What comes back from two copies?"},
    formula="dtable[i] = Σ dy[b, t] over all places (b, t) with ids[b, t] = i;  np.add.at(dtable, ids, dy)",
)

ITEMS = (RESIDUAL, DROP, EMBEDDING, ATTEND, SCORES, QUERY_KEY, WAYS, HALF)
