"""LoftQ: a start that makes up for rounding.

A base in NF4 is off from `W` by a rounding error. LoftQ lets `Q`, the quantised base, and the adapter share `W` between
them. It begins with `B A` = 0, and makes `rounds` rounds of two moves:

1. `Q` is the quantised form of what the adapter does not hold.
2. `s B A` is, as nearly as its rank allows, what `Q` does not hold.

`quantise(M)` is given to you: it returns what comes back from `M`, as an array of `M`'s shape. Give the last `Q`, `A`
and `B`. How `A` and `B` share their product is up to you this time.

**Predict first:** the error is ‖W − (Q + s B A)‖. Can move 2 make it larger? Can move 1? So must it fall from round to
round? **When it is right,** go beyond the points below, and see.
"""

import numpy as np

from .pissa_start import pissa_start, product

POINTS = 4
OUTPUTS = ("Q", "A", "B")
HINTS = {
    "Q": "Q and s B A together should be W. If s B A has a part of W already, what is left for Q to hold?",
    "B A": "Q is fixed here. What of W does it lack, and which matrix of rank r is nearest to that?",
}
FORMULA = "from B A = 0, `rounds` times:  Q ← quantise(W − s B A),  s B A ← the best of rank r for W − Q"


def loftq_start(W, quantise, r, s, rounds):
    """W (out, in), quantise: array -> array of its shape, r, s, rounds -> Q (out, in), A (r, in), B (out, r)."""
    held = np.zeros_like(W)  # (out, in): s B A
    for _ in range(rounds):
        Q = quantise(W - held)  # (out, in)
        U, sigma, Vt = np.linalg.svd(W - Q, full_matrices=False)
        root = np.sqrt(sigma[:r] / s)  # (r,)
        A, B = root[:, None] * Vt[:r], U[:, :r] * root  # (r, in), (out, r)
        held = s * B @ A
    return Q, A, B
    # Move 2 cannot: of all matrices of rank r it takes the best for this Q (Eckart–Young), and the old one is among
    # them. Move 1 can: it takes the nearest points, but on rulers that new largest weights set. So it need not.


def quantise(M):
    """What comes back from M with nine marks in each row, evenly spaced."""
    step = np.abs(M).max(axis=1, keepdims=True) / 4
    return np.rint(M / step) * step


def draw(rng, size):
    W = rng.normal(size=(2 * size.n_out, 2 * size.n_in))
    return {"W": W, "quantise": quantise, "r": size.r, "s": size.alpha / size.r, "rounds": [3, 2, 4][size.number]}


def compared(i, outputs):
    """The factors are free, their product is not. It is also right if s B A is the best for the student's own Q."""
    Q, part = outputs["Q"], product(i, outputs)
    if i.right and np.shape(Q) == i.W.shape and np.any(Q):
        missing, least = i.W - Q, pissa_start(i.W - Q, i.r, i.s)[2]  # and what the best leaves of it
        if np.allclose(missing - i.s * part, least, rtol=1e-5, atol=1e-6):
            part = i.right["B A"]
    return {"Q": Q, "B A": part}


def from_W(i):
    """Q if the adapter begins with the leading directions of W: as after a first round in which Q was zero."""
    return loftq_start(i.W, lambda M: 0 * M if np.array_equal(M, i.W) else quantise(M), i.r, i.s, i.rounds + 1)[0]


def older(i):
    _, A, B = loftq_start(i.W, quantise, i.r, i.s, i.rounds - 1)
    return B @ A


MISTAKES = {
    "Q": [
        ("it begins with the leading directions of W in the adapter, not with B A = 0", from_W),
        ("it is not quantised: this is W − s B A", lambda i: i.W - i.s * i.right["B A"]),
    ],
    "B A": [("it is a round older than Q: a round ends with the adapter", older)],
}

AFTER = """**Beyond the points.** Try a real matrix and more rounds. Type this in, and try another rank, such as 8:

    from lora_np.compress import quantise_nf4
    from lora_np.formats import load_pretrained

    W = load_pretrained()[0]["blocks.0.attn.v_proj.weight"].astype(float)  # (256, 256)
    for rounds in (1, 2, 3, 5, 7):
        Q, A, B = loftq_start(W, lambda M: np.asarray(quantise_nf4(M)), 128, 2.0, rounds)
        print(rounds, np.linalg.norm(W - Q - 2.0 * B @ A) / np.linalg.norm(W))

How would you make sure that no round makes the result worse?
"""
