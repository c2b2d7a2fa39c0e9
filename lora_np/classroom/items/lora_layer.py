"""Set 05, the LoRA layer: forward, backward, start and merging."""

import numpy as np

from ...adapters import AdapterConfig, lora
from ..item import Item


def draw_layer(rng, size):
    """One adapted layer in the midst of training: B is not zero, and the scale is not 1."""
    return {
        "x": rng.normal(size=(size.N, size.n_in)),
        "W": rng.normal(size=(size.n_out, size.n_in)),
        "b": rng.normal(size=size.n_out),
        "A": rng.normal(size=(size.r, size.n_in)),
        "B": rng.normal(size=(size.n_out, size.r)),
        "s": size.alpha / size.r,
    }


def config_of(r, s, **more):
    """The package's settings of an adapter with this rank and this scale."""
    return AdapterConfig(r=r, alpha=s * r, **more)


def factors(i):
    return {"α/r": i.s, "r": i.size.r, "α": i.size.alpha, "N (the number of rows)": i.size.N, "2": 2.0}


# ---------------------------------------------------------------- forward


def right_forward(x, W, b, A, B, s):
    return lora.forward(x, W, b, {"lora_A": A, "lora_B": B}, config_of(len(A), s))[0]


FORWARD = Item(
    name="lora_forward",
    arguments="x, W, b, A, B, s",
    outputs=("y",),
    task="The adapted layer's output, without forming ΔW.",
    draw=draw_layer,
    right=right_forward,
    factors=factors,
    mistakes={
        "y": [
            ("the scale s = α/r is missing on the adapter's path", lambda i: i.x @ i.W.T + i.b + i.x @ i.A.T @ i.B.T),
            ("the adapter's path is missing: this is the base's output", lambda i: i.x @ i.W.T + i.b),
            ("the bias is missing", lambda i: i.right["y"] - i.b),
            ("the bias is subtracted", lambda i: i.right["y"] - 2 * i.b),
            ("the base's path x Wᵀ is missing", lambda i: i.right["y"] - i.x @ i.W.T),
            ("the adapter's path is multiplied by s twice", lambda i: bent(i, i.s**2)),
            ("the adapter's path is multiplied by α and not by α/r", lambda i: bent(i, i.size.alpha)),
            ("the adapter's path is divided by s, not multiplied", lambda i: bent(i, 1 / i.s)),
            ("the adapter's path is subtracted, not added", lambda i: bent(i, -i.s)),
            ("s multiplies the base's output too", lambda i: i.s * i.right["y"] + (1 - i.s) * i.b),
            ("the scale multiplies the whole output, bias and all", lambda i: i.s * bent(i, 1.0)),
        ]
    },
    hints={"y": "Two paths lead from x to y, and one number stands on one of them alone."},
    formula="y = x Wᵀ + b + s (x Aᵀ) Bᵀ",
)


def bent(i, scale):
    """The layer's output with another scale on the adapter's path."""
    return i.x @ i.W.T + i.b + scale * (i.x @ i.A.T) @ i.B.T


# ---------------------------------------------------------------- backward


def draw_backward(rng, size):
    layer = draw_layer(rng, size)
    dy = rng.normal(size=(size.N, size.n_out))
    return {"dy": dy, **{name: layer[name] for name in ("x", "W", "A", "B", "s")}}


def right_backward(dy, x, W, A, B, s):
    _, cache = lora.forward(x, W, None, {"lora_A": A, "lora_B": B}, config_of(len(A), s))
    dx, grads = lora.backward(dy, cache)
    return dx, grads["lora_A"], grads["lora_B"]


BACKWARD = Item(
    name="lora_backward",
    arguments="dy, x, W, A, B, s",
    outputs=("dx", "dA", "dB"),
    task="The gradients of the adapted layer, with W frozen.",
    draw=draw_backward,
    right=right_backward,
    factors=factors,
    mistakes={
        "dx": [
            ("dx lacks the adapter's path", lambda i: i.dy @ i.W),
            ("dx lacks the base's path", lambda i: i.s * i.dy @ i.B @ i.A),
            ("s is missing in the adapter's part of dx", lambda i: i.dy @ i.W + i.dy @ i.B @ i.A),
            ("the adapter's part of dx is multiplied by s twice", lambda i: i.dy @ i.W + i.s**2 * i.dy @ i.B @ i.A),
            ("the adapter's part of dx is subtracted", lambda i: i.dy @ i.W - i.s * i.dy @ i.B @ i.A),
            ("s multiplies the base's part of dx too", lambda i: i.s * (i.dy @ i.W + i.dy @ i.B @ i.A)),
        ],
        "dA": [
            ("dA is summed over the rows of x before the product", lambda i: summed_first(i.s * i.dy @ i.B, i.x)),
        ],
        "dB": [
            ("dB is summed over the rows before the product", lambda i: summed_first(i.s * i.dy, i.x @ i.A.T)),
        ],
    },
    hints={
        "dx": "x goes two ways in the forward pass. What comes back along each of them?",
        "dA": "u = x Aᵀ is a linear layer whose upstream gradient is du. Which factors stand between dy and du?",
        "dB": "z = (s u) Bᵀ is a linear layer whose input is s u.",
    },
    formula="dB = s dyᵀ u,  u = x Aᵀ\ndu = s dy B\ndA = duᵀ x\ndx = dy W + du A",
)


def summed_first(rows, others):
    return np.outer(rows.sum(axis=0), others.sum(axis=0))


# ---------------------------------------------------------------- the start


def draw_init(rng, size):
    return {"n_out": 40 * size.n_out, "n_in": 30 * size.n_in, "r": size.r, "rng": np.random.default_rng(size.r)}


def init_properties(i, outputs):
    A, B = (np.asarray(outputs[name], dtype=np.float64) for name in ("A", "B"))
    bound = 1 / np.sqrt(i.n_in)
    found = {"A": not_finite(A) or problem_of_A(A, i, bound), "B": not_finite(B) or problem_of_B(B, i)}
    if i.given["rng"].bit_generator.state == i.rng.bit_generator.state:
        found["A"] = found["A"] or "it does not come from rng, which has not moved: nobody could draw it again"
    return {name: found[name] or other_dtype(outputs[name]) for name in found}


def not_finite(array):
    return None if np.isfinite(array).all() else "it is not finite (NaN or infinity) throughout"


def other_dtype(output):
    dtype = np.asarray(output).dtype
    return None if dtype == np.float64 else f"it has dtype {dtype}, expected float64: it is going to be trained"


def problem_of_A(A, i, bound):
    if A.shape != (i.r, i.n_in):
        return f"it has shape {A.shape}, expected (r, in) = {(i.r, i.n_in)}"
    largest = float(np.abs(A).max())
    if largest == 0.0:
        return "it is zero: with both factors at zero neither has a gradient, and nothing ever moves"
    if np.std(A) < 1e-12 * largest:
        return "all its numbers are equal: its rows would stay equal for ever"
    if np.linalg.matrix_rank(A) < i.r:
        return "its rows depend on each other"
    if abs(A.mean()) > 0.2 * bound:
        return f"its mean is {A.mean():.2g}, expected near 0: it is drawn from an interval on both sides of 0"
    if largest > bound * (1 + 1e-12):
        looks = next((f": it looks like {name}" for name, b in other_bounds(i) if 0.9 * b < largest <= b), "")
        return f"its largest number is {largest:.3g}, expected at most 1/√in = {bound:.3g}{looks}"
    if largest < 0.9 * bound:
        looks = next((f": it looks like {name}" for name, b in other_bounds(i) if 0.9 * b < largest <= b), "")
        return f"its largest number is {largest:.3g}, expected nearly 1/√in = {bound:.3g}{looks}"
    if abs(A.std() * np.sqrt(3) / bound - 1) > 0.15:  # of U(±bound) it is bound / √3
        return f"it has standard deviation {A.std():.3g}; drawn uniformly from ±1/√in it has {bound / 3**0.5:.3g}"
    return None


def other_bounds(i):
    return [("U(±1)", 1.0), ("±1/in", 1 / i.n_in), ("±1/√r", i.r**-0.5), ("±1/√out", i.n_out**-0.5), ("±1/r", 1 / i.r)]


def problem_of_B(B, i):
    if B.shape != (i.n_out, i.r):
        return f"it has shape {B.shape}, expected (out, r) = {(i.n_out, i.r)}"
    if np.any(B):
        return "it is not zero: the adapted model would not start as the base"
    return None


INIT = Item(
    name="lora_init",
    arguments="n_out, n_in, r, rng",
    outputs=("A", "B"),
    task="The factors at the start of training.",
    draw=draw_init,
    right=lambda *inputs: None,
    properties=init_properties,
    hints={
        "A": "A is uniform in an interval around 0 that depends on the number of inputs.",
        "B": "At the start, ΔW = s B A has to be zero, whatever A is.",
    },
    formula="A ~ U(−1/√in, +1/√in) of shape (r, in);  B = 0 of shape (out, r)",
)


# ---------------------------------------------------------------- merging


def draw_merge(rng, size):
    layer = draw_layer(rng, size)
    return {name: layer[name] for name in ("W", "A", "B", "s")}


MERGE = Item(
    name="merge",
    arguments="W, A, B, s",
    outputs=("W_merged",),
    task="The weight that needs no adapter.",
    draw=draw_merge,
    right=lambda W, A, B, s: W + lora.delta(W, {"lora_A": A, "lora_B": B}, config_of(len(A), s)),
    factors=factors,
    mistakes={
        "W_merged": [
            ("s is missing in ΔW = s B A", lambda i: i.W + i.B @ i.A),
            ("this is ΔW alone: W is missing", lambda i: i.s * i.B @ i.A),
            ("ΔW is subtracted: this is unmerging", lambda i: i.W - i.s * i.B @ i.A),
            ("the scale is α and not α/r", lambda i: i.W + i.size.alpha * i.B @ i.A),
            ("the scale is applied to W too", lambda i: i.s * (i.W + i.B @ i.A)),
            ("ΔW is divided by s", lambda i: i.W + i.B @ i.A / i.s),
            ("nothing is merged: this is W", lambda i: i.W),
            ("s multiplies W alone", lambda i: i.s * i.W + i.B @ i.A),
        ]
    },
    hints={"W_merged": "Which single matrix does to every x what the two paths of the layer do together?"},
    formula="W_merged = W + s B A",
)

ITEMS = (MERGE, FORWARD, INIT, BACKWARD)
