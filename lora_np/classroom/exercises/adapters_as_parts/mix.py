"""4. Mixing (3 points).

Each of several adapters has its own rank, scale and weight. Return a single adapter whose update is exactly the
weighted sum of the adapters' updates. Its scale must be s = 1, and its `A` must not have more rows than the sum of the
adapters' ranks. Weights may be negative, need not add up to 1, and are looked up by name, not by position.

**On paper first,** for two adapters of rank 1: multiply out (B₁ + B₂)(A₁ + A₂). Which two of its four terms do not
belong in the mix? Then find factors whose product is the sum of the two remaining terms. **Predict:** if you mix an
adapter with itself, with weights 1 and −1, what is the rank of the update, and how many rows does `A` have?
"""

import numpy as np

from ...exercise import Unfit

OUTPUTS = ("A", "B")
HINTS = {"B A": "A product is a sum of outer products. Which columns should meet which rows, with which factor?"}
FORMULA = "A = [A₁; A₂; …], on top of each other;  B = [w₁ s₁ B₁, w₂ s₂ B₂, …], side by side"


def mix(adapters, weights):
    """adapters: dict, name -> (A (r, in), B (out, r), s), r may differ; weights: dict, name -> float
    -> A (R, in), B (out, R)."""
    # Column k of B meets only row k of A, so Σ_k b_k a_k contains only outer products within one adapter.
    A = np.concatenate([A_i for A_i, _, _ in adapters.values()], axis=0)  # (Σ r, in)
    B = np.concatenate([weights[name] * s_i * B_i for name, (_, B_i, s_i) in adapters.items()], axis=1)  # (out, Σ r)
    return A, B  # weights and scales are applied on one side only
    # B₁A₂ and B₂A₁ connect the inputs of one adapter to the outputs of the other. An adapter minus itself has a zero
    # update, of rank 0, but A still has 2r rows. The rank of a sum is at most the sum of the ranks.


def draw(rng, size):
    """Draw ranks that are equal, or 1 (which broadcasts), so that adding up the factors by mistake raises no error. The
    weights and the adapters are in different orders."""
    adapters, ranks = {}, [(2, 2, 2), (3, 1, 3), (1, 4, 4)][size.number]
    for name, r in zip(("critics", "licences", "praise"), ranks):
        A, B = rng.normal(size=(r, 3 * size.n_in)), rng.normal(size=(3 * size.n_out, r))
        adapters[name] = A, B, float(rng.uniform(0.5, 3.0))
    weights = dict(zip(("praise", "critics", "licences"), (rng.uniform(0.3, 1.5, 3) * [-1, 1, 1]).tolist()))
    return {"adapters": adapters, "weights": weights}


def compared(i, outputs):
    A, B, most = outputs["A"], outputs["B"], sum(len(A) for A, _, _ in i.adapters.values())
    if A.ndim == 2 and len(A) > most:
        raise Unfit(f"A has {len(A)} rows, expected at most {most}, the sum of the ranks")
    return {"B A": B @ A}


def factors_added(i, of_A, of_B):
    parts = [(A, B, i.weights[name], s) for name, (A, B, s) in i.adapters.items()]
    return sum(of_B(w, s) * B for _, B, w, s in parts) @ sum(of_A(w, s) * A for A, _, w, s in parts)


ADDED = "the factors are added up, which brings in cross terms such as B₁ A₂"
MISTAKES = {
    ADDED: lambda i: factors_added(i, lambda w, s: 1.0, lambda w, s: w * s),
    f"{ADDED}, and uses the weights twice": lambda i: factors_added(i, lambda w, s: w, lambda w, s: w),
    "the weights are used in the dict's order, but they must be looked up by name": lambda i: sum(
        w * s * B @ A for (A, B, s), w in zip(i.adapters.values(), i.weights.values())
    ),
}
