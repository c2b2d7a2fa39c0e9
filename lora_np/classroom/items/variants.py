"""Set 11, variants: another scale, and two learning rates; other starts are in `pissa_and_loftq.py`, and layers with a
formula of their own in `dora_and_vera.py`."""

import math

import numpy as np

from ...adapters import AdapterConfig, lora, scaling
from ...training import AdamW, adamw_update
from ..item import Item
from .dora_and_vera import DORA_BACKWARD, DORA_FORWARD, VERA
from .pissa_and_loftq import LOFTQ, PISSA

# ---------------------------------------------------------------- rsLoRA


def right_scale(alpha, r):
    s = scaling(AdapterConfig(r=r, alpha=alpha, rslora=True))
    return s, s / scaling(AdapterConfig(r=r, alpha=1.0))


def by_own_scale(i, outputs):
    """A mistake in s costs once: α is right, too, if it gives the student's own s."""
    s, alpha = outputs["s"], outputs["alpha_lora"]
    if s is not None and alpha is not None and np.ndim(s) == np.ndim(alpha) == 0:
        if np.isclose(alpha / i.r, s, rtol=1e-9):
            return {**outputs, "alpha_lora": np.float64(right_scale(i.alpha, i.r)[1])}
    return outputs


SCALE = Item(
    name="rslora_scale",
    arguments="alpha, r",
    outputs=("s", "alpha_lora"),
    task="rsLoRA's scale, and the α with which LoRA has it.",
    draw=lambda rng, size: {"alpha": size.alpha, "r": size.r},
    right=right_scale,
    compared=by_own_scale,
    factors=lambda i: {"√r": math.sqrt(i.r), "r": i.r, "α": i.alpha},
    mistakes={
        "s": [
            ("this is LoRA's scale", lambda i: i.alpha / i.r),
            ("the root is taken of the whole fraction", lambda i: math.sqrt(i.alpha / i.r)),
            ("the root is taken of α, and not of r", lambda i: math.sqrt(i.alpha) / i.r),
            ("α is multiplied by the root, not divided", lambda i: i.alpha * math.sqrt(i.r)),
            ("α is missing", lambda i: 1 / math.sqrt(i.r)),
            ("r is squared, where its root belongs", lambda i: i.alpha / i.r**2),
            ("this is α: it does not depend on r", lambda i: i.alpha),
            ("it is the wrong way up", lambda i: math.sqrt(i.r) / i.alpha),
        ],
        "alpha_lora": [
            ("this is the α that was given: with it, LoRA has another scale", lambda i: i.alpha),
            ("s is divided by r, not multiplied", lambda i: i.alpha / i.r**1.5),
            ("this is r times the α that was given", lambda i: i.alpha * i.r),
            (
                "this is the α with which rsLoRA has LoRA's scale, the other way round (or it is s itself)",
                lambda i: i.alpha / math.sqrt(i.r),
            ),
        ],
    },
    hints={
        "s": "At which power of r does s² r stay as it is when r grows?",
        "alpha_lora": "LoRA's s is its α over r. You know which s it shall be.",
    },
    formula="s = α/√r\nα_lora / r = s, so α_lora = α √r",
)

# ---------------------------------------------------------------- the first step


def draw_first(rng, size):
    return {
        "x": rng.normal(size=(size.N, size.n_in)),
        "dy": rng.normal(size=(size.N, size.n_out)),
        "A": rng.normal(size=(size.r, size.n_in)),
        "s": size.alpha / size.r,
        "lr": 0.01 * size.F,
    }


def step_of_B(x, dy, A, s, lr):
    """B after one step from zero, by gradient descent and by AdamW (with an ε that is all but 0)."""
    config, zeros = AdapterConfig(r=len(A), alpha=s * len(A)), np.zeros((dy.shape[1], len(A)))
    W = np.zeros((dy.shape[1], x.shape[1]))
    _, cache = lora.forward(x, W, None, {"lora_A": A, "lora_B": zeros}, config, wanted=("lora_B",))
    dB = lora.backward(dy, cache)[1]["lora_B"]
    start = {"B": zeros}
    return -lr * dB, adamw_update(start, {"B": dB}, start, start, 1, lr, AdamW(eps=1e-300))[0]["B"]


def adapter_output(x, A, B, s):
    """z = s u Bᵀ: the layer's output where the base's weight is zero."""
    parts = {"lora_A": A, "lora_B": B}
    return lora.forward(x, np.zeros((len(B), x.shape[1])), None, parts, AdapterConfig(r=len(A), alpha=s * len(A)))[0]


def right_first(x, dy, A, s, lr):
    return tuple(adapter_output(x, A, B, s) for B in step_of_B(x, dy, A, s, lr))


def dB_of(i):
    return i.s * i.dy.T @ (i.x @ i.A.T)


def sent(i, B):
    """What a B makes of the rows."""
    return adapter_output(i.x, i.A, B, i.s)


FIRST = Item(
    name="first_change",
    arguments="x, dy, A, s, lr",
    outputs=("by_descent", "by_adamw"),
    task="What the first step, from B = 0, does to the layer's output, by two optimisers.",
    draw=draw_first,
    right=right_first,
    factors=lambda i: {"lr": i.lr, "α/r": i.s, "N (the rows)": i.size.N, "r": i.size.r, "2": 2.0},
    mistakes={
        "by_descent": [
            (
                "s stands in it only once: it is in the gradient, and again in the output",
                lambda i: i.right["by_descent"] / i.s,
            ),
            ("s is missing: it is in the gradient, and again in the output", lambda i: i.right["by_descent"] / i.s**2),
            ("s stands in it three times", lambda i: i.right["by_descent"] * i.s),
            ("x stands where u = x Aᵀ belongs", lambda i: -i.lr * i.s**2 * (i.x @ i.x.T) @ i.dy),
            (
                "each row has only what it has caused itself: a step is the sum over all rows, and all rows feel it",
                lambda i: -i.lr * i.s**2 * np.sum((i.x @ i.A.T) ** 2, axis=1, keepdims=True) * i.dy,
            ),
            ("this is a step on y itself, −lr dy: what moves is B", lambda i: -i.lr * i.dy),
            ("the step is along the gradient, uphill, and not against it", lambda i: -i.right["by_descent"]),
            ("this is AdamW's first step", lambda i: i.right["by_adamw"]),
        ],
        "by_adamw": [
            (
                "this is gradient descent's step: AdamW's first one is as long for a small gradient as for a large one",
                lambda i: i.right["by_descent"],
            ),
            (
                "s stands in it twice: the sign of a gradient knows nothing of its size",
                lambda i: i.right["by_adamw"] * i.s,
            ),
            ("s is missing: it is in the output still", lambda i: i.right["by_adamw"] / i.s),
            ("the sign is taken of dy, not of dB", lambda i: -i.lr * sent(i, np.sign(i.dy).T @ (i.x @ i.A.T))),
            ("the sign is taken of dy, not of dB", lambda i: -i.lr * i.s * sent(i, np.sign(i.dy).T @ (i.x @ i.A.T))),
            ("the sign is taken of the output's change, not of dB", lambda i: i.lr * np.sign(i.right["by_descent"])),
            (
                "the gradient is divided by its length: AdamW divides each number by its own size",
                lambda i: -i.lr * sent(i, dB_of(i) / np.linalg.norm(dB_of(i))),
            ),
            (
                "the gradient is divided by its root mean square: AdamW divides each number by its own size",
                lambda i: -i.lr * sent(i, dB_of(i) / np.sqrt(np.mean(dB_of(i) ** 2))),
            ),
            (
                "the gradient is divided by its largest number: AdamW divides each number by its own size",
                lambda i: -i.lr * sent(i, dB_of(i) / np.abs(dB_of(i)).max()),
            ),
            (
                "each row of the gradient is divided by its length: AdamW divides each number by its own size",
                lambda i: -i.lr * sent(i, dB_of(i) / np.linalg.norm(dB_of(i), axis=1, keepdims=True)),
            ),
            (
                "m and v are not corrected for their start at zero: with both corrected, each number moves by lr",
                lambda i: i.right["by_adamw"] * 0.1 / math.sqrt(0.001),
            ),
            ("the step is along the sign of the gradient, uphill, and not against it", lambda i: -i.right["by_adamw"]),
        ],
    },
    hints={
        "by_descent": "What is dB at B = 0, and so B after the step? What is z then? Count the s's.",
        "by_adamw": "B after the step holds +lr and −lr alone. Where which? And what is z then?",
    },
    formula="u = x Aᵀ,  dB = s dyᵀ u\n"
    "by_descent: B = −lr dB, so z = s u Bᵀ = −lr s² (u uᵀ) dy\n"
    "by_adamw: B = −lr sign(dB), so z = −lr s u sign(dB)ᵀ",
)

# ---------------------------------------------------------------- LoRA+


def draw_moves(rng, size):
    A, B = (size.r, size.n_in), (size.n_out, size.r)
    arrays = {name: rng.normal(size=shape) for name, shape in {"A": A, "B": B, "dA": A, "dB": B}.items()}
    settings = {"s": size.alpha / size.r, "lr": 0.01 * size.F, "ratio": float(2 * size.C)}
    return {"x": rng.normal(size=(size.N, size.n_in)), **arrays, **settings}


def right_moves(x, A, B, dA, dB, s, lr, ratio):
    moved_A, moved_B = -lr * dA, -lr * ratio * dB
    return tuple(adapter_output(x, *pair, s) for pair in ((moved_A, B), (A, moved_B), (moved_A, moved_B)))


MOVED_TOO = "the other factor has moved in it already: that part belongs to `both`"

MOVES = Item(
    name="lora_plus_moves",
    arguments="x, A, B, dA, dB, s, lr, ratio",
    outputs=("through_A", "through_B", "both"),
    task="The three parts in which one step of LoRA+ moves the layer's output.",
    draw=draw_moves,
    right=right_moves,
    factors=lambda i: {"lr": i.lr, "lr²": i.lr**2, "ratio": i.ratio, "α/r": i.s, "lr · ratio": i.lr * i.ratio},
    mistakes={
        "through_A": [
            (MOVED_TOO, lambda i: i.right["through_A"] + i.right["both"]),
            ("A moves with the learning rate lr: the ratio is B's", lambda i: i.ratio * i.right["through_A"]),
            ("A moves with the learning rate lr: the ratio is B's", lambda i: i.right["through_A"] / i.ratio),
            ("A moves against its gradient", lambda i: -i.right["through_A"]),
            (
                "this is the adapter's output after A's move, not its change",
                lambda i: i.right["through_A"] + adapter_output(i.x, i.A, i.B, i.s),
            ),
            ("this is what B's move does", lambda i: i.right["through_B"]),
            ("B's gradient stands where B belongs", lambda i: adapter_output(i.x, -i.lr * i.dA, i.dB, i.s)),
        ],
        "through_B": [
            (MOVED_TOO, lambda i: i.right["through_B"] + i.right["both"]),
            ("the ratio is missing: B moves with lr times ratio", lambda i: i.right["through_B"] / i.ratio),
            ("B's learning rate is lr divided by the ratio", lambda i: i.right["through_B"] / i.ratio**2),
            (
                "the ratio is taken for B's learning rate itself: it is a multiple of lr",
                lambda i: i.right["through_B"] / i.lr,
            ),
            ("B moves against its gradient", lambda i: -i.right["through_B"]),
            (
                "this is the adapter's output after B's move, not its change",
                lambda i: i.right["through_B"] + adapter_output(i.x, i.A, i.B, i.s),
            ),
            ("this is what A's move does", lambda i: i.right["through_A"]),
            ("A's gradient stands where A belongs", lambda i: adapter_output(i.x, i.dA, -i.lr * i.ratio * i.dB, i.s)),
        ],
        "both": [
            ("both factors move against their gradients, and two minus signs make a plus", lambda i: -i.right["both"]),
            ("the ratio is missing: B moves with lr times ratio", lambda i: i.right["both"] / i.ratio),
            ("the ratio stands in it twice: it is B's alone", lambda i: i.right["both"] * i.ratio),
            ("lr stands in it once: each of the two moves has it", lambda i: i.right["both"] / i.lr),
            ("this is the sum of the two other parts", lambda i: i.right["through_A"] + i.right["through_B"]),
            (
                "this is the change in all: the two other parts are to be taken off",
                lambda i: i.right["through_A"] + i.right["through_B"] + i.right["both"],
            ),
            ("it is not zero: the two moves meet each other, if only a little", lambda i: 0 * i.right["both"]),
        ],
    },
    hints={
        "through_A": "Only A moves here, and B stands where it was. By how much does u move?",
        "through_B": "Only B moves here, and u is what it was. Which learning rate has B?",
        "both": "Multiply out (u + Δu)(B + ΔB)ᵀ. Which of the four terms have you not used yet?",
    },
    formula="ΔA = −lr dA,  ΔB = −lr · ratio · dB\n"
    "through_A = s (x ΔAᵀ) Bᵀ,  through_B = s (x Aᵀ) ΔBᵀ,  both = s (x ΔAᵀ) ΔBᵀ",
)

ITEMS = (SCALE, FIRST, MOVES, VERA, PISSA, LOFTQ, DORA_FORWARD, DORA_BACKWARD)
