"""1. Warm-up: how many directions? (2 points).

The rank counts every direction, however weak. The **stable rank** weights directions by their energy: the strongest
direction counts as 1, and every other direction as its energy divided by that of the strongest.

**Predict in your head** the stable rank of one outer product; of a matrix with the singular values (4, 2, 2, 2, 2); of
a matrix with 100 equal singular values. Now add a little noise to a 256 × 256 outer product: what happens to the rank
and to the stable rank? **When your code passes:** can you compute the stable rank from `M` and one singular value?
"""

import numpy as np

HINTS = {"rank": "With n equal singular values it is n. How much does a value half as large as the first count?"}
FORMULA = "stable rank = (σ₁² + σ₂² + …) / σ₁² = ‖M‖²_F / σ₁²"


def stable_rank(M):
    """M (out, in) -> rank, a float from 1 to min(out, in)."""
    sigma = np.linalg.svd(M, compute_uv=False)  # (min(out, in),), in descending order
    energy = sigma**2
    return energy.sum() / energy[0]
    # The stable ranks are 1, (16 + 4 · 4) / 16 = 2, and 100. With noise the rank is 256, but the stable rank is still
    # near 1, so it is a useful measure of ΔW. The energies add up to ‖M‖², so np.sum(M**2) / np.linalg.norm(M, 2) ** 2
    # works, too.


def draw(rng, size):
    """Draw a wide matrix in the second draw and tall ones in the others."""
    return {"M": rng.normal(size=sorted((2 * size.n_out, 2 * size.n_in), reverse=size.number != 1))}


MISTAKES = {
    "this is the rank: every singular value above 0 counts as 1": lambda i: min(i.M.shape),
    "all but σ₁ are divided by the total energy": ("energy.sum() / energy[0]", "1 + energy[1:].sum() / energy.sum()"),
    "the largest entry of M is used instead of σ₁": lambda i: np.sum(i.M**2) / np.max(i.M**2),
}
