"""Set 03, second part: a block put together, and two judges of a whole model, its surprise and what it looks at."""

import math

import numpy as np

from ...model.call import begin
from ...model.gpt2 import ModelConfig, block_forward
from ...model.initial import parameter_shapes
from ...model.layers import forward_layers
from ...model.passes import ForwardCache
from ...ops import attention_forward, cross_entropy_forward, embedding_forward, gelu_forward, linear_forward
from ...ops.layer_norm import layer_norm
from ..item import Item
from .attention_steps import normal

# ---------------------------------------------------------------- a block


class Parts(dict):
    """The parts of a block as functions, by their names; beside them the package's own `run`."""


def draw_block(rng, size):
    config = ModelConfig(size.V, size.F, size.C, 1, size.H, size.F)
    shapes = parameter_shapes(config).items()
    params = {name: rng.normal(float("ln" in name and "weight" in name), 0.5, shape) for name, shape in shapes}
    part = Parts({name: part_of(params, f"blocks.0.{name}") for name in ("ln1", "ln2")})
    for name in ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        part[name.split(".")[1]] = part_of(params, f"blocks.0.{name}")
    part["attention"] = lambda q, k, v: attention_forward(q, k, v, size.H)[0]
    part["gelu"] = lambda up: gelu_forward(up)[0]
    part.run = forward_layers(ForwardCache(begin(params, np.zeros((size.B, size.T), int), config), {}, {}, []))
    return {"x": normal(rng, size, "BTC"), "part": part}


def part_of(params, module):
    """A layer norm or a linear layer as a function of its input alone."""
    weight, bias = params[f"{module}.weight"], params[f"{module}.bias"]
    if weight.ndim == 1:
        return lambda x: layer_norm(x, weight, bias)
    return lambda x: linear_forward(x, weight, bias)[0]


def wired(i, norms=("ln1", "ln2"), order="qkv", o_proj="o_proj", gelu="gelu", around=(1, 1), through=(1, 1)):
    """The block with other parts in some places (None: nothing there), and its two ways around and its two branches
    each times a number."""
    part = {**i.part, None: lambda x: x}
    h = part[norms[0]](i.x)
    x = around[0] * i.x + through[0] * part[o_proj](part["attention"](*(part[f"{name}_proj"](h) for name in order)))
    h = part[norms[1]](x)
    return around[1] * x + through[1] * part["down_proj"](part[gelu](part["up_proj"](h)))


def side_by_side(i):
    return wired(i, through=(0, 1)) + wired(i, through=(1, 0)) - i.x


def norm_after(i):
    """As in the first transformers: x = ln1(x + attention(x)), x = ln2(x + mlp(x))."""
    middle = i.part["ln1"](wired(i, norms=(None, None), through=(1, 0)))
    return i.part["ln2"](middle + mlp(i, middle))


def from_normalised(i):
    """Both sums begin at what the layer norms give out."""
    h = i.part["ln1"](i.x)
    h = i.part["ln2"](wired(i, through=(1, 0)) - i.x + h)
    return h + mlp(i, h)


def behind_one_norm(i, name):
    """One of the two sums begins at what its layer norm gives out."""
    if name == "ln1":
        h, attention = i.part["ln1"](i.x), wired(i, through=(1, 0)) - i.x
        return h + attention + mlp(i, i.part["ln2"](h + attention))
    middle = wired(i, through=(1, 0))
    return i.right["y"] - middle + i.part["ln2"](middle)


def mlp(i, h):
    return i.part["down_proj"](i.part["gelu"](i.part["up_proj"](h)))


BLOCK = Item(
    name="block",
    arguments="x, part",
    outputs=("y",),
    task="A whole block out of its parts.",
    draw=draw_block,
    right=lambda x, part: block_forward(x, 0, part.run),
    mistakes={
        "y": [
            ("both ways around are missing: only the branches are there", lambda i: wired(i, around=(0, 0))),
            ("the way around attention is missing", lambda i: wired(i, around=(0, 1))),
            ("the way around the MLP is missing", lambda i: wired(i, around=(1, 0))),
            (
                "the way around the MLP begins at x, before attention: what attention found is lost on it",
                lambda i: i.x + wired(i, around=(1, 0)),
            ),
            ("attention is missing", lambda i: wired(i, through=(0, 1))),
            ("the MLP is missing", lambda i: wired(i, through=(1, 0))),
            ("the MLP reads x, and not what attention has added to it", side_by_side),
            ("each layer norm stands after its sum, not at the start of its branch", norm_after),
            ("the ways around begin behind the layer norms, which belong to the branches", from_normalised),
            (
                "the way around attention begins behind ln1, which belongs to the branch",
                lambda i: behind_one_norm(i, "ln1"),
            ),
            (
                "the way around the MLP begins behind ln2, which belongs to the branch",
                lambda i: behind_one_norm(i, "ln2"),
            ),
            ("one way leads around both halves, where each half has its own", lambda i: i.x + wired(i, around=(0, 0))),
            ("ln1 is missing", lambda i: wired(i, (None, "ln2"))),
            ("ln2 is missing", lambda i: wired(i, ("ln1", None))),
            ("both layer norms are missing", lambda i: wired(i, (None, None))),
            ("ln1 stands where ln2 belongs", lambda i: wired(i, ("ln1", "ln1"))),
            ("ln1 and ln2 are exchanged", lambda i: wired(i, ("ln2", "ln1"))),
            ("o_proj is missing", lambda i: wired(i, o_proj=None)),
            ("gelu is missing", lambda i: wired(i, gelu=None)),
            (
                "gelu stands behind down_proj, not before it",
                lambda i: wired(i, through=(1, 0)) + i.part["gelu"](wired(i, gelu=None) - wired(i, through=(1, 0))),
            ),
            ("q and k are exchanged", lambda i: wired(i, order="kqv")),
            ("k and v are exchanged", lambda i: wired(i, order="qvk")),
            ("q and v are exchanged", lambda i: wired(i, order="vkq")),
            ("q, k and v all come from one projection", lambda i: wired(i, order="qqq")),
            ("what attention gives is added twice", lambda i: i.right["y"] + wired(i, through=(1, 0)) - i.x),
            ("x is added twice", lambda i: i.x + i.right["y"]),
        ]
    },
    hints={"y": "Draw it. Two sums: what goes around each branch, and what does each branch read first?"},
    formula='h = part["ln1"](x);  q, k, v = part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)\n'
    'x = x + part["o_proj"](part["attention"](q, k, v))\n'
    'y = x + part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](x))))',
)

# ---------------------------------------------------------------- perplexity


def draw_perplexity(rng, size):
    """In the second draw the logits are around 1000, where exp overflows, and one target is so unlikely that its
    probability is 0 in float64; its surprise, some 760 nats, is an ordinary number."""
    logits = 1.5 * normal(rng, size, "BTV")
    targets = rng.integers(0, size.V, (size.B, size.T))
    if size.r == 3:
        logits += 1000.0
        logits[1, 2, targets[1, 2]] -= 760.0
    return {"logits": logits, "targets": targets}


def right_perplexity(logits, targets):
    return math.exp(cross_entropy_forward(logits, targets, wanted=())[0])


def log_p(i, axis=-1):
    """The logarithm of every share, (B, T, V), of a softmax along an axis."""
    x = i.logits - i.logits.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def surprise(i, axis=-1):
    """−log p of each target, (B, T), in nats."""
    return -np.take_along_axis(log_p(i, axis), i.targets[..., None], axis=-1)[..., 0]


def cut_off(smallest):
    return lambda i: np.exp(np.minimum(surprise(i), -np.log(smallest)).mean())


PERPLEXITY = Item(
    name="perplexity",
    arguments="logits, targets",
    outputs=("perplexity",),
    task="How many equally likely tokens would leave one as unsure; safe for large logits.",
    draw=draw_perplexity,
    right=right_perplexity,
    factors=lambda i: {"V": i.size.V, "e": math.e},
    mistakes={
        "perplexity": [
            ("this is the loss: exp is missing", lambda i: surprise(i).mean()),
            (
                "this is 1 / perplexity, the typical probability of a target: a sign is reversed",
                lambda i: np.exp(-surprise(i).mean()),
            ),
            (
                "2 to the power of a loss in nats: the base of the power and of the logarithm have to be the same",
                lambda i: 2 ** surprise(i).mean(),
            ),
            (
                "exp of a loss in bits: the base of the power and of the logarithm have to be the same",
                lambda i: np.exp(surprise(i).mean() / math.log(2)),
            ),
            ("the surprise is added up, not averaged", lambda i: np.exp(surprise(i).sum())),
            (
                "the perplexity of each token is averaged: average the surprise, and then take exp",
                lambda i: np.exp(surprise(i)).mean(),
            ),
            (
                "the perplexity of each text is averaged: average the surprise, and then take exp",
                lambda i: np.exp(surprise(i).mean(axis=1)).mean(),
            ),
            ("the probabilities are averaged, not their logarithms", lambda i: 1 / np.exp(-surprise(i)).mean()),
            (
                "the surprise is added up within each text and averaged over the texts alone",
                lambda i: np.exp(surprise(i).sum() / i.size.B),
            ),
            (
                "the surprise is divided by V as well: only targets count in the mean",
                lambda i: np.exp(surprise(i).mean() / i.size.V),
            ),
            ("only the last position of each text counts", lambda i: np.exp(surprise(i)[:, -1].mean())),
            ("only the first text counts", lambda i: np.exp(surprise(i)[0].mean())),
            ("the softmax runs along the positions, not along the vocabulary", lambda i: np.exp(surprise(i, 1).mean())),
            ("the softmax runs over a whole text at once", lambda i: np.exp(surprise(i, (1, 2)).mean())),
            (
                "the likeliest token's probability stands where the target's belongs",
                lambda i: right_perplexity(i.logits, i.logits.argmax(axis=-1)),
            ),
            (
                "each place is read at all places' targets, not at its own alone",
                lambda i: np.exp(-log_p(i)[:, :, i.targets].mean()),
            ),
            (
                "the targets are moved by one place: they are the next tokens already",
                lambda i: right_perplexity(i.logits[:, :-1], i.targets[:, 1:]),
            ),
            *[
                (
                    "a probability is kept from falling below a smallest one, so the largest surprise is made small",
                    cut_off(10.0**-n),
                )
                for n in range(6, 21)
            ],
        ]
    },
    hints={"perplexity": "Surprise, then its mean, then exp. Which number on the way may be too large, or too small?"},
    formula="log p_t = x_t − m − log Σ_j exp(x_j − m), m the row's largest logit;  perplexity = exp(mean of −log p_t)",
)

# ---------------------------------------------------------------- who reads whom


class Mixer:
    """A model of one layer: at each position it adds up the embeddings of some positions, each with a weight."""

    def __init__(self, weights, table, head):
        self.weights, self.table, self.head = weights, table, head

    def __call__(self, ids):
        x = self.weights @ embedding_forward(ids, self.table)[0]  # (T, T) (B, T, C) -> (B, T, C)
        return linear_forward(x, self.head)[0]  # (B, T, V)


def draw_reads(rng, size):
    """Causal but for one look ahead, as faint as through a mask of −20, and for two blind spots. Three columns of ids
    hold a token that somebody might put in its own place: the first of the vocabulary, the second and the last."""
    weights = np.tril(rng.uniform(0.5, 1.5, (size.T, size.T)))
    weights[1, 2] = 2e-9
    weights[2, 0] = weights[3, 1] = 0.0
    ids = rng.integers(2, size.V - 1, (size.B, size.T))
    ids[:, :3] = 0, 1, size.V - 1
    return {"model": Mixer(weights, normal(rng, size, "VC"), normal(rng, size, "VC")), "ids": ids, "V": size.V}


def seen(i, smallest=0.0):
    return np.abs(i.model.weights) > smallest


def put_in(i, token):
    """With one token put in everywhere: nothing is seen to change where it stood already."""
    return seen(i) & (i.ids != token).any(axis=0)


def running(i, order):
    """With all tokens on one side exchanged along with each one."""
    return np.logical_or.accumulate(seen(i)[:, ::order], axis=1)[:, ::order]


READS = Item(
    name="who_reads_whom",
    arguments="model, ids, V",
    outputs=("reads",),
    task="Which positions of a model depend on which tokens, found out from outside.",
    draw=draw_reads,
    right=lambda model, ids, V: (model.weights != 0).astype(int),
    mistakes={
        "reads": [
            (
                "this is what a causal model should do, and not what this one does",
                lambda i: np.tril(np.ones(seen(i).shape)),
            ),
            ("a faint change is taken for none: compare bit for bit", lambda i: seen(i, 1e-6)),
            ("where token 0 stood already, it has been exchanged for itself", lambda i: put_in(i, 0)),
            ("where token 1 stood already, it has been exchanged for itself", lambda i: put_in(i, 1)),
            ("where the last token stood already, it has been exchanged for itself", lambda i: put_in(i, i.V - 1)),
            ("the tokens before j are exchanged along with it: put each one back", lambda i: running(i, 1)),
            ("the tokens after j are exchanged along with it: exchange one alone", lambda i: running(i, -1)),
            ("True stands where nothing changes", lambda i: ~seen(i)),
            ("nothing changes anywhere: is the model called again, with a token exchanged?", lambda i: seen(i) & False),
            ("every position seems to depend on every token", lambda i: seen(i) | True),
            ("rows and columns are exchanged: row i holds what the logits at i depend on", lambda i: seen(i).T),
        ]
    },
    hints={"reads": "Exchange the token at j alone, and for another one. Where is any logit no longer the same?"},
    formula="changed = ids.copy();  changed[:, j] = (ids[:, j] + 1) % V\n"
    "reads[:, j] = (model(changed) != model(ids)).any(axis=(0, 2)), for each j",
)
