"""Warm-up: how many directions?

The rank counts every direction that is there, however weak. The **stable rank** counts by energy: the strongest
direction counts 1, and each other one its energy divided by the strongest one's.

**Predict in your head** the stable rank of one outer product; of a matrix with the singular values (4, 2, 2, 2, 2); of
one with 100 equal ones. Now add a little noise to each number of a 256 × 256 outer product: what happens to the rank,
and what to the stable rank? **And when it is right:** can you do it with only one of the singular values?
"""

import numpy as np

POINTS = 2
OUTPUTS = ("rank",)
HINTS = {"rank": "With n equal singular values it is n. What does each count that is half as large as the first?"}
FORMULA = "stable rank = (σ₁² + σ₂² + …) / σ₁² = ‖M‖²_F / σ₁²"


def stable_rank(M):
    """M (out, in) -> rank, a number from 1 to min(out, in)."""
    sigma = np.linalg.svd(M, compute_uv=False)  # (min(out, in),), the largest first
    energy = sigma**2
    return energy.sum() / energy[0]
    # 1; (16 + 4 · 4) / 16 = 2; 100. With noise the rank is 256, but the stable rank stays near 1. So it can measure ΔW.
    # The sum is ‖M‖², so np.sum(M**2) / np.linalg.norm(M, 2) ** 2 works as well.


def draw(rng, size):
    """High in the first draw, wide in the second."""
    return {"M": rng.normal(size=sorted((2 * size.n_out, 2 * size.n_in), reverse=size.number != 1))}


def effective_rank(M):
    p = np.linalg.svd(M, compute_uv=False)
    p /= p.sum()
    return np.exp(-np.sum(p * np.log(p)))


MISTAKES = {
    "rank": [
        ("this is the rank: every singular value above 0 counts as one", lambda i: min(i.M.shape)),
        ("this is the effective rank, from the entropy of the singular values", lambda i: effective_rank(i.M)),
        ("the largest number of M is in place of σ₁", lambda i: np.sum(i.M**2) / np.max(i.M**2)),
    ]
}
