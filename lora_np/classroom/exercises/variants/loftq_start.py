"""6. LoftQ: an initialisation that compensates for rounding errors (4 points).

A base that is quantised to NF4 differs from the original weight `W` by a rounding error. LoftQ approximates `W` by
`Q + s B A`, the sum of a quantised base and the adapter's update. It begins with `B A` = 0, and repeats two steps
`rounds` times:

1. Set `Q` to the quantised form of `W − s B A`.
2. Set `s B A` to the best rank-`r` approximation of `W − Q`.

`quantise(M)` is given: it quantises and dequantises `M`, and returns an array of the same shape. Compute the final `Q`,
`A` and `B`. Any `A` and `B` with the correct product are accepted.

**Predict first:** can step 2 increase the error ‖W − (Q + s B A)‖? Can step 1? So must the error decrease from round to
round? **When your code passes,** try *Beyond the points* below.
"""

import numpy as np

from .pissa_start import pissa_start, product

OUTPUTS = ("Q", "A", "B")
HINTS = {
    "Q": "The sum of Q and s B A should be W. If s B A already holds a part of W, what is left for Q?",
    "B A": "Q is fixed here. Which part of W is missing from Q, and which matrix of rank r is nearest to that part?",
}
FORMULA = "from B A = 0, `rounds` times:  Q ← quantise(W − s B A),  s B A ← the best rank-r approximation of W − Q"


def loftq_start(W, quantise, r, s, rounds):
    """W (out, in), quantise (a function that preserves shapes), r, s, rounds -> Q (out, in), A (r, in), B (out, r)."""
    sBA = np.zeros_like(W)  # (out, in)
    for _ in range(rounds):
        Q = quantise(W - sBA)  # (out, in)
        U, sigma, Vt = np.linalg.svd(W - Q, full_matrices=False)
        root = np.sqrt(sigma[:r] / s)  # (r,)
        A, B = root[:, None] * Vt[:r], U[:, :r] * root  # (r, in), (out, r)
        sBA = s * B @ A
    return Q, A, B
    # Step 2 cannot increase the error: it takes the best matrix of rank r for this Q (Eckart–Young), and the old matrix
    # is one of the candidates. Step 1 can: it rounds to the nearest levels, but the new largest weights change the
    # levels. So the error need not decrease.


def quantise(M):
    """Round each row of M to nine evenly spaced levels."""
    step = np.abs(M).max(axis=1, keepdims=True) / 4
    return np.rint(M / step) * step


def draw(rng, size):
    W = rng.normal(size=(2 * size.n_out, 2 * size.n_in))
    return {"W": W, "quantise": quantise, "r": size.r, "s": size.s, "rounds": [3, 2, 4][size.number]}


def compared(i, outputs):
    """Compare only the product of the factors. Also accept the product that is best for the student's own Q."""
    Q, part = outputs["Q"], product(i, outputs)
    if i.right and np.shape(Q) == i.W.shape and np.any(Q):
        missing, least = i.W - Q, pissa_start(i.W - Q, i.r, i.s)[2]  # least: the smallest remainder
        if np.allclose(missing - i.s * part, least, rtol=1e-5, atol=1e-6):
            part = i.right["B A"]
    return {"Q": Q, "B A": part}


def from_W(i):
    """Return the final Q if s B A starts as the best rank-r approximation of W, not as 0. An extra first round, in
    which Q is 0, gives this start."""
    return i.solve(quantise=lambda M: 0 * M if np.array_equal(M, i.W) else quantise(M), rounds=i.rounds + 1)[0]


MISTAKES = {
    "the updates of all rounds are subtracted, not only the last one": ("sBA = s * B @ A", "sBA = sBA + s * B @ A"),
    "the adapter begins with the leading directions of W, not with B A = 0": from_W,
    "Q is not quantised: this is W − s B A": lambda i: i.W - i.s * i.right["B A"],
    "B A is one round older than Q": lambda i: np.matmul(*i.solve(rounds=i.rounds - 1)[:0:-1]),
}

AFTER = """**Beyond the points.** Try a real matrix and more rounds. Type this in, then try another rank, such as 8:

    from lora_np.compress import quantise_nf4
    from lora_np.formats import load_pretrained

    W = load_pretrained()[0]["blocks.0.attn.v_proj.weight"].astype(float)  # (256, 256)
    for rounds in (1, 2, 3, 5, 7):
        Q, A, B = loftq_start(W, lambda M: np.asarray(quantise_nf4(M)), 128, 2.0, rounds)
        print(rounds, np.linalg.norm(W - Q - 2.0 * B @ A) / np.linalg.norm(W))

How would you make sure that no round makes the result worse?
"""
