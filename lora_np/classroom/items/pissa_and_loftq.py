"""Set 11, second part: factors that start as a part of W (PiSSA), or of what quantising it loses (LoftQ)."""

import numpy as np

from ...adapters.starts import LOFTQ_STEPS, leading_factors, loftq, olora, pissa
from ...analysis import truncate
from ...compress import quantise_nf4
from ..item import Item, Unfit
from .lora_layer import config_of
from .thin_factors import terms_of


def product(i, A, B):
    """B A, for a start's factors are free: another pair may have the same product."""
    for name, factor, shape in (("A", A, (i.r, i.W.shape[1])), ("B", B, (len(i.W), i.r))):
        if factor is None:
            raise Unfit(f"{name} is no array of numbers")
        if np.shape(factor) != shape:
            raise Unfit(f"{name} has shape {np.shape(factor)}, expected {shape}")
    return B @ A


# ---------------------------------------------------------------- PiSSA


def draw_pissa(rng, size):
    return {"W": rng.normal(size=(2 * size.n_out, 2 * size.n_in)), "r": size.r, "s": size.alpha / size.r}


def right_pissa(W, r, s):
    rest, parts = pissa(W, config_of(r, s))
    return parts["lora_A"], parts["lora_B"], rest


def start_of(i, outputs):
    """The product, how evenly it is shared out, and W_rest, which is right, too, if it is what the student's own
    factors leave."""
    A, B, rest = (outputs[name] for name in ("A", "B", "W_rest"))
    part = product(i, A, B)
    if np.shape(rest) == part.shape and np.allclose(rest, i.W - i.s * part, 1e-9):
        rest = right_pissa(i.W, i.r, i.s)[2]
    return {"B A": part, "‖A‖ / ‖B‖": np.linalg.norm(A, axis=1) / np.linalg.norm(B, axis=0), "W_rest": rest}


def directions(i, power=1.0, which=None):
    """Some of the terms of W's decomposition, the first r unless `which` says others, with another power of σ."""
    return terms_of(i.W, slice(i.r) if which is None else which, power)


def sigma_of(i):
    return np.linalg.svd(i.W, compute_uv=False)[: i.r]


def columns_of_V(i):
    """With the columns of NumPy's Vᵀ in the place of its rows."""
    U, sigma, Vt = np.linalg.svd(i.W)
    return (U[:, : i.r] * sigma[: i.r]) @ Vt[:, : i.r].T / i.s


PISSA = Item(
    name="pissa_start",
    arguments="W, r, s",
    outputs=("A", "B", "W_rest"),
    task="A start that trains the leading directions of W and freezes the rest.",
    draw=draw_pissa,
    right=right_pissa,
    compared=start_of,
    factors=lambda i: {"α/r": i.s, "√(α/r)": np.sqrt(i.s), "(α/r)²": i.s**2, "r": i.r},
    mistakes={
        "B A": [
            ("s is missing: here B A is the part of W, and it is s B A that has to be", lambda i: directions(i)),
            ("B A is multiplied by s, and not divided: s B A is to be the part of W", lambda i: i.s * directions(i)),
            ("B A is divided by s twice: both factors have the whole of it", lambda i: directions(i) / i.s**2),
            ("both factors have σ, and so it is squared", lambda i: directions(i, 2.0) / i.s),
            ("both factors have σ, and so it is squared", lambda i: directions(i, 2.0)),
            ("both factors have σ/s, and so both are squared", lambda i: directions(i, 2.0) / i.s**2),
            ("Σ is missing: this is U_r V_rᵀ", lambda i: directions(i, 0.0)),
            ("Σ is missing: this is U_r V_rᵀ / s", lambda i: directions(i, 0.0) / i.s),
            ("only one of the factors has √σ", lambda i: directions(i, 0.5)),
            ("only one of the factors has √σ", lambda i: directions(i, 0.5) / i.s),
            ("only one of the factors has √(σ/s)", lambda i: directions(i, 0.5) / np.sqrt(i.s)),
            (
                "the weakest directions are trained, not the leading ones",
                lambda i: directions(i, which=slice(-i.r, None)) / i.s,
            ),
            (
                "the weakest directions are trained, not the leading ones",
                lambda i: directions(i, which=slice(-i.r, None)),
            ),
            (
                "the columns of NumPy's third result are taken for the v's: it gives Vᵀ, with the v's as rows",
                columns_of_V,
            ),
            (
                "the columns of NumPy's third result are taken for the v's: it gives Vᵀ, with the v's as rows",
                lambda i: i.s * columns_of_V(i),
            ),
            ("this is OLoRA's start, from W = Q R", lambda i: product(i, *olora(i.W, config_of(i.r, i.s))[1].values())),
            ("B A is 0: that is LoRA's start", lambda i: 0 * i.W),
        ],
        "‖A‖ / ‖B‖": [
            ("all of σ/s is in B, and A's rows have length 1", lambda i: i.s / sigma_of(i)),
            ("all of σ/s is in A, and B's columns have length 1", lambda i: sigma_of(i) / i.s),
            ("all of σ is in B, and A's rows have length 1", lambda i: 1 / sigma_of(i)),
            ("all of σ is in A, and B's columns have length 1", sigma_of),
            ("A has σ, and B 1/s", lambda i: i.s * sigma_of(i)),
            ("B has σ, and A 1/s", lambda i: 1 / (i.s * sigma_of(i))),
            ("1/s is in A alone", lambda i: np.full(i.r, 1 / i.s)),
            ("1/s is in B alone", lambda i: np.full(i.r, i.s)),
            ("1/√s is in A alone", lambda i: np.full(i.r, i.s**-0.5)),
            ("1/√s is in B alone", lambda i: np.full(i.r, i.s**0.5)),
        ],
        "W_rest": [
            ("this is W itself: its leading directions are in it, and again in the adapter", lambda i: i.W),
            ("s is missing in W − s B A", lambda i: i.W - directions(i) / i.s),
            ("s B A is added, not taken off", lambda i: i.W + directions(i)),
            ("this is s B A, what is trained and not what is frozen", lambda i: directions(i)),
        ],
    },
    hints={
        "B A": "Which matrix of rank r is nearest to W? It has to be s B A. What is B A then?",
        "‖A‖ / ‖B‖": "Row k of A and column k of B shall be equally long. Which part of σ_k and of 1/s has each?",
        "W_rest": "Together they have to be W, or the model is not the base.",
    },
    formula="W = U Σ Vᵀ;  B = U_r √(Σ_r / s),  A = √(Σ_r / s) V_rᵀ,  W_rest = W − s B A",
)

# ---------------------------------------------------------------- LoftQ


def there_and_back(W):
    return np.asarray(quantise_nf4(W))


def draw_loftq(rng, size):
    """Matrices of whole blocks of 64."""
    W = rng.normal(size=(4 * size.n_out, 4 * size.n_in))
    return {"W": W, "quantise": there_and_back, "r": size.r, "s": size.alpha / size.r, "rounds": LOFTQ_STEPS}


def right_loftq(W, quantise, r, s, rounds):
    Q, parts = loftq(W, config_of(r, s))
    return np.asarray(Q), parts["lora_A"], parts["lora_B"]


def base_and_product(i, outputs):
    """Q and B A, which is right, too, if it is the best for the student's own Q."""
    Q, A, B = (outputs[name] for name in ("Q", "A", "B"))
    part = product(i, A, B)
    if np.shape(Q) == part.shape and np.any(Q):
        if np.allclose(i.s * part, truncate(i.W - Q, i.r), rtol=1e-7, atol=1e-9):
            _, A, B = right_loftq(i.W, i.quantise, i.r, i.s, i.rounds)
            part = B @ A
    return {"Q": Q, "B A": part}


def in_turns(i, rounds=None, low=None, scale=1.0, sign=-1.0):
    """Q and s B A after some rounds, from another s B A, or with `scale` times it taken off (or added)."""
    low = np.zeros_like(i.W) if low is None else low
    for _ in range(i.rounds if rounds is None else rounds):
        Q = i.quantise(i.W + sign * scale * low)
        low = best(i, i.W - Q)
    return Q, low


def best(i, matrix):
    """The best s B A for a matrix."""
    parts = leading_factors(matrix, config_of(i.r, i.s))
    return i.s * parts["lora_B"] @ parts["lora_A"]


def to_what_is_left(i):
    """As if each round quantised what the round before had left, W − Q."""
    Q = i.quantise(i.W)
    for _ in range(i.rounds - 1):
        Q = i.quantise(i.W - Q)
    return Q


def added_up(i):
    Q, held = i.quantise(i.W), 0.0
    for _ in range(i.rounds - 1):
        held = held + best(i, i.W - Q)
        Q = i.quantise(i.W - held)
    return Q


FROM_W = "it has begun with the leading directions of W in the adapter: it begins from B A = 0"

LOFTQ = Item(
    name="loftq_start",
    arguments="W, quantise, r, s, rounds",
    outputs=("Q", "A", "B"),
    task="A quantised base and an adapter that together are near W.",
    draw=draw_loftq,
    right=right_loftq,
    compared=base_and_product,
    factors=lambda i: {"α/r": i.s, "(α/r)²": i.s**2},
    mistakes={
        "Q": [
            (
                "this is W, quantised: from the second round on, what the adapter holds is taken off W before",
                lambda i: i.quantise(i.W),
            ),
            ("one round is missing", lambda i: in_turns(i, i.rounds - 1)[0]),
            ("one round is too many", lambda i: in_turns(i, i.rounds + 1)[0]),
            (FROM_W, lambda i: in_turns(i, low=truncate(i.W, i.r))[0]),
            ("s is missing where the adapter's part is taken off W", lambda i: in_turns(i, scale=1 / i.s)[0]),
            ("s stands twice where the adapter's part is taken off W", lambda i: in_turns(i, scale=i.s)[0]),
            (
                "the adapter's part is added to W before quantising: it is to be taken off",
                lambda i: in_turns(i, sign=1.0)[0],
            ),
            ("it is not quantised: this is W − s B A", lambda i: i.W - in_turns(i)[1]),
            ("it is not quantised: this is W", lambda i: i.W),
            ("what is left of W, W − Q, is quantised over and over", to_what_is_left),
            ("what the adapter holds is added up over the rounds: each round's factors replace the old ones", added_up),
        ],
        "B A": [
            ("s is missing: it is s B A that is to be the best for W − Q", lambda i: i.s * i.right["B A"]),
            ("s is missing twice", lambda i: i.s**2 * i.right["B A"]),
            ("it is the best for W, not for what quantising has lost", lambda i: best(i, i.W) / i.s),
            ("it is the best for W, not for what quantising has lost", lambda i: best(i, i.W)),
            ("it is the best for Q, not for what quantising has lost", lambda i: best(i, i.right["Q"]) / i.s),
            ("the sign is reversed: it is to make good for W − Q, not for Q − W", lambda i: -i.right["B A"]),
            (
                "the sign is reversed: it is to make good for W − Q, not for Q − W",
                lambda i: -in_turns(i, sign=1.0)[1] / i.s,
            ),
            (
                "it is a round older than Q: the round ends with the adapter",
                lambda i: in_turns(i, i.rounds - 1)[1] / i.s,
            ),
            (FROM_W, lambda i: in_turns(i, i.rounds - 1, truncate(i.W, i.r))[1] / i.s),
            ("it is the best for the error of the first round", lambda i: in_turns(i, 1)[1] / i.s),
            ("it is 0: that is a start on a quantised base as in QLoRA", lambda i: 0 * i.W),
        ],
    },
    hints={
        "Q": "Q and s B A are to be W together. If s B A has a part of W already, what is left for Q to hold?",
        "B A": "Q is what it is. What is missing to W, and which matrix of rank r is nearest to that?",
    },
    formula="from B A = 0, `rounds` times:  Q ← quantise(W − s B A),  s B A ← the best of rank r for W − Q",
)
