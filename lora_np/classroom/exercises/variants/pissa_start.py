"""5. PiSSA: an initialisation from W itself (3 points).

`s B A` is initialised as the matrix of rank `r` that is nearest to `W`, and the remainder, `W_rest`, is frozen. Compute
`A`, `B` and `W_rest`. Split σ evenly between the factors: row `k` of `A` must have the same norm as column `k` of `B`.
(Flipping the signs of both does not change `B A`, so the check compares `B A` and these norms.)

**Predict first:** what is the largest singular value of `W_rest`? Is dA or dB zero in the first step? How does this
initialisation change the model's output? **Then:** someone attaches your `A` and `B` to the original `W`, as with LoRA.
What is the resulting weight?
"""

import numpy as np

from ...exercise import Unfit

OUTPUTS = ("A", "B", "W_rest")
HINTS = {
    "B A": "Which matrix of rank r is nearest to W? s B A must be equal to it. So what is B A?",
    "‖A‖ / ‖B‖": "Row k of A and column k of B must have equal norms. Which power of σ_k and of 1/s does each contain?",
    "W_rest": "W_rest and s B A must add up to W, so that the model starts from the base.",
}
FORMULA = "W = U Σ Vᵀ;  B = U_r √(Σ_r / s),  A = √(Σ_r / s) V_rᵀ,  W_rest = W − s B A"


def pissa_start(W, r, s):
    """W (out, in), r an int, s a float above 0 -> A (r, in), B (out, r), W_rest (out, in)."""
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)  # (out, n), (n,), (n, in)
    root = np.sqrt(sigma[:r] / s)  # (r,): a factor of both A and B, so B A has singular values σ/s
    A = root[:, None] * Vt[:r]  # (r, in)
    B = U[:, :r] * root  # (out, r)
    W_rest = W - s * B @ A  # (out, in)
    return A, B, W_rest
    # The largest singular value of W_rest is σ_{r+1}. Neither gradient is zero, because neither factor is. The output
    # does not change, except for rounding: W_rest + s B A is W. On the original W, the adapter adds the leading
    # directions a second time: σ₁, σ₂, … double, which breaks the model. So ship `W_rest` with the adapter, or store
    # the adapter's difference from its initial value, at rank 2r.


def draw(rng, size):
    """Draw a wide matrix in the second draw and tall ones in the others."""
    narrow, long = sorted((2 * size.n_out, 2 * size.n_in))
    W = rng.normal(size=(narrow, long) if size.number == 1 else (long, narrow))
    return {"W": W, "r": size.r, "s": size.s}


def product(i, outputs):
    """Return B A, or raise Unfit if a factor's shape is incorrect."""
    for name, shape in (("A", (i.r, i.W.shape[1])), ("B", (len(i.W), i.r))):
        if outputs[name] is not None and outputs[name].shape != shape:
            raise Unfit(f"{name} has shape {outputs[name].shape}, expected {shape}")
    return outputs["B"] @ outputs["A"]


def compared(i, outputs):
    """Compare the factors' product and norms, because the factors' signs are arbitrary. Also accept the W_rest that
    follows from the student's own factors."""
    BA, rest = product(i, outputs), outputs["W_rest"]
    if rest is not None and np.any(BA) and rest.shape == BA.shape and np.allclose(rest, i.W - i.s * BA, 1e-5, 1e-6):
        rest = i.right.get("W_rest", rest)
    lengths = np.linalg.norm(outputs["A"], axis=1) / np.linalg.norm(outputs["B"], axis=0)
    return {"B A": BA, "‖A‖ / ‖B‖": lengths, "W_rest": rest}


MISTAKES = {
    "all of σ/s is in B, and A's rows have norm 1": lambda i: i.s / np.linalg.svd(i.W)[1][: i.r],
    "all of σ/s is in A, and B's columns have norm 1": lambda i: np.linalg.svd(i.W)[1][: i.r] / i.s,
}
