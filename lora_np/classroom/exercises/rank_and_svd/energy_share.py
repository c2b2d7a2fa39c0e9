"""5. The energy that a truncation keeps (2 points).

The energy of a matrix `M` is ‖M‖². What share of the energy remains if `M` is truncated to rank `k`? You are given all
singular values of `M`.

**Predict** for σ = (2, 1, 1, 1, 1): what is the share at k = 1 and at k = 3? **Then:** a truncation keeps 99 % of the
energy. How large is its relative error, ‖M − M_k‖ / ‖M‖? (Most people guess one per cent.)
"""

import numpy as np

HINTS = {"share": "Which sum over the singular values is the energy ‖M‖², and which part of it is kept?"}
FORMULA = "share = (σ₁² + … + σ_k²) / (σ₁² + … + σ_n²)"


def energy_share(sigma, k):
    """sigma (n,), all singular values in descending order; k an int from 1 to n -> share, a float from 0 to 1."""
    energy = sigma**2  # (n,): ‖M‖² is the sum of these, and ‖M_k‖² is the sum of the first k
    return energy[:k].sum() / energy.sum()
    # For (2, 1, 1, 1, 1) the share is 4/8 at k = 1 and 6/8 at k = 3. If 99 % is kept, 1 % of the *squared* norm is
    # lost, and the relative error is √0.01 = 0.1.


def draw(rng, size):
    return {"sigma": -np.sort(rng.uniform(-4.0, -0.5, size.V)), "k": size.r + 2 * size.number}


MISTAKES = {
    "the singular values are added up before squaring": lambda i: (i.sigma[: i.k].sum() / i.sigma.sum()) ** 2,
    "this is the relative error of the truncation, ‖M − M_k‖ / ‖M‖": lambda i: np.sqrt(1 - i.right["share"]),
    "this is the kept energy divided by the lost energy": lambda i: i.right["share"] / (1 - i.right["share"]),
}
