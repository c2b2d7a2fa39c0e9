"""The angle between two updates.

Do two adapters pull the same way? The cosine of the angle between their updates says so: 1 for the same direction, 0
for a right angle, −1 for opposite directions. It is the scalar product, `ΔW₁ · ΔW₂ = Σ_oi ΔW₁_oi ΔW₂_oi`, divided by
both lengths. But a `ΔW` of 4096 × 4096 has 16.8 million numbers, so compute it **without forming either**. (The check
measures how much memory a call takes, as in set 02.)

**Derive:** take one outer product from each, `b aᵀ` and `d cᵀ`. Multiply them number by number and add up: what is
that, in products of vectors? `ΔW₁` is a sum of r₁ such outer products, and `ΔW₂` of r₂. Which two small matrices have
all the numbers that you need? Where do the two lengths come from?

**Predict:** why may you leave the scales s₁ and s₂ out here, and what about a negative weight? What is the cosine if
the rows of `A₁` are at right angles to those of `A₂`, whatever the `B`'s are?
"""

import numpy as np

POINTS = 4
OUTPUTS = ("cosine",)
HINTS = {"cosine": "ΔW₁ · ΔW₂ = Σ_oi (Σ_k B₁_ok A₁_ki)(Σ_l B₂_ol A₂_li). Which sum can you carry out first?"}
FORMULA = """ΔW₁ · ΔW₂ = Σ (B₁ᵀ B₂) ⊙ (A₁ A₂ᵀ), two matrices of (r₁, r₂);  ‖ΔW₁‖² = ΔW₁ · ΔW₁
cosine = ΔW₁ · ΔW₂ / (‖ΔW₁‖ ‖ΔW₂‖)"""


def update_cosine(A1, B1, A2, B2):
    """A1 (r1, in), B1 (out, r1), A2 (r2, in), B2 (out, r2) -> cosine, a number from −1 to 1."""
    # Σ_oi (b_o a_i)(d_o c_i) = (Σ_o b_o d_o)(Σ_i a_i c_i) = (b · d)(a · c): for each pair of outer products one number
    # of B₁ᵀ B₂ times one of A₁ A₂ᵀ
    cross = np.sum((B1.T @ B2) * (A1 @ A2.T))  # (r1, out) (out, r2) and (r1, in) (in, r2) -> (r1, r2) each
    square1 = np.sum((B1.T @ B1) * (A1 @ A1.T))  # ‖ΔW₁‖² = ΔW₁ · ΔW₁
    square2 = np.sum((B2.T @ B2) * (A2 @ A2.T))
    return cross / np.sqrt(square1 * square2)
    # A positive number in front of an update changes its length and not its direction; a negative one turns the
    # cosine's sign. With the A's at right angles A₁ A₂ᵀ is zero, and so is the cosine: the two read nothing in common.


def draw(rng, size):
    """The second update has some of the first in it. In the second draw they pull in opposite ways; one rank is 1."""
    r1, r2 = [(2, 2), (1, 3), (3, 3)][size.number]
    A1, B1 = rng.normal(size=(r1, 3 * size.n_in)), rng.normal(size=(3 * size.n_out, r1))
    A2 = rng.normal(size=(r2, 3 * size.n_in)) + 1.5 * A1[:1]
    B2 = rng.normal(size=(3 * size.n_out, r2)) + (-1 if size.number == 1 else 1) * B1[:, :1]
    return {"A1": A1, "B1": B1, "A2": A2, "B2": 0.3 * B2}


def large(rng, size):
    """Each ΔW would have 16 MB."""
    A, B = rng.normal(size=(2, 2, 1600)), rng.normal(size=(2, 1250, 2))
    return {"A1": A[0], "B1": B[0], "A2": A[1], "B2": B[1]}, 700_000, "ΔW is formed, or another array as large"


def cosine(one, other):
    return np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other)


MISTAKES = {
    "cosine": [
        (
            "it is divided by ‖A₁‖ ‖B₁‖ ‖A₂‖ ‖B₂‖, but a product's length is not the product of the lengths",
            lambda i: np.sum((i.B1 @ i.A1) * (i.B2 @ i.A2)) / np.prod([np.linalg.norm(a) for a in i.inputs.values()]),
        ),
        ("the cosine of the A's is multiplied by that of the B's", lambda i: cosine(i.A1, i.A2) * cosine(i.B1, i.B2)),
    ]
}
