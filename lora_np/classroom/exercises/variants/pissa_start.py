"""PiSSA: a start that is a part of W.

`s B A` begins as the matrix of rank `r` that is nearest to `W`, and what is left, `W_rest`, is frozen. Give `A`, `B`
and `W_rest`. Share σ out evenly: row `k` of `A` must be as long as column `k` of `B`. (The signs of a pair are free, so
the check looks at `B A`, and at those lengths.)

**Predict first:** where does the spectrum of `W_rest` begin? Which of dA and dB is zero in the first step? How does
this start change the model's answer? **Then:** you give your `A` and `B` to somebody who puts them on the original `W`,
as with a LoRA. What do they have then?
"""

import numpy as np

from ...exercise import Unfit

POINTS = 3
OUTPUTS = ("A", "B", "W_rest")
HINTS = {
    "B A": "Which matrix of rank r is nearest to W? It must be s B A. What is B A then?",
    "‖A‖ / ‖B‖": "Row k of A and column k of B must be equally long. Which part of σ_k and of 1/s does each have?",
    "W_rest": "Together they must be W, or the model is not the base.",
}
FORMULA = "W = U Σ Vᵀ;  B = U_r √(Σ_r / s),  A = √(Σ_r / s) V_rᵀ,  W_rest = W − s B A"


def pissa_start(W, r, s):
    """W (out, in), r a whole number, s a number above 0 -> A (r, in), B (out, r), W_rest (out, in)."""
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)  # (out, n), (n,), (n, in)
    root = np.sqrt(sigma[:r] / s)  # (r,): in both factors, so that B A has σ/s and s B A has σ
    A = root[:, None] * Vt[:r]  # (r, in)
    B = U[:, :r] * root  # (out, r)
    W_rest = W - s * B @ A  # (out, in)
    return A, B, W_rest
    # W_rest begins with σ_{r+1}. Neither gradient is zero, because neither factor is. The model's answer stays, except
    # for rounding: W_rest + s B A is W. On the original W the adapter adds the leading directions a second time: twice
    # σ₁, twice σ₂, …, a broken model. So `W_rest` must go with it, or the difference to the start, at rank 2r.


def draw(rng, size):
    """A high matrix, a wide one, and a high one."""
    narrow, long = sorted((2 * size.n_out, 2 * size.n_in))
    W = rng.normal(size=(narrow, long) if size.number == 1 else (long, narrow))
    return {"W": W, "r": size.r, "s": size.alpha / size.r}


def product(i, outputs):
    """B A, where the factors have the right shapes."""
    for name, shape in (("A", (i.r, i.W.shape[1])), ("B", (len(i.W), i.r))):
        if outputs[name] is not None and outputs[name].shape != shape:
            raise Unfit(f"{name} has shape {outputs[name].shape}, expected {shape}")
    return outputs["B"] @ outputs["A"]


def compared(i, outputs):
    """The factors' signs are free, their product and their lengths are not. W_rest is also right if it is what
    the student's own factors leave."""
    BA, rest = product(i, outputs), outputs["W_rest"]
    if rest is not None and np.any(BA) and rest.shape == BA.shape and np.allclose(rest, i.W - i.s * BA, 1e-5, 1e-6):
        rest = i.right.get("W_rest", rest)
    lengths = np.linalg.norm(outputs["A"], axis=1) / np.linalg.norm(outputs["B"], axis=0)
    return {"B A": BA, "‖A‖ / ‖B‖": lengths, "W_rest": rest}


MISTAKES = {
    "‖A‖ / ‖B‖": [
        ("all of σ/s is in B, and A's rows have length 1", lambda i: i.s / np.linalg.svd(i.W)[1][: i.r]),
        ("all of σ/s is in A, and B's columns have length 1", lambda i: np.linalg.svd(i.W)[1][: i.r] / i.s),
    ]
}
