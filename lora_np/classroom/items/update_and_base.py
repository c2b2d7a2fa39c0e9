"""Set 07, second part: an update beside the weight that it changes. How much of W lies in its directions, and which of
the tuned weight's directions W does not have?"""

import math

import numpy as np

from ...analysis import amplification, intruder_dimensions, random_directions, right_directions, truncate
from ..item import Item

# ---------------------------------------------------------------- W in the update's directions


def draw_amplified(rng, size):
    """An update of one direction more than is asked for: what the cut leaves out counts in ‖ΔW‖."""
    n_out, n_in = 2 * size.n_out, 2 * size.n_in
    update = rng.normal(size=(n_out, size.r + 1)) @ rng.normal(size=(size.r + 1, n_in)) / 2
    return {"W": rng.normal(size=(n_out, n_in)), "update": update, "r": size.r}


def sides(M, r):
    """The r leading directions of the output (out, r) and of the input (in, r)."""
    return right_directions(M.T, r), right_directions(M, r)


def between(i, of=None, W=None):
    """U and V's share of a matrix, Uᵀ W V (r, r)."""
    U, V = sides(i.update if of is None else of, i.r)
    return U.T @ (i.W if W is None else W) @ V


def length(M):
    return np.linalg.norm(M)


AMPLIFICATION = Item(
    name="amplification",
    arguments="W, update, r",
    outputs=("factor",),
    task="How many times larger an update is than W in the update's own directions.",
    draw=draw_amplified,
    right=lambda W, update, r: amplification(W, update, r, np.random.default_rng(0)).factor,
    factors=lambda i: {"‖ΔW‖": length(i.update), "r": i.r},
    mistakes={
        "factor": [
            ("the fraction is upside down", lambda i: 1 / i.right["factor"]),
            ("W's own directions are taken, not ΔW's", lambda i: length(i.update) / length(between(i, of=i.W))),
            (
                "the directions of W + ΔW are taken, not ΔW's",
                lambda i: length(i.update) / length(between(i, of=i.W + i.update)),
            ),
            ("the whole of W stands below, not its part in ΔW's directions", lambda i: length(i.update) / length(i.W)),
            ("the whole of W stands above, where ΔW belongs", lambda i: length(i.W) / length(between(i))),
            (
                "ΔW has been cut to r directions above the line, too",
                lambda i: length(truncate(i.update, i.r)) / length(between(i)),
            ),
            ("ΔW stands below, where W belongs", lambda i: length(i.update) / length(between(i, W=i.update))),
            (
                "W is looked at from the output's side alone, Uᵀ W",
                lambda i: length(i.update) / length(sides(i.update, i.r)[0].T @ i.W),
            ),
            (
                "W is looked at from the input's side alone, W V",
                lambda i: length(i.update) / length(i.W @ sides(i.update, i.r)[1]),
            ),
            (
                "only the diagonal of Uᵀ W V is counted: its other numbers belong to W, too",
                lambda i: length(i.update) / length(np.diag(between(i))),
            ),
            (
                "the largest singular value stands for the norm above the line",
                lambda i: np.linalg.norm(i.update, 2) / length(between(i)),
            ),
            (
                "the largest singular value stands for the norm below the line",
                lambda i: length(i.update) / np.linalg.norm(between(i), 2),
            ),
            (
                "the largest singular value stands for the norm above and below the line",
                lambda i: np.linalg.norm(i.update, 2) / np.linalg.norm(between(i), 2),
            ),
            ("this is the quotient of the squares", lambda i: i.right["factor"] ** 2),
            ("all directions of ΔW are taken, not the first r", lambda i: length(i.update) / length(between(wider(i)))),
            ("one direction too few is taken", lambda i: length(i.update) / length(between(wider(i, -1)))),
            (
                "the columns of NumPy's third result are taken for the v's: it gives Vᵀ, with the v's as rows",
                lambda i: length(i.update) / length(sides(i.update, i.r)[0].T @ i.W @ columns_of_Vt(i)),
            ),
            ("this is how much W has in ΔW's directions, ‖Uᵀ W V‖", lambda i: length(between(i))),
            (
                "this is how much ΔW has in its own directions, less what W has there",
                lambda i: length(between(i, W=i.update)) - length(between(i)),
            ),
            ("W + ΔW stands above, where ΔW belongs", lambda i: length(i.W + i.update) / length(between(i))),
            (
                "W + ΔW stands above, between the directions, where the whole of ΔW belongs",
                lambda i: length(between(i, W=i.W + i.update)) / length(between(i)),
            ),
        ]
    },
    hints={"factor": "Two lengths: that of the whole ΔW, and that of W as seen from ΔW's r directions on both sides."},
    formula="factor = ‖ΔW‖_F / ‖Uᵀ W V‖_F,  U (out, r) and V (in, r) the leading singular vectors of ΔW",
)


def wider(i, by=1):
    return type(i)(**{**vars(i), "r": i.r + by})


def columns_of_Vt(i):
    return np.linalg.svd(i.update)[2][:, : i.r]


# ---------------------------------------------------------------- intruders


def draw_intruders(rng, size):
    """W with a falling spectrum, and an update of two large directions that mix all of W's, so that they are none of
    them, and of a little of everything. In the first draw there are outputs that W does not reach; the first of the
    two directions lies mostly there."""
    n_out, n_in = 4 * size.n_out, 4 * size.n_in
    n = min(n_out, n_in)
    U, V = random_directions(n_out, n, rng), random_directions(n_in, n, rng)
    W = U * np.linspace(6.0, 1.0, n) @ V.T
    new = np.sign(rng.normal(size=(n, 2))) / math.sqrt(n)  # of each old direction just as much
    new = U @ new  # (out, 2)
    outside = rng.normal(size=n_out)
    outside -= U @ (U.T @ outside)
    if n_out > n_in:
        new[:, 0] = 0.6 * new[:, 0] + 0.8 * outside / np.linalg.norm(outside)
    update = new * [10.0, 8.0] @ random_directions(n_in, 2, rng).T + 0.15 * rng.normal(size=W.shape)
    return {"W": W, "W_tuned": W + update, "k": size.n_out, "epsilon": {2: 0.5, 3: 0.6}[size.r]}


def right_intruders(W, W_tuned, k, epsilon):
    found = intruder_dimensions(W, W_tuned, k, epsilon)
    return found.similarities, found.number


def counted_on(i, outputs):
    """A mistake in the similarities costs once: the number is right, too, if it is that of the student's own."""
    own = np.asarray(outputs["similarities"], dtype=float)
    if np.array_equal(np.asarray(outputs["number"]), np.sum(own < i.epsilon)):
        return {**outputs, "number": intruder_dimensions(i.W, i.W_tuned, i.k, i.epsilon).number}
    return outputs


def meetings(i, before=None, after=None, full=False):
    """Cosines (directions of W, k directions of W_tuned), of left singular vectors."""
    X, Y = (np.linalg.svd(M, full_matrices=full)[0] for M in (i.W, i.W_tuned))
    return (X if before is None else before).T @ (Y if after is None else after)[:, : i.k]


def of_inputs(i):
    X, Y = (right_directions(M, min(M.shape)) for M in (i.W, i.W_tuned))
    return np.abs(meetings(i, X, Y)).max(axis=0)


def known(i):
    return i.right["similarities"]


INTRUDERS = Item(
    name="count_intruders",
    arguments="W, W_tuned, k, epsilon",
    outputs=("similarities", "number"),
    task="How well the base knows the tuned weight's leading directions, and how many of them it does not know.",
    draw=draw_intruders,
    right=right_intruders,
    compared=counted_on,
    factors=lambda i: {"k": i.k},
    mistakes={
        "similarities": [
            ("the signs are kept: a singular vector may come with either", lambda i: meetings(i).max(axis=0)),
            ("these are directions of the input, right singular vectors, where the output's are asked for", of_inputs),
            ("only W's k leading directions are searched, not all", lambda i: np.abs(meetings(i)[: i.k]).max(axis=0)),
            ("each direction is held against W's of the same number alone", lambda i: np.abs(np.diag(meetings(i)))),
            (
                "it is asked the other way round: how well W_tuned knows W's leading directions",
                lambda i: np.abs(swapped(i)).max(axis=0),
            ),
            (
                "for each direction of W its best among the tuned ones is taken; it is the other way round",
                lambda i: np.abs(meetings(i)).max(axis=1)[: i.k],
            ),
            (
                "U is square here: its columns beyond min(out, in) belong to no singular value of W",
                lambda i: np.abs(meetings(i, full=True)).max(axis=0),
            ),
            ("the cosines are squared", lambda i: known(i) ** 2),
            (
                "all of W's directions together are taken, not the most similar one",
                lambda i: np.linalg.norm(meetings(i), axis=0),
            ),
            ("the mean is taken, not the largest", lambda i: np.abs(meetings(i)).mean(axis=0)),
            ("the smallest is taken, not the largest", lambda i: np.abs(meetings(i)).min(axis=0)),
            ("this says how far they differ: it is 1 − the similarity", lambda i: 1 - known(i)),
            (
                "the directions of ΔW = W_tuned − W are looked at, not those of W_tuned",
                lambda i: np.abs(meetings(i, after=np.linalg.svd(i.W_tuned - i.W)[0])).max(axis=0),
            ),
            (
                "the rows of U are taken for the directions: these are its columns",
                lambda i: np.abs(rows_of_U(i)).max(axis=0),
            ),
        ],
        "number": [
            ("those are counted that the base does know", lambda i: i.k - i.right["number"]),
            (
                "all directions of W_tuned are counted, not the k leading ones",
                lambda i: intruder_dimensions(i.W, i.W_tuned, min(i.W.shape), i.epsilon).number,
            ),
            ("this is the share of the k, not their number", lambda i: i.right["number"] / i.k),
        ],
    },
    hints={
        "similarities": "One direction of W_tuned has a cosine with each of W's. Which of these says that it is known?",
        "number": "An intruder is a direction that not even the most similar one of W is similar to.",
    },
    formula="similarity of y_j = max_i |x_i · y_j|\n"
    "x_i: all left singular vectors of W; y_j: the k leading ones of W_tuned\n"
    "number = how many of the k are below ε",
)


def swapped(i):
    X, Y = (np.linalg.svd(M, full_matrices=False)[0] for M in (i.W, i.W_tuned))
    return Y.T @ X[:, : i.k]


def rows_of_U(i):
    X, Y = (np.linalg.svd(M, full_matrices=False)[0] for M in (i.W, i.W_tuned))
    return X @ Y[: i.k].T
