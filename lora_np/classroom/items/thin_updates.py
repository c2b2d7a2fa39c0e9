"""Set 09, third part: two questions about updates that their thin factors alone can answer."""

import numpy as np

from ...adapters import Adapter, compress, lora
from ...analysis import singular_values, update_cosines
from ..item import Item, Unfit
from .lora_layer import config_of
from .thin_factors import Thin, terms_of

# ---------------------------------------------------------------- the angle between two updates


def watched(**factors):
    """The factors, which refuse to become a product of the shape of an update."""
    n_in, n_out = (max(array.shape[axis] for array in factors.values()) for axis in (1, 0))
    found = {name: array.view(Thin) for name, array in factors.items()}
    for array in found.values():
        array.product = (n_out, n_in)
    return found


def draw_two(rng, size):
    """The second update has some of the first in it. In the second draw one rank is 1, so that what a transposed small
    matrix makes of it is an array still."""
    first, second = {2: (2, 2), 3: (1, 3)}[size.r]
    shape = lora.shapes(3 * size.n_out, 3 * size.n_in, first)
    A1, B1 = rng.normal(size=shape["lora_A"]), rng.normal(size=shape["lora_B"])
    A2 = rng.normal(size=(second, A1.shape[1])) + 1.5 * A1[:1]
    B2 = 0.3 * (rng.normal(size=(len(B1), second)) + B1[:, :1])
    return watched(A1=A1, B1=B1, A2=A2, B2=B2)


def right_cosine(A1, B1, A2, B2):
    return update_cosines({"W": np.asarray(B1) @ np.asarray(A1)}, {"W": np.asarray(B2) @ np.asarray(A2)}).overall


def plain(i):
    """A1, B1, A2, B2 as arrays that nobody watches."""
    return (np.asarray(getattr(i, name)) for name in ("A1", "B1", "A2", "B2"))


def updates(i):
    A1, B1, A2, B2 = plain(i)
    return B1 @ A1, B2 @ A2


def lengths(i):
    return [np.linalg.norm(update) for update in updates(i)]


def cosine_of(one, other):
    return np.sum(one * other) / (np.linalg.norm(one) * np.linalg.norm(other))


def turned_small(i):
    """Σ (B₁ᵀB₂) ⊙ (A₂A₁ᵀ), for equal ranks or as NumPy spreads them."""
    A1, B1, A2, B2 = plain(i)
    return np.sum((B1.T @ B2) * (A2 @ A1.T)) / np.prod(lengths(i))


def by_factor_norms(i):
    return right_cosine(*plain(i)) * np.prod(lengths(i)) / np.prod([np.linalg.norm(array) for array in plain(i)])


def summed_products(i):
    A1, B1, A2, B2 = plain(i)
    return np.sum(B1.T @ B2) * np.sum(A1 @ A2.T) / np.prod(lengths(i))


def by_small_norms(i):
    A1, B1, A2, B2 = plain(i)
    return np.prod(lengths(i)) * right_cosine(A1, B1, A2, B2) / np.linalg.norm(B1.T @ B2) / np.linalg.norm(A1 @ A2.T)


def of_factors(i):
    A1, B1, A2, B2 = plain(i)
    return cosine_of(A1, A2) * cosine_of(B1, B2)


COSINE = Item(
    name="update_cosine",
    arguments="A1, B1, A2, B2",
    outputs=("cosine",),
    task="The cosine of the angle between two updates, without forming either.",
    draw=draw_two,
    right=right_cosine,
    factors=lambda i: dict(zip(("‖B₁ A₁‖", "‖B₂ A₂‖"), lengths(i))),
    mistakes={
        "cosine": [
            (
                "it is not divided by the two lengths: this is the scalar product",
                lambda i: i.right["cosine"] * np.prod(lengths(i)),
            ),
            (
                "it is divided by the squares of the lengths: a root is missing",
                lambda i: i.right["cosine"] / np.prod(lengths(i)),
            ),
            (
                "it is divided by the root of the lengths' product: one root too many has been taken",
                lambda i: i.right["cosine"] * np.sqrt(np.prod(lengths(i))),
            ),
            (
                "it is divided by ‖A₁‖ ‖B₁‖ ‖A₂‖ ‖B₂‖, and a product's length is not the product of the lengths",
                by_factor_norms,
            ),
            ("it is divided by the lengths of the two small matrices, and not by those of the updates", by_small_norms),
            ("this is its square", lambda i: i.right["cosine"] ** 2),
            ("this is the angle, in radians", lambda i: np.arccos(i.right["cosine"])),
            ("this is the angle, in degrees", lambda i: np.degrees(np.arccos(i.right["cosine"]))),
            ("one of the two small matrices is transposed against the other", turned_small),
            ("the small matrices are added up before they meet", summed_products),
            ("the cosine of the A's is multiplied by that of the B's", of_factors),
        ]
    },
    hints={"cosine": "ΔW₁ · ΔW₂ = Σ_oi (Σ_k B₁_ok A₁_ki)(Σ_l B₂_ol A₂_li). Which sum can you carry out first?"},
    formula="ΔW₁ · ΔW₂ = Σ (B₁ᵀ B₂) ⊙ (A₁ A₂ᵀ), two matrices of (r₁, r₂);  ‖ΔW₁‖² = ΔW₁ · ΔW₁\n"
    "cosine = ΔW₁ · ΔW₂ / (‖ΔW₁‖ ‖ΔW₂‖)",
)

# ---------------------------------------------------------------- a smaller adapter


def draw_compress(rng, size):
    """Twice the rank that is to be kept; columns of B and rows of A of many lengths."""
    shape = lora.shapes(3 * size.n_out, 3 * size.n_in, 2 * size.r)
    B = rng.normal(size=shape["lora_B"]) * rng.uniform(0.3, 2.0, 2 * size.r)
    A = rng.normal(size=shape["lora_A"]) * rng.uniform(0.3, 2.0, (2 * size.r, 1))
    return {**watched(A=A, B=B), "r": size.r}


def right_compress(A, B, r):
    layer, A, B = "blocks.0.attn.q_proj", np.asarray(A), np.asarray(B)
    config = config_of(len(A), 1.0, targets=("q_proj",))
    adapter = Adapter(config, {f"{layer}.lora_A": A, f"{layer}.lora_B": B})
    cut = compress({f"{layer}.weight": np.zeros((len(B), A.shape[1]))}, adapter, r)
    return cut.adapter.weights[f"{layer}.lora_A"], cut.adapter.weights[f"{layer}.lora_B"], cut.error


def product_and_error(i, outputs):
    A, B = outputs["A_r"], outputs["B_r"]
    if A.ndim == 2 and len(A) > i.r:
        raise Unfit(f"A_r has {len(A)} rows, and r is {i.r}")
    return {"B A": B @ A, "error": outputs["error"]}


def product(i):
    """B A, which the student's function is not to form."""
    return np.asarray(i.B) @ np.asarray(i.A)


def terms(i, which=None, power=1.0):
    """Some terms of the decomposition, the first r unless others are given, with a power of σ."""
    return terms_of(product(i), slice(i.r) if which is None else which, power)


def sigma_of(i):
    return singular_values(product(i))


def by_own_size(i):
    """The r of the outer products b_k a_k that are the longest."""
    A, B = np.asarray(i.A), np.asarray(i.B)
    longest = np.argsort(-np.linalg.norm(B, axis=0) * np.linalg.norm(A, axis=1))[: i.r]
    return B[:, longest] @ A[longest]


def through_core(i, core, turn=False):
    """Lifted back out of another small matrix than R_B R_Aᵀ; or V taken for Vᵀ."""
    Q_B, R_B = np.linalg.qr(np.asarray(i.B))
    Q_A, R_A = np.linalg.qr(np.asarray(i.A).T)
    U, sigma, Vt = np.linalg.svd(core(R_B, R_A))
    return Q_B @ (U[:, : i.r] * sigma[: i.r]) @ (Vt[:, : i.r].T if turn else Vt[: i.r]) @ Q_A.T


def left_outside(i):
    """With A = P S in the place of Aᵀ = Q R: what is kept, and the error that its singular values make."""
    Q, R = np.linalg.qr(np.asarray(i.B))
    P, S = np.linalg.qr(np.asarray(i.A))
    U, sigma, Vt = np.linalg.svd(R @ P)
    kept = Q @ (U[:, : i.r] * sigma[: i.r]) @ Vt[: i.r] @ S
    return kept, np.linalg.norm(sigma[i.r :]) / np.linalg.norm(sigma)


def each_cut(i):
    U, sigma, _ = np.linalg.svd(np.asarray(i.B), full_matrices=False)
    _, of_A, Vt = np.linalg.svd(np.asarray(i.A), full_matrices=False)
    return (U[:, : i.r] * sigma[: i.r]) @ (of_A[: i.r, None] * Vt[: i.r])


def lost(i, power=2):
    return np.sum(sigma_of(i)[i.r :] ** power)


def whole(i, power=2):
    return np.sum(sigma_of(i) ** power)


COMPRESS = Item(
    name="compress",
    arguments="A, B, r",
    outputs=("A_r", "B_r", "error"),
    task="The adapter of rank r that is nearest to one of a higher rank, and what is lost.",
    draw=draw_compress,
    right=right_compress,
    compared=product_and_error,
    factors=lambda i: {"r": i.r},
    mistakes={
        "B A": [
            (
                "the first r rows of A and columns of B are kept, as they are",
                lambda i: np.asarray(i.B)[:, : i.r] @ np.asarray(i.A)[: i.r],
            ),
            ("the r longest of the outer products are kept as they are: they overlap", by_own_size),
            ("the r weakest directions are kept, not the strongest", lambda i: terms(i, slice(-i.r, None))),
            ("one direction too few is kept", lambda i: terms(i, slice(i.r - 1))),
            ("Σ is missing", lambda i: terms(i, power=0.0)),
            ("Σ is in it twice, in A and in B", lambda i: terms(i, power=2.0)),
            ("only √Σ is in it: the root of σ belongs in A and in B", lambda i: terms(i, power=0.5)),
            ("√Σ is in it three times, or Σ in one factor and √Σ in the other", lambda i: terms(i, power=1.5)),
            ("A's R is not transposed: Aᵀ = Q R, so A = Rᵀ Qᵀ", lambda i: through_core(i, lambda R_B, R_A: R_B @ R_A)),
            ("the two R's stand in the wrong order", lambda i: through_core(i, lambda R_B, R_A: R_A.T @ R_B)),
            (
                "A has been split, and not Aᵀ: what is left outside has no orthonormal rows",
                lambda i: left_outside(i)[0],
            ),
            ("B and A are cut each by itself: what counts is how the two meet", each_cut),
            ("A's R is taken without B's", lambda i: through_core(i, lambda R_B, R_A: R_A.T)),
            ("B's R is taken without A's", lambda i: through_core(i, lambda R_B, R_A: R_B)),
            (
                "the columns of NumPy's third result are taken for the v's: it gives Vᵀ, with the v's as rows",
                lambda i: through_core(i, lambda R_B, R_A: R_B @ R_A.T, turn=True),
            ),
        ],
        "error": [
            ("this is the share of the energy that is lost: a root is missing", lambda i: i.right["error"] ** 2),
            ("this is ‖ΔW − ΔW′‖, not divided by ‖ΔW‖", lambda i: np.sqrt(lost(i))),
            ("this is ‖ΔW − ΔW′‖², and not divided by anything", lost),
            ("this is the share of the energy that is kept", lambda i: 1 - i.right["error"] ** 2),
            ("this is ‖ΔW′‖ / ‖ΔW‖, what is kept", lambda i: np.sqrt(1 - i.right["error"] ** 2)),
            (
                "this is 1 − ‖ΔW′‖ / ‖ΔW‖: the two lengths stand at a right angle, and do not add up",
                lambda i: 1 - np.sqrt(1 - i.right["error"] ** 2),
            ),
            ("it is divided by ‖ΔW′‖, what is left, not by ‖ΔW‖", lambda i: np.sqrt(lost(i) / (whole(i) - lost(i)))),
            ("A has been split, and not Aᵀ: these are not the singular values of B A", lambda i: left_outside(i)[1]),
            ("σ stands where σ² belongs", lambda i: lost(i, 1) / whole(i, 1)),
            (
                "only the first direction that is cut off is counted",
                lambda i: np.sqrt(sigma_of(i)[i.r] ** 2 / whole(i)),
            ),
            ("this is σ of the first direction that is cut off, over σ₁", lambda i: sigma_of(i)[i.r] / sigma_of(i)[0]),
        ],
    },
    hints={
        "B A": "B = Q_B R_B and Aᵀ = Q_A R_A. What stands between the Q's, how large is it, and what is its best cut?",
        "error": "‖ΔW‖² is the sum of all σ². Which of them belong to what is cut off?",
    },
    formula="B = Q_B R_B,  Aᵀ = Q_A R_A,  R_B R_Aᵀ = U Σ Vᵀ\n"
    "B_r = Q_B U[:, :r] √Σ_r,  A_r = √Σ_r Vᵀ[:r] Q_Aᵀ;  error = √(σ²_{r+1} + …) / √(σ₁² + …)",
)
