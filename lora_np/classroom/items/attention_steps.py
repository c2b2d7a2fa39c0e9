"""Set 04, second part: back through attention, a step at a time, and then the attention half of a block."""

import numpy as np

from ...ops import (
    add,
    attention_backward,
    attention_forward,
    attention_scores,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
    softmax_backward,
)
from ...ops.attention import AttentionCache, split_heads
from ...ops.softmax import SoftmaxCache, softmax
from ..item import Item


def normal(rng, size, letters):
    """An array whose axes have the lengths that the letters of `item.SIZES` stand for."""
    return rng.normal(size=[getattr(size, letter) for letter in letters])


def linear_back(x, W):
    """The backward pass of x Wᵀ, as a function of dy alone; W is frozen."""
    cache = linear_forward(x, W, wanted=("x",))[1]
    return lambda dy: linear_backward(dy, cache).dx


# ---------------------------------------------------------------- back through the average of values


def draw_heads(rng, size):
    """(q, k, v, probs) of causal attention, in heads."""
    q, k, v = (normal(rng, size, "BTC") for _ in range(3))
    probs = softmax(attention_scores(q, k, size.H))  # (B, H, T, T)
    return *(split_heads(array, size.H) for array in (q, k, v)), probs


def draw_attend(rng, size):
    _, _, v, probs = draw_heads(rng, size)
    return {"dcontext": normal(rng, size, "BTC"), "probs": probs, "v": v.copy()}


def right_attend(dcontext, probs, v):
    # k is read by dq alone, which nobody asks for here; any array of its shape will do.
    grads = attention_backward(
        dcontext, AttentionCache(q=None, k=v, v=v, probs=probs, n_kv_heads=probs.shape[1], wanted=("q", "v"))
    )
    return grads.dprobs, split_heads(grads.dv, probs.shape[1])


def cut_by_reshape(i):
    """dcontext in heads without the exchange of two axes: numbers of other positions and heads in each place."""
    return i.dcontext.reshape(i.v.shape)


def heads(i):
    return split_heads(i.dcontext, i.size.H)


def strided_heads(i):
    """Column c given to head c mod H."""
    B, H, T, D = i.v.shape
    return i.dcontext.reshape(B, T, D, H).transpose(0, 3, 1, 2)


def turned(array):
    return array.swapaxes(-1, -2)


ATTEND = Item(
    name="attend_backward",
    arguments="dcontext, probs, v",
    outputs=("dprobs", "dv"),
    task="Back through context = probs v, head by head.",
    draw=draw_attend,
    right=right_attend,
    factors=lambda i: {"√D": i.size.D**0.5, "T": i.size.T},
    mistakes={
        "dprobs": [
            (
                "dcontext is cut into heads by reshape alone, so that positions and heads are mixed up",
                lambda i: cut_by_reshape(i) @ turned(i.v),
            ),
            (
                "the heads have taken every H-th column, not columns side by side",
                lambda i: strided_heads(i) @ turned(i.v),
            ),
            (
                "dprobs is set to 0 at keys after their query: probs is 0 there, its gradient is not",
                lambda i: np.tril(i.right["dprobs"]),
            ),
            (
                "dprobs is multiplied by probs: that belongs to the softmax, a step further back",
                lambda i: i.right["dprobs"] * i.probs,
            ),
            (
                "it has gone back through the softmax already",
                lambda i: softmax_backward(i.right["dprobs"], SoftmaxCache(i.probs)).dx,
            ),
        ],
        "dv": [
            (
                "dcontext is cut into heads by reshape alone, so that positions and heads are mixed up",
                lambda i: turned(i.probs) @ cut_by_reshape(i),
            ),
            (
                "the heads have taken every H-th column, not columns side by side",
                lambda i: turned(i.probs) @ strided_heads(i),
            ),
            (
                "keys and queries are exchanged: it adds up over the keys that a query looks at, not over the queries "
                "that look at a value",
                lambda i: i.probs @ heads(i),
            ),
            ("probs is missing: each position gets its own dcontext", heads),
            (
                "probs is missing: each value gets every position's dcontext in full",
                lambda i: heads(i).sum(axis=2, keepdims=True) + 0 * i.v,
            ),
        ],
    },
    hints={
        "dprobs": "prob_ij stands in context_i alone, as the factor of v_j. Each head has its own columns of dcontext.",
        "dv": "Which queries i have made use of value j, and how large was the share of each?",
    },
    formula="dO = dcontext in heads, (B, H, T, D)\ndprobs = dO vᵀ,  dv = probsᵀ dO, in each head",
)


def draw_scores(rng, size):
    return {"dprobs": normal(rng, size, "BHTT"), "probs": draw_heads(rng, size)[-1]}


def expected(i, axis=-1):
    return np.sum(i.dprobs * i.probs, axis=axis, keepdims=True)


SCORES = Item(
    name="scores_backward",
    arguments="dprobs, probs",
    outputs=("dscores",),
    task="Back through the causal softmax, from its output.",
    draw=draw_scores,
    right=lambda dprobs, probs: softmax_backward(dprobs, SoftmaxCache(probs)).dx,
    mistakes={
        "dscores": [
            ("the way through the softmax's denominator is missing", lambda i: i.probs * i.dprobs),
            ("each share is derived by its own score alone", lambda i: i.probs * (1 - i.probs) * i.dprobs),
            (
                "the factor probs in front is missing, so keys after their query get a gradient, too",
                lambda i: i.dprobs - expected(i),
            ),
            ("the sum runs over the queries, not over the keys", lambda i: i.probs * (i.dprobs - expected(i, -2))),
            ("probs is missing inside the sum", lambda i: i.probs * (i.dprobs - i.dprobs.sum(-1, keepdims=True))),
            (
                "probs is missing inside the sum, which is over the keys that may be looked at",
                lambda i: i.probs * (i.dprobs - np.tril(i.dprobs).sum(-1, keepdims=True)),
            ),
            ("a mean stands where a sum belongs", lambda i: i.probs * (i.dprobs - expected(i) / i.size.T)),
            ("the sum is added, not subtracted", lambda i: i.probs * (i.dprobs + expected(i))),
            ("the sum runs over a whole head at once", lambda i: i.probs * (i.dprobs - expected(i, (-2, -1)))),
        ]
    },
    hints={"dscores": "It is set 02's softmax with two axes more. Along which axis do the shares add up to 1?"},
    formula="dscores_ij = probs_ij (dprobs_ij − Σ_k dprobs_ik probs_ik)",
)


def draw_query_key(rng, size):
    q, k, _, probs = draw_heads(rng, size)
    dscores = softmax_backward(normal(rng, size, "BHTT"), SoftmaxCache(probs)).dx
    return {"dscores": dscores, "q": q.copy(), "k": k.copy()}


def right_query_key(dscores, q, k):
    """In each head the scores are a linear layer: its input is q / √D, and its weight k."""
    dq, dk, scale = np.empty_like(q), np.empty_like(k), q.shape[-1] ** -0.5
    for head in np.ndindex(q.shape[:2]):
        grads = linear_backward(dscores[head], linear_forward(q[head] * scale, k[head])[1])
        dq[head], dk[head] = grads.dx * scale, grads.dweight
    return dq, dk


def scaled(i, product):
    return product / np.sqrt(i.size.D)


QUERY_KEY = Item(
    name="query_key_backward",
    arguments="dscores, q, k",
    outputs=("dq", "dk"),
    task="Back through scores = q kᵀ / √D, in each head.",
    draw=draw_query_key,
    right=right_query_key,
    factors=lambda i: {"√D": i.size.D**0.5, "D": i.size.D, "√H (it has √C for √D)": i.size.H**0.5, "T": i.size.T},
    mistakes={
        "dq": [
            ("dscores is transposed in dq", lambda i: scaled(i, turned(i.dscores) @ i.k)),
            ("q stands in dq, where k belongs", lambda i: scaled(i, i.dscores @ i.q)),
            ("each query's own position is left out of dq", lambda i: scaled(i, np.tril(i.dscores, -1) @ i.k)),
            ("dq has the last key's part alone", lambda i: scaled(i, i.dscores[..., -1:] @ i.k[..., -1:, :])),
        ],
        "dk": [
            (
                "dscores is not transposed in dk: the sum runs along the keys, not along the queries",
                lambda i: scaled(i, i.dscores @ i.q),
            ),
            ("k stands in dk, where q belongs", lambda i: scaled(i, turned(i.dscores) @ i.k)),
            ("each key's own position is left out of dk", lambda i: scaled(i, turned(np.tril(i.dscores, -1)) @ i.q)),
            (
                "dk has the last query's part alone",
                lambda i: scaled(i, turned(i.dscores[..., -1:, :]) @ i.q[..., -1:, :]),
            ),
        ],
    },
    hints={
        "dq": "score_ij is q_i · k_j times a number. In which scores does q_i stand, and with which factor each?",
        "dk": "In which scores does k_j stand: along a row of scores, or down a column?",
    },
    formula="dq = dscores k / √D\ndk = dscoresᵀ q / √D, in each head",
)

# ---------------------------------------------------------------- the layer norm's output, which went three ways


def draw_ways(rng, size):
    gradients = {name: normal(rng, size, "BTC") for name in ("dq", "dk", "dv")}
    return gradients | {name: normal(rng, size, "CC") for name in ("Wq", "Wk", "Wv")}


def right_ways(dq, dk, dv, Wq, Wk, Wv):
    return add(*(linear_back(dy, W)(dy) for dy, W in ((dq, Wq), (dk, Wk), (dv, Wv))))


WAYS = Item(
    name="three_ways_backward",
    arguments="dq, dk, dv, Wq, Wk, Wv",
    outputs=("dh",),
    task="The gradient of h, from which q, k and v were made.",
    draw=draw_ways,
    right=right_ways,
    factors=lambda i: {"3 (the ways)": 3.0},
    mistakes={
        "dh": [
            ("the way through q is missing", lambda i: i.right["dh"] - i.dq @ i.Wq),
            ("the way through k is missing", lambda i: i.right["dh"] - i.dk @ i.Wk),
            ("the way through v is missing", lambda i: i.right["dh"] - i.dv @ i.Wv),
            ("only the way through q is there", lambda i: i.dq @ i.Wq),
            ("only the way through v is there", lambda i: i.dv @ i.Wv),
            (
                "the weights are transposed, as on the way forward",
                lambda i: i.dq @ i.Wq.T + i.dk @ i.Wk.T + i.dv @ i.Wv.T,
            ),
            (
                "the gradients are added up first: each has then gone through all three weights",
                lambda i: (i.dq + i.dk + i.dv) @ (i.Wq + i.Wk + i.Wv),
            ),
            ("all three have gone through Wq", lambda i: (i.dq + i.dk + i.dv) @ i.Wq),
            ("Wq and Wk are exchanged", lambda i: i.dq @ i.Wk + i.dk @ i.Wq + i.dv @ i.Wv),
            ("the three ways are multiplied", lambda i: (i.dq @ i.Wq) * (i.dk @ i.Wk) * (i.dv @ i.Wv)),
        ]
    },
    hints={"dh": "Each way is a linear layer without a bias. What does h get back from each, and from all of them?"},
    formula="dh = dq Wq + dk Wk + dv Wv",
)

# ---------------------------------------------------------------- half a block


def draw_half(rng, size):
    """Backward passes of all the parts, out of one forward pass of x + o_proj(attention(…(ln1(x))))."""
    x = normal(rng, size, "BTC")
    h, norm = layer_norm_forward(x, rng.normal(1.0, 0.5, size.C), rng.normal(size=size.C))
    W = {name: normal(rng, size, "CC") / size.C**0.5 for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    q, k, v = (linear_forward(h, W[name])[0] for name in ("q_proj", "k_proj", "v_proj"))
    context, attention = attention_forward(q, k, v, size.H)
    back = {name: linear_back(context if name == "o_proj" else h, W[name]) for name in W}
    back["attention"] = lambda d: attention_backward(d, attention)[:3]  # dq, dk, dv
    back["ln1"] = lambda d: layer_norm_backward(d, norm).dx
    return {"dy": normal(rng, size, "BTC"), "back": back}


def right_half(dy, back):
    return add(dy, back["ln1"](through_projections(back, back["o_proj"](dy))))


def through_projections(back, dcontext, order=(0, 1, 2), ways="qkv"):
    """dh; `order` says which of attention's three gradients is taken for dq, for dk, for dv."""
    found = back["attention"](dcontext)
    return add(*(back[f"{name}_proj"](found[n]) for name, n in zip("qkv", order) if name in ways))


def half(i, order=(0, 1, 2), ways="qkv"):
    return i.dy + i.back["ln1"](through_projections(i.back, i.back["o_proj"](i.dy), order, ways))


HALF = Item(
    name="attention_half_backward",
    arguments="dy, back",
    outputs=("dx",),
    task="Back through the attention half of a block, with every part's own backward pass at hand.",
    draw=draw_half,
    right=right_half,
    mistakes={
        "dx": [
            ("the way around the branch is missing", lambda i: half(i) - i.dy),
            (
                "dy of the way around has gone through ln1, which stands in the branch alone",
                lambda i: i.back["ln1"](i.dy + through_projections(i.back, i.back["o_proj"](i.dy))),
            ),
            ("the way around begins behind o_proj", lambda i: half(i) - i.dy + i.back["o_proj"](i.dy)),
            ("ln1 is left out", lambda i: i.dy + through_projections(i.back, i.back["o_proj"](i.dy))),
            ("o_proj is left out", lambda i: i.dy + i.back["ln1"](through_projections(i.back, i.dy))),
            ("q's way is missing", lambda i: half(i, ways="kv")),
            ("k's way is missing", lambda i: half(i, ways="qv")),
            ("v's way is missing", lambda i: half(i, ways="qk")),
            ("dq and dk are exchanged", lambda i: half(i, (1, 0, 2))),
            ("dq and dv are exchanged: attention gives dq, dk, dv", lambda i: half(i, (2, 1, 0))),
            ("the way around is counted twice", lambda i: half(i) + i.dy),
        ]
    },
    hints={"dx": "Draw the half with its arrows and turn each one round. Where did one arrow become two, or three?"},
    formula='dq, dk, dv = back["attention"](back["o_proj"](dy))\n'
    'dh = back["q_proj"](dq) + back["k_proj"](dk) + back["v_proj"](dv)\n'
    'dx = dy + back["ln1"](dh)',
)
