"""6. How many directions? (3 points).

Now the reverse question: what is the smallest number of directions that together hold a given share of the energy? With
share = 0.9, this is the lesson's "rank of 90 %". Exactly the given share is enough.

**Predict** for σ = (2, 1, 1, 1, 1): how many directions hold a share of 0.5, of 0.75, and of 0.76? How many of 100
equal singular values hold 90 % of their energy? (Is your result the number of directions or the index of the last one?)
"""

import numpy as np

HINTS = {"k": "Add up the energies, strongest direction first. How many have you added when the share is reached?"}
FORMULA = "the smallest k with σ₁² + … + σ_k² ≥ share · (σ₁² + … + σ_n²)"


def rank_at_energy(sigma, share):
    """sigma (n,), all singular values in descending order; share a float above 0 and below 1 -> k, an int."""
    energy = np.cumsum(sigma**2)  # (n,): entry k − 1 is the energy of the first k directions
    enough = energy >= share * energy[-1]  # (n,): False, False, …, True, True
    return int(np.argmax(enough)) + 1  # argmax finds the first True; indices begin at 0, counts at 1
    # For σ = (2, 1, 1, 1, 1) the results are 1, 3 and 4; of 100 equal singular values, 90 hold 90 % of the energy.


def draw(rng, size):
    """In the first draw, the leading directions hold exactly the given share, 144 of 256: 8² + 8² + 4² or 8² + 5 · 4².
    The norms √144 and √256 are integers as well, so rounding errors affect no correct solution."""
    if size.number == 0:
        strong = int(rng.integers(1, 3))
        return {"sigma": np.repeat([8.0, 4.0, 2.0], [strong, 7, 36 - 16 * strong]), "share": 9 / 16}
    M = rng.normal(size=(size.V, 4 * size.n_in)) * 0.9 ** np.arange(4 * size.n_in)
    return {"sigma": np.linalg.svd(M, compute_uv=False), "share": float(rng.uniform(0.55, 0.95))}


MISTAKES = {
    "this is the share of the number of directions, not of their energy": lambda i: np.ceil(i.share * len(i.sigma)),
    "this counts the singular values ≥ (1 − share) σ₁": lambda i: np.sum(i.sigma >= (1 - i.share) * i.sigma[0]),
}
