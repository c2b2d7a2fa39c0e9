"""7. The spectrum of an adapter (4 points).

The hard one. A 4096 × 4096 update `B A` with r = 8 has at most 8 non-zero singular values. `np.linalg.svd(B @ A)`
processes 16.8 million entries to compute them. Compute them **without forming B A**; this check also measures the peak
memory. Return r singular values in descending order.

**First a trap.** Are the singular values of `B A` those of `B` times those of `A`? Try it on paper with the diagonal
matrices `B` = diag(2, 1) and `A` = diag(1, 2).

**Then a tool.** Every `B` (out, r) can be written as `B = Q R`, with orthonormal columns in `Q` (out, r) and a small
`R` (r, r). `Q, R = np.linalg.qr(B)` computes this decomposition. What does a matrix with orthonormal columns do to the
length of a vector, and to the angle between two vectors? From this, **derive:** if the SVD of a matrix `M` is `U Σ Vᵀ`,
what are the SVDs of `Q M` and `M Qᵀ`?

Now decompose both factors. (Which is tall like `B`: `A` or `Aᵀ`?) What is left between the two `Q`'s, and what is its
shape?
"""

import numpy as np

HINTS = {"sigma": "In B = Q R, the Q only rotates. Do the same with Aᵀ: what is left between the two Q's?"}
FORMULA = "B = Q_B R_B and Aᵀ = Q_A R_A: the singular values of B A are those of R_B R_Aᵀ, which is (r, r)"


def product_singular_values(B, A):
    """B (out, r), A (r, in), r smaller than out and in -> sigma (r,), in descending order."""
    # The trap: B A = diag(2, 2) has the singular values 2 and 2, but the products are 2 · 2 and 1 · 1. The result
    # depends on how A's output directions are aligned with B's input directions.
    # Q only rotates: Q M = (Q U) Σ Vᵀ, and the columns of Q U are orthonormal like those of U. That is an SVD, so Q M
    # has the singular values of M. For the same reason, so does M Qᵀ = U Σ (Q V)ᵀ.
    R_B = np.linalg.qr(B, mode="r")  # B = Q_B R_B: (out, r) = (out, r) (r, r), and the Q's are not needed
    R_A = np.linalg.qr(A.T, mode="r")  # Aᵀ = Q_A R_A: (in, r) = (in, r) (r, r), and so A = R_Aᵀ Q_Aᵀ
    # B A = Q_B (R_B R_Aᵀ) Q_Aᵀ
    return np.linalg.svd(R_B @ R_A.T, compute_uv=False)  # the SVD of an (r, r) matrix -> (r,)


def draw(rng, size):
    r = size.r + 1 + size.number
    return {"B": rng.normal(size=(3 * size.n_out, r)), "A": rng.normal(size=(r, 3 * size.n_in))}


def large(rng, size):
    """Draw an A with fewer columns, so that an (in, in) array, which is allowed, is small compared with B A."""
    inputs = {"B": rng.normal(size=(6000, 1)), "A": rng.normal(size=(1, 300))}
    return inputs, 2_200_000, "it forms B A or another array of that size"


MISTAKES = {
    "the singular values of B are multiplied by those of A": lambda i: (
        np.linalg.svd(i.B, compute_uv=False) * np.linalg.svd(i.A, compute_uv=False)
    ),
    "the norms of B's columns are multiplied by those of A's rows": lambda i: np.sort(
        np.linalg.norm(i.B, axis=0) * np.linalg.norm(i.A, axis=1)
    )[::-1],
    "these are the diagonal entries of R_B R_Aᵀ, not its singular values": lambda i: np.abs(
        np.diag(np.linalg.qr(i.B)[1] @ np.linalg.qr(i.A.T)[1].T)
    ),
}

AFTER = """**Beyond the points.** Now you can analyse a real adapter with three of your own functions. Type this in:

    from lora_np.formats import PRETRAINED, load_adapter, load_pretrained

    params, _ = load_pretrained()
    critics = load_adapter(PRETRAINED / "adapters" / "critics", params)
    A, B = (critics.weights[f"blocks.1.attn.v_proj.lora_{name}"] for name in "AB")
    sigma = product_singular_values(B, A)
    print(B.shape, A.shape, sigma.round(2), rank_at_energy(sigma, 0.9), energy_share(sigma, 1))

The lesson found that six of this update's sixteen directions hold 90 % of its energy. Do you get the same number? (The
scale `s` is omitted here. Why does it not affect the last two numbers?) Then try the adapter `licences`.
"""
