"""Mixing.

Several adapters have ranks, scales and weights of their own. Give one adapter whose update is exactly the weighted sum
of theirs. The result has no scale of its own (s = 1), and no more rows in `A` than all the others together. Weights may
be negative, need not add up to 1, and belong to names, not to places.

**On paper first,** for two adapters of rank 1: multiply out (B₁ + B₂)(A₁ + A₂). Which two of the four terms did nobody
ask for? Then find factors whose product has only the other two. **Predict:** what is the rank of a mix of an adapter
with itself, with weights 1 and −1? How many rows does `A` have then?
"""

import numpy as np

from ...exercise import Unfit

POINTS = 3
OUTPUTS = ("A", "B")
HINTS = {"B A": "Column by row, a product is a sum of outer products. Which should meet, and with which factor?"}
FORMULA = "A = [A₁; A₂; …], on top of each other;  B = [w₁ s₁ B₁, w₂ s₂ B₂, …], side by side"


def mix(adapters, weights):
    """adapters: dict, name -> (A (r, in), B (out, r), s), r may differ; weights: dict, name -> number
    -> A (R, in), B (out, R)."""
    # Column k of B meets row k of A and no other: Σ_k b_k a_k has every adapter's own outer products, and no more.
    A = np.concatenate([A_i for A_i, _, _ in adapters.values()], axis=0)  # (Σ r, in)
    B = np.concatenate([weights[name] * s_i * B_i for name, (_, B_i, s_i) in adapters.items()], axis=1)  # (out, Σ r)
    return A, B  # weights and scales are only on one side
    # B₁A₂ and B₂A₁ join what one adapter reads to what the other writes. An adapter minus itself is an update of zeros,
    # of rank 0; but A still has 2r rows. The rank of a sum is at most the sum of the ranks.


def draw(rng, size):
    """Ranks are equal or 1, so that even a sum of the factors is an array. The weights have another order than the
    adapters."""
    adapters, ranks = {}, [(2, 2, 2), (3, 1, 3), (1, 4, 4)][size.number]
    for name, r in zip(("critics", "licences", "praise"), ranks):
        A, B = rng.normal(size=(r, 3 * size.n_in)), rng.normal(size=(3 * size.n_out, r))
        adapters[name] = A, B, float(rng.uniform(0.5, 3.0))
    weights = dict(zip(("praise", "critics", "licences"), (rng.uniform(0.3, 1.5, 3) * [-1, 1, 1]).tolist()))
    return {"adapters": adapters, "weights": weights}


def compared(i, outputs):
    A, B, most = outputs["A"], outputs["B"], sum(len(A) for A, _, _ in i.adapters.values())
    if A.ndim == 2 and len(A) > most:
        raise Unfit(f"A has {len(A)} rows, but the ranks add up to {most}, which are enough")
    return {"B A": B @ A}


def factors_added(i, of_A, of_B):
    parts = [(A, B, i.weights[name], s) for name, (A, B, s) in i.adapters.items()]
    return sum(of_B(w, s) * B for _, B, w, s in parts) @ sum(of_A(w, s) * A for A, _, w, s in parts)


def by_place(i):
    return sum(w * s * B @ A for (A, B, s), w in zip(i.adapters.values(), i.weights.values()))


ADDED = "the factors are added up, which brings in cross terms such as B₁ A₂"
MISTAKES = {
    "B A": [
        (ADDED, lambda i: factors_added(i, lambda w, s: 1.0, lambda w, s: w * s)),
        (ADDED, lambda i: factors_added(i, lambda w, s: w, lambda w, s: w)),
        ("the weights are taken in their dict's order: they belong to names", by_place),
    ]
}
