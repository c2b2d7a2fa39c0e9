"""6. The directions of an adapter (4 points).

The hard one. To compare two adapters by φ, you need the leading **input** directions of `B A`, that is, its right
singular vectors. `B A` may have 4096 × 4096 entries, but it has at most r directions. In exercise set 02, you computed
the singular values of `B A` without forming `B A`; now compute its input directions instead. Return the k leading ones
as the columns of `V` (in, k), the strongest first. Their signs are arbitrary. Again, the check measures peak memory.

**First the trap.** Are these the leading directions of `A`? Take `A` with the rows (3, 0, 0) and (0, 1, 0), and `B` =
[0.1 0; 0 1]. Which is the leading direction of `A`, and which is that of `B A`? For which k does φ(k, k) not depend on
whether you use the directions of `A` or those of `B A`?

**Then derive.** Let B = Q_B R_B and Aᵀ = Q_A R_A, where the Q's have orthonormal columns (`np.linalg.qr`). Write `B A`
in terms of these four matrices, and replace the small matrix in the middle by its SVD. Group the resulting five factors
so that they form an SVD of `B A`.
"""

import numpy as np

HINTS = {"V": "With B = Q_B R_B and Aᵀ = Q_A R_A, which factor of B A follows the small matrix's own Vᵀ?"}
FORMULA = """B = Q_B R_B,  Aᵀ = Q_A R_A,  R_B R_Aᵀ = U Σ Vᵀ:  B A = (Q_B U) Σ (Q_A V)ᵀ,
and the directions are the first k columns of Q_A V"""


def adapter_directions(B, A, k):
    """B (out, r), A (r, in), k from 1 to r, r smaller than out and in -> V (in, k), orthonormal columns."""
    # The trap: A's leading direction is the first axis. B A has 0.3 along the first and 1 along the second, so the
    # second leads. A determines the span, and B determines the order of the directions in it. At k = r both have the
    # same span, and so the same φ.
    R_B = np.linalg.qr(B, mode="r")  # (r, r)
    Q_A, R_A = np.linalg.qr(A.T)  # (in, r), (r, r)
    small = R_B @ R_A.T  # (r, r)
    Vt = np.linalg.svd(small)[2]  # (r, r): R_B R_Aᵀ = U Σ Vᵀ
    # B A = Q_B (R_B R_Aᵀ) Q_Aᵀ = (Q_B U) Σ (Q_A V)ᵀ, and the columns of both brackets are orthonormal: this is its SVD.
    return Q_A @ Vt[:k].T  # (in, r) (r, k) -> (in, k): the rows of Vᵀ are the columns of V


def draw(rng, size):
    """Ask for all but one of the r directions: which one is omitted depends on B, so B cannot be ignored."""
    r = size.r + 1 + size.number
    return {"B": rng.normal(size=(3 * size.n_out, r)), "A": rng.normal(size=(r, 3 * size.n_in)), "k": r - 1}


def compared(i, outputs):
    """Choose each direction's sign, which is arbitrary, so that its entry of largest magnitude is positive."""
    V = outputs["V"]
    return {"V": V * np.sign(np.take_along_axis(V, np.abs(V).argmax(axis=0)[None], axis=0))}


def large(rng, size):
    """Draw factors with a small `in`, so that the memory limit allows an (in, in) array, but not B A."""
    inputs = {"B": rng.normal(size=(6000, 1)), "A": rng.normal(size=(1, 300)), "k": 1}
    return inputs, 2_200_000, "it forms B A or another array of that size"


def turned(i, V):
    return compared(i, {"V": V[:, : i.k]})["V"]


def output_side(i):
    Q_A, R_A = np.linalg.qr(i.A.T)
    return turned(i, Q_A @ np.linalg.svd(np.linalg.qr(i.B, mode="r") @ R_A.T)[0])


MISTAKES = {
    "these are the leading directions of A alone": lambda i: turned(i, np.linalg.svd(i.A)[2].T),
    "the small matrix's U is used instead of its V: that is the output side": output_side,
    "these are the columns of Q_A, a basis that is not sorted by strength": lambda i: turned(i, np.linalg.qr(i.A.T)[0]),
}

AFTER = """**Beyond the points.** Two adapters come with the package. `critics` was trained on film reviews and
`licences` on software licences. Do they read the same input directions? Guess first, then type this in:

    from lora_np.formats import PRETRAINED, load_adapter, load_pretrained

    params, _ = load_pretrained()
    weights = [load_adapter(PRETRAINED / "adapters" / name, params).weights for name in ("critics", "licences")]
    layers = [name.removesuffix(".lora_A") for name in weights[0] if name.endswith(".lora_A")]
    for layer in layers:
        directions = []
        for of_adapter in weights:
            B, A = (of_adapter[f"{layer}.lora_{letter}"] for letter in "BA")
            directions.append(adapter_directions(B, A, 8))
        phi = [subspace_similarity(*directions, k, k) for k in (1, 8)]
        chance = chance_similarity(A.shape[1], 8, 8)
        print(f"{layer:<26} φ(1, 1) {phi[0]:.2f}   φ(8, 8) {phi[1]:.2f}   chance {chance:.2f}")

Where is φ clearly above chance, and where is it not? The two columns seem to disagree. Which question does each of them
answer? Before you draw conclusions, think of the lesson's control: both adapters read the same base model's
activations on English text.
"""
