"""6. A block (4 points).

All parts are ready; now wire them up. A block has two halves, each a branch with a residual connection, `x + f(x)`. The
dict `part` maps the parts' names to functions: `ln1`, `q_proj`, `k_proj`, `v_proj`, `o_proj`, `ln2`, `up_proj`, `gelu`,
`down_proj`, each mapping an array to an array, as in `h = part["ln1"](x)`; and `part["attention"](q, k, v)`, which
returns the context. All arrays are (N, T, C), except the MLP's hidden ones, (N, T, F).

**Draw it first**, from memory, with an arrow for each array: where does an arrow split into two or more, and where do
two meet? Then compare it with section 2 of the lesson. **Predict:** what does your block return if `o_proj` and
`down_proj` return zeros? (Shapes will not reveal a wrong connection: almost any two of these functions fit together.)
"""

import numpy as np

from .attend import attend
from .causal_scores import causal_scores
from .layer_norm import layer_norm
from .split_heads import split_heads

HINTS = {"y": "Draw it. There are two sums: what bypasses each branch, and what does each branch read first?"}
FORMULA = """h = part["ln1"](x);  q, k, v = part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)
middle = x + part["o_proj"](part["attention"](q, k, v))
y = middle + part["down_proj"](part["gelu"](part["up_proj"](part["ln2"](middle))))"""


def block(x, part):
    """x (N, T, C), part: dict of functions -> y (N, T, C)."""
    h = part["ln1"](x)  # (N, T, C): the branch reads x through a layer norm, the residual path does not
    q, k, v = part["q_proj"](h), part["k_proj"](h), part["v_proj"](h)  # (N, T, C) each
    context = part["attention"](q, k, v)  # (N, T, C)
    middle = x + part["o_proj"](context)  # (N, T, C), the first sum; x itself is not used after this

    h = part["ln2"](middle)  # (N, T, C)
    act = part["gelu"](part["up_proj"](h))  # (N, T, F)
    return middle + part["down_proj"](act)  # (N, T, C), the second sum
    # With zeros from o_proj and down_proj, the block returns x: a block only adds to x, and here it adds nothing.


def draw(rng, size):
    """Draw the parts, which are the functions of earlier exercises, each with its own weights."""

    def linear(n_out, n_in):
        W, b = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in), 0.5 * rng.normal(size=n_out)
        return lambda x: x @ W.T + b

    def norm():
        w, b = rng.normal(1.0, 0.5, size.C), 0.5 * rng.normal(size=size.C)
        return lambda x: layer_norm(x, w, b, 1e-5)

    def attention(q, k, v):
        weights = np.exp(causal_scores(split_heads(q, size.H), split_heads(k, size.H)))
        return attend(weights / weights.sum(axis=-1, keepdims=True), split_heads(v, size.H))

    part = {f"{name}_proj": linear(size.C, size.C) for name in "qkvo"}
    part |= {"up_proj": linear(size.F, size.C), "down_proj": linear(size.C, size.F), "ln1": norm(), "ln2": norm()}
    part |= {"attention": attention, "gelu": lambda x: x / (1 + np.exp(-1.702 * x))}  # nearly the model's
    return {"x": rng.normal(size=(size.B, size.T, size.C)), "part": part}


def half(i, x, silent):
    """Return x plus one branch's output, without its layer norm. `silent`, the other branch's last layer, returns 0."""
    return i.solve(x=x, part=i.part | dict.fromkeys(("ln1", "ln2"), lambda h: h) | {silent: lambda h: 0.0})


MISTAKES = {
    "ln1 is used twice": ("ln2", "ln1"),
    "the second branch reads only the output of the first, without x": ("(middle)", "(middle - x)"),
    "each layer norm comes after its sum, not at the start of its branch": lambda i: i.part["ln2"](
        half(i, i.part["ln1"](half(i, i.x, "down_proj")), "o_proj")
    ),
    "the residual paths begin after the layer norms, which belong to the branches": lambda i: half(
        i, i.part["ln2"](half(i, i.part["ln1"](i.x), "down_proj")), "o_proj"
    ),
}
