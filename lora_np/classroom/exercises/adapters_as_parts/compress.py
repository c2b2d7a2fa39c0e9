"""7. Truncating to a lower rank (5 points).

The hard one. A mix has rank 32, but the machine that will use it has room for only rank 16. Return the adapter of rank
`r` whose update is nearest to `B A`, and the relative error, `‖B A − B_r A_r‖ / ‖B A‖`. Again, **do not form B A**: the
check measures the peak memory of a call. (`A` and `B` have some rank R ≥ r; the scale is 1.)

In set 02 you computed the singular values of `B A` from a small matrix between two `Q`'s. Now you also need the
singular vectors. **Derive:** with `B = Q_B R_B` and `Aᵀ = Q_A R_A`, write `B A` as a product of four matrices, and
replace the two in the middle by the SVD of their product. What are the `U` and the `V` of `B A` then? How do you
truncate them, and how do you split Σ between the two factors? (√Σ for each is the symmetric choice; any split with the
correct product is accepted.)

**Predict:** two adapters of rank 1 have nothing in common (their `b`'s are orthogonal, and so are their `a`'s), and one
update has twice the norm of the other. Their mix is truncated to rank 1. What is left, and what is the error? What if
the *smaller* update was the useful one?
"""

import numpy as np

from ...exercise import Unfit

OUTPUTS = ("A_r", "B_r", "error")
HINTS = {
    "B A": "B = Q_B R_B and Aᵀ = Q_A R_A. What is between the Q's, how large is it, and how do you truncate it best?",
    "error": "‖ΔW‖² is the sum of all σ². Which of them belong to the part that is cut off?",
}
FORMULA = """B = Q_B R_B,  Aᵀ = Q_A R_A,  R_B R_Aᵀ = U Σ Vᵀ
B_r = Q_B U[:, :r] √Σ_r,  A_r = √Σ_r Vᵀ[:r] Q_Aᵀ;  error = √(σ²_{r+1} + …) / √(σ₁² + …)"""


def compress(A, B, r):
    """A (R, in), B (out, R), r an int from 1 to R -> A_r (r, in), B_r (out, r) and error, a float."""
    Q_B, R_B = np.linalg.qr(B)  # (out, R), (R, R)
    Q_A, R_A = np.linalg.qr(A.T)  # (in, R), (R, R): A = R_Aᵀ Q_Aᵀ
    # B A = Q_B (R_B R_Aᵀ) Q_Aᵀ = (Q_B U) Σ (Q_A V)ᵀ. The columns of Q_B U are orthonormal like those of U, and so are
    # those of Q_A V: this is the SVD of B A, and its first r terms are the nearest matrix of rank r.
    core = R_B @ R_A.T  # (R, R)
    U, sigma, Vt = np.linalg.svd(core)  # (R, R), (R,), (R, R)
    root = np.sqrt(sigma[:r])  # (r,)
    B_r = Q_B @ (U[:, :r] * root)  # (out, R) (R, r) -> (out, r)
    A_r = (root[:, None] * Vt[:r]) @ Q_A.T  # (r, R) (R, in) -> (r, in)
    error = np.sqrt(np.sum(sigma[r:] ** 2) / np.sum(sigma**2))  # the relative norm of the terms that are cut off
    return A_r, B_r, error
    # With σ = (2, 1), only the larger update is left, unchanged, and the error is 1/√5 = 0.45. The smaller update is
    # lost completely: truncation selects by size, not by usefulness.


def draw(rng, size):
    """Draw factors whose rank exceeds r; the columns of B and the rows of A have different norms."""
    R = 2 * size.r + size.number % 2
    A = rng.normal(size=(R, 3 * size.n_in)) * rng.uniform(0.3, 2.0, (R, 1))
    B = rng.normal(size=(3 * size.n_out, R)) * rng.uniform(0.3, 2.0, R)
    return {"A": A, "B": B, "r": size.r}


def compared(i, outputs):
    """Compare the factors only by their product. Also accept `error` if it is correct for the student's own factors."""
    A, B, error = outputs["A_r"], outputs["B_r"], outputs["error"]
    if A.ndim == 2 and len(A) > i.r:
        raise Unfit(f"A_r has {len(A)} rows, but r is {i.r}")
    kept, whole = B @ A, i.B @ i.A
    if np.shape(error) == () and error is not None and np.shape(kept) == whole.shape and np.any(kept):
        own = np.linalg.norm(whole - kept) / np.linalg.norm(whole)
        error = i.right.get("error", error) if np.isclose(error, own, rtol=1e-5) else error
    return {"B A": kept, "error": error}


def large(rng, size):
    """Draw factors with a small `in`: an (in, in) array stays within the memory limit, but B A does not."""
    inputs = {"A": rng.normal(size=(2, 300)), "B": rng.normal(size=(6000, 2)), "r": 1}
    return inputs, 2_200_000, "it forms B A or another array of that size"


def longest(i):
    k = np.argsort(-np.linalg.norm(i.B, axis=0) * np.linalg.norm(i.A, axis=1))[: i.r]
    return i.B[:, k] @ i.A[k]


MISTAKES = {
    "the first r rows of A and the first r columns of B are kept unchanged": lambda i: i.B[:, : i.r] @ i.A[: i.r],
    "the r largest outer products are kept, but they are not orthogonal": longest,
    "Σ is missing": ("np.sqrt(sigma[:r])", "np.ones(r)"),
}

AFTER = """**Beyond the points.** Repeat the lesson with your own functions. First generate text with the real model:

    from lora_np.data import decode, encode
    from lora_np.formats import PRETRAINED, load_adapter, load_pretrained, tokenizer_of
    from lora_np.model import forward

    params, config = load_pretrained()
    tokenizer = tokenizer_of(PRETRAINED, config)
    critics, licences = (load_adapter(PRETRAINED / "adapters" / name, params) for name in ("critics", "licences"))
    ids, rng = encode(tokenizer, ["the film is"])[0][None], np.random.default_rng(0)
    for _ in range(20):
        logits, _ = forward(params, ids, config, adapter=critics)
        probs = nucleus(next_probabilities(logits[:, -1].astype(float), 0.8, 100), 0.9)
        ids = np.concatenate([ids, [[rng.choice(config.vocab_size, p=probs[0])]]], axis=1)
    print(decode(tokenizer, ids[0]))

Then compare the two adapters in one layer, mix them with weights of ½, and truncate the mix:

    layer = "blocks.1.mlp.up_proj"
    pair = {name: (adapter.weights[f"{layer}.lora_A"], adapter.weights[f"{layer}.lora_B"],
                   adapter.config.alpha / adapter.config.r)
            for name, adapter in (("critics", critics), ("licences", licences))}
    print("cosine", update_cosine(*pair["critics"][:2], *pair["licences"][:2]))
    A, B = mix(pair, {"critics": 0.5, "licences": 0.5})
    for r in (4, 8, 16, 32):
        A_r, B_r, error = compress(A, B, r)
        print(r, error, *(update_cosine(A_r, B_r, *pair[name][:2]) for name in pair))

What do the last two columns tell you about which adapter survives truncation?
"""
