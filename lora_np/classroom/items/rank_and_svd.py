"""Set 01, rank and singular values: numbers counted, matrices cut; the thin factors are in `thin_factors.py`."""

import math

import numpy as np

from ...adapters import lora
from ...analysis import energy_share as share_in_directions
from ...analysis import rank_at_energy, singular_values, truncate
from ..item import Item
from .thin_factors import COLUMN, SPECTRUM, terms_of

# ---------------------------------------------------------------- counting


def right_size(n_out, n_in, r):
    return sum(math.prod(shape) for shape in lora.shapes(n_out, n_in, r).values())


SIZE = Item(
    name="adapter_size",
    arguments="n_out, n_in, r",
    outputs=("count",),
    task="How many numbers the thin factors hold.",
    draw=lambda rng, size: {"n_out": 10 * size.n_out, "n_in": 10 * size.n_in, "r": size.r},
    right=right_size,
    factors=lambda i: {"r": i.r},
    mistakes={
        "count": [
            ("these are the numbers of the full matrix", lambda i: i.n_out * i.n_in),
            ("this is B's count alone", lambda i: i.n_out * i.r),
            ("this is A's count alone", lambda i: i.r * i.n_in),
            ("both factors are counted as if they were B", lambda i: 2 * i.n_out * i.r),
            ("both factors are counted as if they were A", lambda i: 2 * i.r * i.n_in),
            ("the counts of B and A are multiplied, not added", lambda i: i.n_out * i.r * i.r * i.n_in),
            ("out, in and r are multiplied", lambda i: i.n_out * i.n_in * i.r),
            ("out, in and r are added", lambda i: i.n_out + i.n_in + i.r),
            ("the product B A is counted along with its factors", lambda i: i.right["count"] + i.n_out * i.n_in),
            (
                "r² is taken off: so many of the numbers are redundant, and yet they are stored",
                lambda i: i.right["count"] - i.r**2,
            ),
        ]
    },
    hints={"count": "Which shape has B, and which has A? How many numbers are in each?"},
    formula="count = r · (out + in):  out · r numbers in B, r · in in A",
)


def draw_saving(rng, size):
    """In the first draw a whole rank brings both counts to the same number, in the second none does."""
    n_out, n_in = {2: (35, 14), 3: (40, 66)}[size.r]
    return {"n_out": n_out, "n_in": n_in}


def right_saving(n_out, n_in):
    return max(r for r in range(n_out) if right_size(n_out, n_in, r) < n_out * n_in)


SAVING = Item(
    name="largest_saving_rank",
    arguments="n_out, n_in",
    outputs=("r",),
    task="The largest rank at which B and A together have fewer numbers than W.",
    draw=draw_saving,
    right=right_saving,
    mistakes={
        "r": [
            (
                "at this rank B and A have just as many numbers as W: nothing is saved",
                lambda i: i.n_out * i.n_in // (i.n_out + i.n_in),
            ),
            ("at this rank B and A have more numbers than W", lambda i: 1 + i.n_out * i.n_in // (i.n_out + i.n_in)),
            ("at one rank more, B and A would still have fewer numbers than W", lambda i: i.right["r"] - 1),
            (
                "this is the largest rank that W can have, and at that rank the factors are larger than W",
                lambda i: min(i.n_out, i.n_in),
            ),
            ("it is no whole number, and a rank is one", lambda i: i.n_out * i.n_in / (i.n_out + i.n_in) - 1),
            ("half the shorter side: that is for a square W alone", lambda i: min(i.n_out, i.n_in) // 2),
            ("half the longer side: that is for a square W alone", lambda i: max(i.n_out, i.n_in) // 2),
            ("a quarter of both sides together: that is for a square W alone", lambda i: (i.n_out + i.n_in) // 4),
        ]
    },
    hints={"r": "Write the sentence as an inequality in r. Does it still hold when both sides are equal?"},
    formula="the largest whole r with r (out + in) < out · in, that is (out · in − 1) // (out + in)",
)

# ---------------------------------------------------------------- cutting


def draw_matrix(rng, size):
    """High in the first draw, wide in the second."""
    return {"M": rng.normal(size=(2 * size.n_out, 2 * size.n_in)), "k": size.r}


def terms(i, power=1, which=None):
    """The sum of some terms of the decomposition, the first k unless `which` says others, with another power of σ."""
    return terms_of(i.M, slice(i.k) if which is None else which, power)


def wrong_way_round(i, turned_U=False, turned_V=False):
    """U's rows in the place of its columns, or the columns of NumPy's Vᵀ in the place of its rows."""
    U, sigma, Vt = np.linalg.svd(i.M)
    left, right = U[: i.k].T if turned_U else U[:, : i.k], Vt[:, : i.k].T if turned_V else Vt[: i.k]
    return (left * sigma[: i.k]) @ right


def centred(i):
    return i.M - i.M.mean(axis=0)


TRUNCATE = Item(
    name="truncate",
    arguments="M, k",
    outputs=("M_k",),
    task="The matrix of rank k that is nearest to M.",
    draw=draw_matrix,
    right=truncate,
    factors=lambda i: {"k": i.k},
    mistakes={
        "M_k": [
            ("this is what was cut off, M − M_k", lambda i: i.M - i.right["M_k"]),
            ("the k weakest directions are kept, not the strongest", lambda i: terms(i, which=slice(-i.k, None))),
            ("Σ is missing: this is U_k V_kᵀ", lambda i: terms(i, power=0)),
            ("σ² stands where σ belongs", lambda i: terms(i, power=2)),
            ("√σ stands where σ belongs", lambda i: terms(i, power=0.5)),
            ("one term too many is kept, k + 1", lambda i: terms(i, which=slice(i.k + 1))),
            ("one term too few is kept, k − 1", lambda i: terms(i, which=slice(i.k - 1))),
            ("only term k is there, not the k first ones", lambda i: terms(i, which=slice(i.k - 1, i.k))),
            ("only term k + 1 is there, not the k first ones", lambda i: terms(i, which=slice(i.k, i.k + 1))),
            (
                "the columns of NumPy's third result are taken for the v's: it gives Vᵀ, with the v's as rows",
                lambda i: wrong_way_round(i, turned_V=True),
            ),
            ("the rows of U are taken for the u's: these are its columns", lambda i: wrong_way_round(i, turned_U=True)),
            ("rows are taken for columns in both U and V", lambda i: wrong_way_round(i, True, True)),
            ("the first k columns of M are kept, and the rest is 0", lambda i: i.M * (np.arange(i.M.shape[1]) < i.k)),
            ("the first k rows of M are kept, and the rest is 0", lambda i: i.M * (np.arange(len(i.M))[:, None] < i.k)),
            ("the columns' means have been taken off before the cut", lambda i: truncate(centred(i), i.k)),
            (
                "the columns' means have been taken off before the cut and put back after it: that may be of rank "
                "k + 1",
                lambda i: truncate(centred(i), i.k) + i.M.mean(axis=0),
            ),
        ]
    },
    hints={"M_k": "Which terms of σ₁ u₁ v₁ᵀ + σ₂ u₂ v₂ᵀ + … belong to it? Does NumPy give V or Vᵀ?"},
    formula="M_k = σ₁ u₁ v₁ᵀ + … + σ_k u_k v_kᵀ = (U[:, :k] * σ[:k]) @ Vt[:k]",
)


def draw_share(rng, size):
    return {"sigma": singular_values(rng.normal(size=(size.V, size.C))), "k": size.r}


def part(i, power=2, which=None):
    return np.sum(i.sigma[slice(i.k) if which is None else which] ** power)


def whole(i, power=2):
    return np.sum(i.sigma**power)


SHARE = Item(
    name="energy_share",
    arguments="sigma, k",
    outputs=("share",),
    task="The share of the energy that the first k directions hold.",
    draw=draw_share,
    # The package measures a matrix along directions; here they are the first k axes.
    right=lambda sigma, k: share_in_directions(np.diag(sigma), np.eye(len(sigma))[:, :k]),
    factors=lambda i: {"100 (it is in per cent)": 100.0, "k": i.k, "n": i.size.C},
    mistakes={
        "share": [
            ("σ stands where σ² belongs", lambda i: part(i, 1) / whole(i, 1)),
            (
                "the singular values are added up first and squared after that",
                lambda i: part(i, 1) ** 2 / whole(i, 1) ** 2,
            ),
            (
                "a square root has been taken: this is the share of the length ‖M‖",
                lambda i: math.sqrt(i.right["share"]),
            ),
            ("this is the share that is lost", lambda i: 1 - i.right["share"]),
            ("this is the relative error of the cut, ‖M − M_k‖ / ‖M‖", lambda i: math.sqrt(1 - i.right["share"])),
            ("this is what is kept over what is lost", lambda i: part(i) / (whole(i) - part(i))),
            ("it is not divided by the whole energy", part),
            ("it is divided by σ₁², not by the whole energy", lambda i: part(i) / i.sigma[0] ** 2),
            ("means stand where sums belong", lambda i: part(i) / i.k * len(i.sigma) / whole(i)),
            ("one direction too many is counted, k + 1", lambda i: part(i, which=slice(i.k + 1)) / whole(i)),
            ("one direction too few is counted, k − 1", lambda i: part(i, which=slice(i.k - 1)) / whole(i)),
            ("this is direction k alone", lambda i: i.sigma[i.k - 1] ** 2 / whole(i)),
            ("this is direction k + 1 alone", lambda i: i.sigma[i.k] ** 2 / whole(i)),
            ("the k weakest directions are counted", lambda i: part(i, which=slice(-i.k, None)) / whole(i)),
        ]
    },
    hints={"share": "The energy is ‖M‖². Which sum is it, in singular values, and which part of that sum is kept?"},
    formula="share = (σ₁² + … + σ_k²) / (σ₁² + … + σ_n²)",
)


def draw_energy(rng, size):
    """In the first draw the share is reached exactly: 9/16 of 256 is 8² + 8² + 4², in whichever way one computes it."""
    if size.r == 2:
        return {"sigma": np.repeat([8.0, 4.0, 2.0], [2, 7, 4]), "share": 9 / 16}
    return {"sigma": singular_values(rng.normal(size=(16, 24)) * 0.9 ** np.arange(24)), "share": 0.9}


def first(energies, at_least):
    """How many of the energies it takes to come to an amount."""
    return int(np.argmax(np.cumsum(energies) >= at_least)) + 1


ENERGY = Item(
    name="rank_at_energy",
    arguments="sigma, share",
    outputs=("k",),
    task="How many directions it takes to hold a share of the energy.",
    draw=draw_energy,
    right=rank_at_energy,
    mistakes={
        "k": [
            ("one direction fewer is enough: a share that is reached exactly is reached", lambda i: i.right["k"] + 1),
            ("one direction too few: perhaps an index, and indices begin at 0", lambda i: i.right["k"] - 1),
            ("σ stands where σ² belongs", lambda i: first(i.sigma, i.share * whole(i, 1))),
            ("the directions are counted from the weakest on", lambda i: first(i.sigma[::-1] ** 2, i.share * whole(i))),
            (
                "this is a share of the number of directions, not of their energy",
                lambda i: math.ceil(i.share * len(i.sigma)),
            ),
            (
                "this is a share of the number of directions, not of their energy",
                lambda i: math.floor(i.share * len(i.sigma)),
            ),
            ("share is taken for what may be lost", lambda i: first(i.sigma**2, (1 - i.share) * whole(i))),
            (
                "the energies are held against share itself, not against its part of the whole energy",
                lambda i: first(i.sigma**2, i.share),
            ),
            (
                "this counts the singular values of at least share · σ₁",
                lambda i: np.sum(i.sigma >= i.share * i.sigma[0]),
            ),
            (
                "this counts the singular values of at least (1 − share) · σ₁",
                lambda i: np.sum(i.sigma >= (1 - i.share) * i.sigma[0]),
            ),
            ("all singular values that are not zero are counted: this is the rank", lambda i: np.sum(i.sigma > 0)),
        ]
    },
    hints={"k": "Add the energies up one by one, the strongest first. How many have you added when it is enough?"},
    formula="the smallest k with σ₁² + … + σ_k² ≥ share · (σ₁² + … + σ_n²)",
)

ITEMS = (SIZE, SAVING, COLUMN, TRUNCATE, SHARE, ENERGY, SPECTRUM)
