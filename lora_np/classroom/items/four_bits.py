"""Set 10, second part: four bits a weight, what they take up, NF4's codes and scales, and the way back from them."""

import math

import numpy as np

from ...compress import CODE_POINTS, NF4Weight, nearest_point, quantise_nf4, unpack
from ...compress.double import GROUP
from ..item import Item

# ---------------------------------------------------------------- bits


def draw_bits(rng, size):
    """As many blocks that the last group of their scales is a short one."""
    return {"n_out": 40 * size.n_out, "n_in": 96 * size.n_in, "block_size": {2: 64, 3: 128}[size.r]}


def right_bits(n_out, n_in, block_size):
    W = np.zeros((n_out, n_in))
    return tuple(quantise_nf4(W, block_size, double).bits_per_weight for double in (False, True))


def weights(i):
    return i.n_out * i.n_in


def blocks_of(i):
    return weights(i) // i.block_size


def spent(i, scale=8.0, steps=None, mean=1):
    """Bits of a weight with double quantisation: of its code, of its block's scale, and its part of steps and mean."""
    steps = math.ceil(blocks_of(i) / GROUP) if steps is None else steps
    return 4 + scale / i.block_size + 32 * (steps + mean) / weights(i)


BITS = Item(
    name="bits_per_weight",
    arguments="n_out, n_in, block_size",
    outputs=("single", "double"),
    task="What a weight takes up in NF4, scales and all.",
    draw=draw_bits,
    right=right_bits,
    factors=lambda i: {"8 (bits for bytes)": 8.0, "the number of weights": weights(i)},
    mistakes={
        "single": [
            ("the scales are missing", lambda i: 4.0),
            ("a scale is in float32: it has 32 bits, not 8", lambda i: 4 + 8 / i.block_size),
            ("a scale is in float32: it has 32 bits, not 16", lambda i: 4 + 16 / i.block_size),
            ("a scale is in float32: it has 32 bits, which are 4 bytes", lambda i: 4 + 4 / i.block_size),
            ("each weight has a scale of its own", lambda i: 36.0),
            ("each row of W has a scale, not each block", lambda i: 4 + 32 / i.n_in),
            ("the whole matrix has one scale", lambda i: 4 + 32 / weights(i)),
            ("a scale's bits are multiplied by the block's size, not shared out", lambda i: 4 + 32 * i.block_size),
            ("there are 16 points, and a code has 4 bits, not 16", lambda i: 16 + 32 / i.block_size),
            ("a code has 4 bits, not a byte to itself", lambda i: 8 + 32 / i.block_size),
        ],
        "double": [
            (
                "a group of fewer than 256 scales has a step in full, too",
                lambda i: spent(i, steps=blocks_of(i) / GROUP),
            ),
            (
                "this is the formula for a very large matrix: here the last, short group's step and the mean show",
                lambda i: spent(i, steps=blocks_of(i) / GROUP, mean=0),
            ),
            (
                "32 bits are missing: the mean of the scales, or the step of the last, short group",
                lambda i: spent(i, mean=0),
            ),
            ("the steps are missing: each group of 256 scales has one", lambda i: spent(i, steps=0)),
            ("the steps are missing: each group of 256 scales has one", lambda i: spent(i, steps=0, mean=0)),
            ("256 scales share a step, not 256 weights", lambda i: spent(i, steps=math.ceil(weights(i) / GROUP))),
            ("256 scales share a step, not 256 weights", lambda i: spent(i, steps=weights(i) / GROUP, mean=0)),
            ("each block has a step of its own", lambda i: spent(i, steps=blocks_of(i))),
            ("each block has a step of its own", lambda i: spent(i, steps=blocks_of(i), mean=0)),
            ("each group has a mean of its own", lambda i: spent(i, mean=math.ceil(blocks_of(i) / GROUP))),
            ("the scales are held twice, in float32 and in 8 bits", lambda i: spent(i, scale=40.0)),
            ("the scales are held in float32 still", lambda i: spent(i, scale=32.0)),
            ("the codes of the weights are missing", lambda i: spent(i) - 4),
            ("all that belongs to the scales is missing", lambda i: 4.0),
            ("nothing is saved: it is the same as with scales in float32", lambda i: i.right["single"]),
        ],
    },
    hints={
        "single": "One block: how many bits have its codes, how many its scale, and how many weights share them?",
        "double": "Write down the four things that are held, how many numbers each has, and the bits of a number.",
    },
    formula="single = 4 + 32 / block_size\n"
    "n = n_out · n_in / block_size scales:  double = 4 + (8 n + 32 ⌈n / 256⌉ + 32) / (n_out · n_in)",
)

# ---------------------------------------------------------------- four bits, there


def exact(array):
    """As float64, of numbers that float32 holds exactly: the package keeps a block's scale in float32."""
    return array.astype(np.float32).astype(np.float64)


def draw_blocks(rng, size):
    """Blocks that run over the rows' ends. Two have smaller weights than the others, one of them by far."""
    block_size = {2: 16, 3: 32}[size.r]
    W = exact(rng.normal(size=(2 * size.n_out, 2 * size.n_in)))
    W.reshape(-1, block_size)[:2] *= [[0.5], [2.0**-6]]
    return {"W": W, "points": CODE_POINTS.copy(), "block_size": block_size}


def right_nf4(W, points, block_size):
    quantised = quantise_nf4(W, block_size, double=False)
    return unpack(quantised.packed).reshape(-1, block_size), quantised.absmax.astype(W.dtype)


def by_own_absmax(i, outputs):
    """As `by_own_scales`, for blocks."""
    codes, absmax = outputs["codes"], outputs["absmax"]
    if codes is not None and absmax is not None and np.shape(absmax) == (i.W.size // i.block_size,):
        with np.errstate(all="ignore"):
            if np.array_equal(codes, nearest_point(cut(i) / absmax[:, None], i.points)):
                return {**outputs, "codes": right_nf4(i.W, i.points, i.block_size)[0]}
    return outputs


def cut(i, W=None):
    return (i.W if W is None else W).reshape(-1, i.block_size)


def apart(i):
    """Blocks of weights that are not neighbours: each takes one of every so many."""
    return i.W.reshape(i.block_size, -1).T.copy()


def scaled(i, W=None):
    """Blocks, each divided by its largest magnitude."""
    blocks = cut(i, W)
    return blocks / np.abs(blocks).max(axis=1, keepdims=True)


DOWN_COLUMNS = "the blocks are cut down the columns of W, not along its rows"
APART = "a block's weights are no neighbours: reshape has been given the two sizes the other way round"

QUANTISE = Item(
    name="nf4_quantise",
    arguments="W, points, block_size",
    outputs=("codes", "absmax"),
    task="A matrix in blocks, each weight as the number of the nearest of 16 points.",
    draw=draw_blocks,
    right=right_nf4,
    compared=by_own_absmax,
    mistakes={
        "codes": [
            ("the points are taken to be evenly spaced", lambda i: np.rint((scaled(i) + 1) * 7.5)),
            ("the points are taken to be evenly spaced", lambda i: np.rint(scaled(i) * 7) + 7),
            ("the points are taken to be evenly spaced", lambda i: np.rint(scaled(i) * 7)),
            (
                "each weight gets the point below it, not the nearest",
                lambda i: np.searchsorted(i.points, scaled(i), side="right") - 1,
            ),
            ("each weight gets the point above it, not the nearest", lambda i: np.searchsorted(i.points, scaled(i))),
            ("each weight gets the farthest point", lambda i: far_from(i, np.abs)),
            (
                "the distance to a point has kept its sign, so that the least is the most negative",
                lambda i: far_from(i, lambda distance: -distance),
            ),
            (
                "the distance to a point has kept its sign, so that the least is the most negative",
                lambda i: far_from(i, lambda distance: distance),
            ),
            ("the blocks are not divided by their largest magnitude", lambda i: nearest_point(cut(i), i.points)),
            (
                "the largest magnitude of the whole matrix has divided all blocks",
                lambda i: nearest_point(cut(i) / np.abs(i.W).max(), i.points),
            ),
            ("the signs of the weights are lost", lambda i: nearest_point(np.abs(scaled(i)), i.points)),
            (DOWN_COLUMNS, lambda i: nearest_point(scaled(i, i.W.T), i.points)),
            (APART, lambda i: nearest_point(scaled(i, apart(i)), i.points)),
            (
                "these are the distances to the nearest points, not the points' numbers",
                lambda i: np.abs(scaled(i) - i.points[i.right["codes"]]),
            ),
            ("these are the points themselves, not their numbers", lambda i: i.points[i.right["codes"]]),
            (
                "these are the weights that come back, not the codes",
                lambda i: i.points[i.right["codes"]] * i.right["absmax"][:, None],
            ),
        ],
        "absmax": [
            (
                "the largest weight is taken, where the largest magnitude may be a negative weight's",
                lambda i: cut(i).max(axis=1),
            ),
            (
                "the largest magnitude of the whole matrix stands for each block's",
                lambda i: np.full(len(cut(i)), np.abs(i.W).max()),
            ),
            (DOWN_COLUMNS, lambda i: np.abs(cut(i, i.W.T)).max(axis=1)),
            (APART, lambda i: np.abs(apart(i)).max(axis=1)),
            ("a block's mean magnitude stands where its largest belongs", lambda i: np.abs(cut(i)).mean(axis=1)),
            ("a block's standard deviation stands where its largest magnitude belongs", lambda i: cut(i).std(axis=1)),
            (
                "a block's length, its norm, stands where its largest magnitude belongs",
                lambda i: np.linalg.norm(cut(i), axis=1),
            ),
            (
                "it is divided by 127, as in int8: the outermost points of NF4 are ±1",
                lambda i: np.abs(cut(i)).max(axis=1) / 127,
            ),
            ("this is the inverse", lambda i: 1 / np.abs(cut(i)).max(axis=1)),
            (
                "a block's range, from its smallest to its largest weight, stands where its largest magnitude belongs",
                lambda i: np.ptp(cut(i), axis=1),
            ),
        ],
    },
    hints={
        "codes": "Bring a block to [−1, 1] first. How far is one of its weights from each of the 16 points?",
        "absmax": "In which order do 16 neighbours lie in memory? Which of a block's weights must land on −1 or 1?",
    },
    formula="blocks = W.reshape(-1, block_size),  absmax_b = max |block b|\n"
    "code = the k with the least |w / absmax − points[k]|",
)


def far_from(i, measure):
    """The number of the point where a measure of the distance, u less the point, is largest."""
    return measure(scaled(i)[..., None] - i.points).argmax(axis=-1)


# ---------------------------------------------------------------- four bits, and back


def draw_packed(rng, size):
    inputs = draw_blocks(rng, size)
    quantised = quantise_nf4(inputs["W"], inputs["block_size"], double=False)
    packed, absmax = quantised.packed.copy(), quantised.absmax.astype(np.float64)
    return {"packed": packed, "absmax": absmax, "points": inputs["points"], "shape": quantised.shape}


def right_dequantise(packed, absmax, points, shape):
    block_size = 2 * len(packed) // len(absmax)
    return NF4Weight(packed, absmax.astype(np.float32), shape, np.dtype(np.float64), block_size).dequantise()


def back(i, codes=None, points=None, scales=None, order="C"):
    """The matrix that comes back, of other codes, points or scales, or filled in another order."""
    values = (i.points if points is None else points)[unpack(i.packed) if codes is None else codes]
    scales = np.repeat(i.absmax, len(values) // len(i.absmax)) if scales is None else scales
    return (values * scales).reshape(i.shape, order=order)


DEQUANTISE = Item(
    name="nf4_dequantise",
    arguments="packed, absmax, points, shape",
    outputs=("W_hat",),
    task="The matrix that comes back from codes, two in a byte, and the blocks' scales.",
    draw=draw_packed,
    right=right_dequantise,
    mistakes={
        "W_hat": [
            (
                "the two codes of a byte are exchanged: the first one counts the sixteens",
                lambda i: back(i, unpack(i.packed >> 4 | i.packed << 4)),
            ),
            (
                "the first codes of all bytes come first, then all second ones: the two of a byte are neighbours",
                lambda i: back(i, np.concatenate([i.packed >> 4, i.packed & 15])),
            ),
            (
                "the two codes of a byte are exchanged, and all first ones come before all second ones",
                lambda i: back(i, np.concatenate([i.packed & 15, i.packed >> 4])),
            ),
            ("both codes of a byte are taken to be its first", lambda i: back(i, np.repeat(i.packed >> 4, 2))),
            ("both codes of a byte are taken to be its second", lambda i: back(i, np.repeat(i.packed & 15, 2))),
            ("the blocks' scales are missing", lambda i: back(i, scales=1.0)),
            ("it is divided by the blocks' scales", lambda i: back(i, scales=1 / np.repeat(i.absmax, size_of(i)))),
            (
                "the scales follow one another from weight to weight, not from block to block",
                lambda i: back(i, scales=np.tile(i.absmax, size_of(i))),
            ),
            ("all blocks have the first block's scale", lambda i: back(i, scales=i.absmax[0])),
            ("all blocks have the largest scale", lambda i: back(i, scales=i.absmax.max())),
            ("the points are taken to be evenly spaced", lambda i: back(i, points=np.linspace(-1, 1, 16))),
            ("the codes stand where their points belong", lambda i: back(i, points=np.arange(16.0))),
            ("the matrix is filled column by column", lambda i: back(i, order="F")),
        ]
    },
    hints={"W_hat": "86 = 5 · 16 + 6: which codes are that, in which order? How many weights share a scale?"},
    formula="codes: byte // 16, then byte % 16, for each byte in turn\n"
    "ŵ = points[code] · absmax of its block, filled into the shape row by row",
)


def size_of(i):
    """Weights in a block."""
    return 2 * len(i.packed) // len(i.absmax)
