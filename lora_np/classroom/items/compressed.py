"""Set 10, quantised and pruned: eight-bit codes, and pruning; four bits are in `four_bits.py`, and what LoRA does on a
compressed base is in `compressed_base.py`."""

import numpy as np

from ...compress import n_of_m_mask, prune_n_of_m, quantise_int8
from ...ops import linear_forward
from ..item import Item
from .compressed_base import BACKWARD, MERGE, follows
from .four_bits import BITS, DEQUANTISE, QUANTISE

# ---------------------------------------------------------------- eight bits


def draw_rows(rng, size):
    """Rows of different sizes, the largest number now positive and now negative; in the second draw one is zero.

    The package's scales are float32: these are, exactly, so that no weight comes to lie beside the mark that it is on.
    """
    W = rng.normal(size=(size.n_out, 2 * size.n_in))
    scales = rng.uniform(0.005, 0.02, (size.n_out, 1)).astype(np.float32)
    W *= 127 * scales.astype(np.float64) / np.abs(W).max(axis=1, keepdims=True)
    if size.r == 3:
        W[1] = 0.0
    return {"W": W}


def right_int8(W):
    quantised = quantise_int8(W)
    return quantised.codes, quantised.scales.astype(W.dtype)


def by_own_scales(i, outputs):
    """A mistake in the scales costs once: codes are right, too, if they are what follows from the student's scales."""
    codes, scales = outputs["codes"], outputs["scales"]
    if codes is not None and scales is not None and np.shape(scales) == (len(i.W),):
        if follows(codes, i.W, scales):
            return {**outputs, "codes": right_int8(i.W)[0]}
    return outputs


def marks(i):
    """Each weight in steps of its row, not yet rounded."""
    scales = i.right["scales"]
    return i.W / np.where(scales > 0, scales, 1)[:, None]


INT8 = Item(
    name="int8_quantise",
    arguments="W",
    outputs=("codes", "scales"),
    task="A matrix in eight-bit codes, with a scale for each row.",
    draw=draw_rows,
    right=right_int8,
    compared=by_own_scales,
    mistakes={
        "codes": [
            ("they are cut off, not rounded: 2.9 has become 2", lambda i: np.trunc(marks(i))),
            ("they are rounded down, not to the nearest", lambda i: np.floor(marks(i))),
            ("they are rounded up, not to the nearest", lambda i: np.ceil(marks(i))),
            ("they are not rounded: a code is a whole number", marks),
            ("the sign is lost", lambda i: np.abs(i.right["codes"])),
            (
                "they are shifted, so that none is below 0: here they lie on both sides of 0",
                lambda i: i.right["codes"] + 127.0,
            ),
            (
                "they are shifted, so that none is below 0: here they lie on both sides of 0",
                lambda i: i.right["codes"] + 128.0,
            ),
            ("codes below 0 have run over: an unsigned byte holds none", lambda i: i.right["codes"] % 256.0),
            (
                "they are counted from the row's smallest weight on: here the weight 0 has the code 0",
                lambda i: from_smallest(i),
            ),
            (
                "each column has a ruler of its own, not each row",
                lambda i: np.rint(127 * i.W / np.abs(i.W).max(axis=0)),
            ),
            ("the weights are multiplied by the scale", lambda i: np.rint(i.W * i.right["scales"][:, None])),
            ("the weights are rounded as they are, not in steps of their row", lambda i: np.rint(i.W)),
            (
                "the largest weight of the whole matrix sets one scale for all",
                lambda i: np.rint(i.W / np.abs(i.W).max() * 127),
            ),
            (
                "these are the weights that come back, not their codes",
                lambda i: i.right["codes"] * i.right["scales"][:, None],
            ),
        ],
        "scales": [
            ("this is the largest magnitude of each row, not yet divided by 127", lambda i: np.abs(i.W).max(axis=1)),
            (
                "the largest weight is taken, where the largest magnitude may be a negative weight's",
                lambda i: i.W.max(axis=1) / 127,
            ),
            ("the largest weight's place is found, and its sign is kept", lambda i: signed(i) / 127),
            (
                "the largest weight of the whole matrix sets one scale for all",
                lambda i: np.full(len(i.W), np.abs(i.W).max() / 127),
            ),
            ("it is divided by 128, and the outermost code is 127", lambda i: np.abs(i.W).max(axis=1) / 128),
            ("all 255 codes are laid over one half of the row's range", lambda i: np.abs(i.W).max(axis=1) / 255),
            (
                "the codes are laid over what lies between the smallest and the largest weight; the ruler has 0 in its "
                "middle",
                lambda i: np.ptp(i.W, axis=1) / 255,
            ),
            ("this is the inverse, codes for each unit of a weight", lambda i: 127 / np.abs(i.W).max(axis=1)),
            ("a row's mean magnitude stands where its largest belongs", lambda i: np.abs(i.W).mean(axis=1) / 127),
            ("a row's standard deviation stands where its largest magnitude belongs", lambda i: i.W.std(axis=1) / 127),
        ],
    },
    hints={
        "codes": "How many steps from 0 does a weight lie, and which whole number is nearest? And in a row of zeros?",
        "scales": "The outermost mark of a row's ruler, number 127, lies on which weight? How far apart are two marks?",
    },
    formula="scale_o = max_i |W_oi| / 127,  code_oi = W_oi / scale_o, rounded to the nearest whole number\n"
    "a row of zeros: scale 0, codes 0",
)


def from_smallest(i):
    above, span = i.W - i.W.min(axis=1, keepdims=True), np.ptp(i.W, axis=1)[:, None]
    return np.rint(above / np.where(span > 0, span / 255, 1))


def signed(i):
    return np.take_along_axis(i.W, np.abs(i.W).argmax(axis=1)[:, None], axis=1)[:, 0]


# ---------------------------------------------------------------- pruning


def draw_pruned(rng, size):
    """Rows and columns in whole groups, so that groups that run the wrong way are possible."""
    n, m = {2: (2, 4), 3: (1, 3)}[size.r]
    return {"W": rng.normal(size=(m * size.n_out, m * size.n_in)), "n": n, "m": m}


def only(i, mask):
    return np.where(mask, i.W, 0.0)


def best_of(i, groups, n=None):
    """True where a number is among the n largest of its group, along the last axis."""
    return groups.argsort(axis=-1).argsort(axis=-1) >= groups.shape[-1] - (i.n if n is None else n)


def neighbours(i, W):
    return W.reshape(len(W), -1, i.m)


def one_for_all_rows(i):
    """One mask, of the columns' norms: whole columns are pruned."""
    return best_of(i, np.linalg.norm(i.W, axis=0).reshape(-1, i.m)).reshape(1, -1)


def strided(i):
    """Groups of columns that lie in / m apart, in the place of neighbours."""
    groups = np.abs(i.W).reshape(len(i.W), i.m, -1).swapaxes(1, 2)
    return best_of(i, groups).swapaxes(1, 2).reshape(i.W.shape)


def largest(i, axis):
    """The same share of zeros, chosen within a whole row (1) or column (0), or the whole matrix (None)."""
    if axis is None:
        return best_of(i, np.abs(i.W).ravel(), i.W.size * i.n // i.m).reshape(i.W.shape)
    return np.apply_along_axis(lambda row: best_of(i, row, len(row) * i.n // i.m), axis, np.abs(i.W))


PRUNE = Item(
    name="prune_n_of_m",
    arguments="W, n, m",
    outputs=("W_pruned",),
    task="Of every m neighbours in a row the n of largest magnitude stay.",
    draw=draw_pruned,
    right=prune_n_of_m,
    mistakes={
        "W_pruned": [
            ("n are set to zero, where n should stay", lambda i: prune_n_of_m(i.W, i.m - i.n, i.m)),
            ("the n of least magnitude stay", lambda i: only(i, ~n_of_m_mask(i.W, i.m - i.n, i.m))),
            ("this is what should go, and what should stay is zero", lambda i: i.W - i.right["W_pruned"]),
            (
                "the n largest stay, where a negative weight may have the larger magnitude",
                lambda i: only(i, best_of(i, neighbours(i, i.W)).reshape(i.W.shape)),
            ),
            (
                "the groups run down the columns, not along the rows: a product sums over the inputs",
                lambda i: prune_n_of_m(i.W.T.copy(), i.n, i.m).T,
            ),
            (
                "the members of a group stand in / m columns apart: they should be neighbours",
                lambda i: only(i, strided(i)),
            ),
            ("a whole row is taken for one group", lambda i: only(i, largest(i, 1))),
            ("a whole column is taken for one group", lambda i: only(i, largest(i, 0))),
            (
                "the whole matrix is taken for one group: this is pruning by magnitude",
                lambda i: only(i, largest(i, None)),
            ),
            (
                "the first n of each group stay, whatever their size",
                lambda i: only(i, np.arange(i.W.shape[1]) % i.m < i.n),
            ),
            ("the columns that stay are the same in every row", lambda i: only(i, one_for_all_rows(i))),
            ("this is the mask: ones where weights should stay", lambda i: (i.right["W_pruned"] != 0).astype(float)),
            ("the signs are lost", lambda i: np.abs(i.right["W_pruned"])),
        ]
    },
    hints={"W_pruned": "Give W a third axis that a group lies along. Which of its members are the m − n smallest?"},
    formula="groups = |W|.reshape(out, in / m, m); in each, the m − n of least magnitude become 0",
)

# ---------------------------------------------------------------- a format for zeros


def draw_sparse(rng, size):
    W = rng.normal(size=(size.n_out, 4 * size.n_in))
    places = np.flatnonzero(n_of_m_mask(W, 2, 4)).reshape(size.n_out, -1)  # (out, in/2), in the flattened matrix
    values = np.take(W, places)
    return {"x": rng.normal(size=(size.N, W.shape[1])), "values": values, "positions": places % 4}


def columns(values, positions):
    """Which input each value meets: two values of every four inputs."""
    return 4 * (np.arange(values.shape[1]) // 2) + positions


def right_sparse(x, values, positions):
    W = np.zeros((len(values), 2 * values.shape[1]))
    np.put_along_axis(W, columns(values, positions), values, axis=1)
    return linear_forward(x, W)[0]


def meeting(i, inputs, values=None):
    """y, where value k of a row meets the input that `inputs` names."""
    inputs = np.broadcast_to(inputs, i.values.shape)
    return np.sum(i.x[:, inputs] * (i.values if values is None else values), axis=-1)


def places(i):
    return np.arange(i.values.shape[1])


SPARSE = Item(
    name="sparse_forward",
    arguments="x, values, positions",
    outputs=("y",),
    task="x Wᵀ with a 2:4 matrix, of which only the weights that stayed are held.",
    draw=draw_sparse,
    right=right_sparse,
    mistakes={
        "y": [
            (
                "a position is taken for a column of x: it counts within its group of four",
                lambda i: meeting(i, i.positions),
            ),
            (
                "each value is taken to begin a group of its own: two values share one",
                lambda i: meeting(i, (4 * places(i) + i.positions) % i.x.shape[1]),
            ),
            (
                "groups are taken to begin at every second input, not at every fourth",
                lambda i: meeting(i, 2 * (places(i) // 2) + i.positions),
            ),
            ("a position is added to the value's own number", lambda i: meeting(i, places(i) + i.positions)),
            (
                "the positions are taken for distances from the value before",
                lambda i: meeting(i, np.cumsum(i.positions, axis=1) % i.x.shape[1]),
            ),
            ("the positions are taken to begin at 1", lambda i: meeting(i, columns(i.values, i.positions) - 1)),
            ("the positions are not used: values meet the first half of the inputs", lambda i: meeting(i, places(i))),
            (
                "the positions are not used: each group's values meet its first two inputs",
                lambda i: meeting(i, columns(i.values, places(i) % 2)),
            ),
            ("all rows have the first row's positions", lambda i: meeting(i, columns(i.values, i.positions[0]))),
            (
                "the values are missing: inputs are added up as they are",
                lambda i: meeting(i, columns(i.values, i.positions), 1.0),
            ),
            (
                "the two values of each group are exchanged",
                lambda i: meeting(
                    i,
                    columns(i.values, i.positions),
                    i.values.reshape(len(i.values), -1, 2)[..., ::-1].reshape(i.values.shape),
                ),
            ),
            (
                "only the first value of each group is there",
                lambda i: meeting(i, columns(i.values, i.positions), i.values * (places(i) % 2 == 0)),
            ),
            (
                "only the second value of each group is there",
                lambda i: meeting(i, columns(i.values, i.positions), i.values * (places(i) % 2)),
            ),
        ]
    },
    hints={"y": "Values 0 and 1 of a row belong to inputs 0 … 3, values 2 and 3 to inputs 4 … 7. And value k?"},
    formula="y_no = Σ_k values_ok · x[n, 4 (k // 2) + positions_ok]",
)

ITEMS = (INT8, BITS, QUANTISE, DEQUANTISE, PRUNE, SPARSE, BACKWARD, MERGE)
