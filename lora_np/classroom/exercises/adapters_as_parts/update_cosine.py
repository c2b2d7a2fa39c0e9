"""6. The angle between two updates (4 points).

Do two adapters pull in the same direction? The cosine of the angle between their updates tells you: 1 for the same
direction, 0 for a right angle, −1 for opposite directions. It is the updates' inner product,
`ΔW₁ · ΔW₂ = Σ_oi ΔW₁_oi ΔW₂_oi`, divided by the product of their norms. But a 4096 × 4096 `ΔW` has 16.8 million
entries, so compute the cosine **without forming either update**. (The check measures the peak memory of a call, as in
set 02.)

**Derive:** take one outer product from each update, `b aᵀ` and `d cᵀ`. Multiply these two matrices entry by entry and
add up the results: can you write the sum as a product of two dot products? `ΔW₁` is a sum of r₁ outer products, and
`ΔW₂` is a sum of r₂. Which two small matrices contain all the dot products that you need? How do you get the norms of
the two updates?

**Predict:** why may you omit the scales s₁ and s₂ here, and what is the effect of a negative scale? What is the cosine
if the rows of `A₁` are orthogonal to those of `A₂`, for any `B₁` and `B₂`?
"""

import numpy as np

HINTS = {"cosine": "ΔW₁ · ΔW₂ = Σ_oi (Σ_k B₁_ok A₁_ki)(Σ_l B₂_ol A₂_li). Which sum can you carry out first?"}
FORMULA = """ΔW₁ · ΔW₂ = Σ (B₁ᵀ B₂) ⊙ (A₁ A₂ᵀ), two matrices of shape (r₁, r₂);  ‖ΔW₁‖² = ΔW₁ · ΔW₁
cosine = ΔW₁ · ΔW₂ / (‖ΔW₁‖ ‖ΔW₂‖)"""


def update_cosine(A1, B1, A2, B2):
    """A1 (r1, in), B1 (out, r1), A2 (r2, in), B2 (out, r2) -> cosine, a float from −1 to 1."""
    # Σ_oi (b_o a_i)(d_o c_i) = (Σ_o b_o d_o)(Σ_i a_i c_i) = (b · d)(a · c): each pair of outer products contributes one
    # entry of B₁ᵀ B₂ times one of A₁ A₂ᵀ
    cross = np.sum((B1.T @ B2) * (A1 @ A2.T))  # (r1, out) (out, r2) and (r1, in) (in, r2) -> (r1, r2) each
    square1 = np.sum((B1.T @ B1) * (A1 @ A1.T))  # ‖ΔW₁‖² = ΔW₁ · ΔW₁
    square2 = np.sum((B2.T @ B2) * (A2 @ A2.T))
    return cross / np.sqrt(square1 * square2)
    # A positive factor changes an update's length but not its direction; a negative one flips the cosine's sign. If the
    # rows of the A's are orthogonal, A₁ A₂ᵀ is zero, and so is the cosine: the updates read orthogonal directions.


def draw(rng, size):
    """Draw two updates that share a component. In the second draw, its sign differs between them; one rank is 1."""
    r1, r2 = [(2, 2), (1, 3), (3, 3)][size.number]
    A1, B1 = rng.normal(size=(r1, 3 * size.n_in)), rng.normal(size=(3 * size.n_out, r1))
    A2 = rng.normal(size=(r2, 3 * size.n_in)) + 1.5 * A1[:1]
    B2 = rng.normal(size=(3 * size.n_out, r2)) + (-1 if size.number == 1 else 1) * B1[:, :1]
    return {"A1": A1, "B1": B1, "A2": A2, "B2": 0.3 * B2}


def large(rng, size):
    """Draw factors of two updates ΔW that would take 16 MB each."""
    A, B = rng.normal(size=(2, 2, 1600)), rng.normal(size=(2, 1250, 2))
    return {"A1": A[0], "B1": B[0], "A2": A[1], "B2": B[1]}, 700_000, "it forms ΔW or another array of that size"


def cosine(one, other):
    return np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other)


MISTAKES = {
    "it is divided by ‖A₁‖ ‖B₁‖ ‖A₂‖ ‖B₂‖, but the norm of a product is not the product of the norms": lambda i: (
        np.sum((i.B1 @ i.A1) * (i.B2 @ i.A2)) / np.prod([np.linalg.norm(a) for a in i.inputs.values()])
    ),
    "the cosine of the A's is multiplied by that of the B's": lambda i: cosine(i.A1, i.A2) * cosine(i.B1, i.B2),
}
