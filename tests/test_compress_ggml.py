"""GGUF's blocks: the layout byte by byte, the encoders' rounding, and what a BlockWeight gives in an array's place."""

import copy
import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest

from lora_np.compress import (
    FORMATS,
    BlockWeight,
    held_bytes,
    quantisation_error,
    quantise,
    requantise,
    with_offsets_added,
)
from lora_np.compress.ggml import BLOCK_BYTES, PIECE

FORMAT = pytest.mark.parametrize("format", ["q8_0", "q4_0", "q4_1"])
equal = np.testing.assert_array_equal


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def random_blocks(format, n_out=3, n_in=96, seed=0):
    """A weight with random codes and finite scales."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n_out, n_in // 32, BLOCK_BYTES[format]), dtype=np.uint8)
    blocks[..., :4] = rng.standard_normal((n_out, n_in // 32, 2)).astype("<f2").view(np.uint8)
    return BlockWeight(blocks.reshape(n_out, -1), format)


def by_hand(weight):
    """The dense matrix, one Python number after the other."""
    size = BLOCK_BYTES[weight.format]
    rows = []
    for row in weight.blocks:
        numbers = []
        for block in row.reshape(-1, size):
            d = np.float32(block[:2].view("<f2")[0])
            if weight.format == "q8_0":
                numbers += [d * np.float32(code) for code in block[2:].view(np.int8)]
                continue
            packed = [int(byte) for byte in block[-16:]]
            codes = [np.float32(byte % 16) for byte in packed] + [np.float32(byte // 16) for byte in packed]
            offset = np.float32(block[2:4].view("<f2")[0])
            numbers += [d * (q - 8) if weight.format == "q4_0" else d * q + offset for q in codes]
        rows.append(numbers)
    return np.array(rows, np.float32)


@FORMAT
def test_blocks_are_read_as_the_layout_says(format):
    weight = random_blocks(format)
    assert (weight.shape, weight.dtype, weight.settings) == ((3, 96), np.float32, {})
    equal(np.asarray(weight).view(np.uint32), by_hand(weight).view(np.uint32))  # bit for bit
    long = BlockWeight(np.tile(weight.blocks, (PIECE // 3, 1)), format)  # more than one piece, the last one short
    equal(np.asarray(long), np.tile(np.asarray(weight), (PIECE // 3, 1)))


ROUNDED = [
    # d = 1: halves go away from zero, and 0.49999997 + 0.5 would round to 1
    ("q8_0", [127, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -0.49999997], [127, 1, -1, 2, 3, -3, 0, 0]),
    # d = −8 / −8 = 1, codes w + 8, halves upwards, and 8 gets the highest code, 15
    ("q4_0", [-8, 0.5, -0.5, -1.5, 7.4, 7.5, 8, 0], [0, 9, 8, 7, 15, 15, 15, 8]),
    ("q4_1", [-3, 12, 0.5, -0.5, 1.5, -2.5, 11.5, 0], [0, 15, 4, 3, 5, 1, 15, 3]),  # d = 1, m = −3
]


@pytest.mark.parametrize("format, row, codes", ROUNDED)
def test_rounding(format, row, codes):
    weight = FORMATS[format](np.array([row * 4], np.float32))
    header = [1.0, -3.0] if format == "q4_1" else [1.0]
    equal(weight.blocks[0, : 2 * len(header)].view("<f2"), header)
    rest = weight.blocks[0, 2 * len(header) :]
    equal(rest.view(np.int8) if format == "q8_0" else np.concatenate([rest & 15, rest >> 4]), codes * 4)


@FORMAT
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_weight_is_off_by_half_a_step(format, dtype):
    W = normal((20, 96), dtype) * np.logspace(-4, 3, 20, dtype=dtype)[:, None]
    weight = FORMATS[format](W)
    assert weight.dtype == dtype == np.asarray(weight).dtype and weight.shape == W.shape
    assert weight.bits_per_weight == {"q8_0": 8.5, "q4_0": 4.5, "q4_1": 5.0}[format]
    blocks = W.reshape(-1, 32)
    largest = np.abs(blocks).max(axis=1)
    steps = {"q8_0": largest / 127, "q4_0": largest / 8, "q4_1": np.ptp(blocks, axis=1) / 15}[format]
    error = np.abs(np.asarray(weight).reshape(-1, 32) - blocks)
    half = steps if format == "q4_0" else steps / 2  # the code 16, of −w_k, is cut to 15
    assert np.all(error <= half[:, None] + 2.0**-10 * largest[:, None] + 127 * 2.0**-25)


@FORMAT
def test_zeros_tiny_and_huge_weights(format):
    """Steps of float16 are at least 2⁻²⁴, so d is off by half of that, 127 times. Above 65504 d is refused."""
    equal(np.asarray(FORMATS[format](np.zeros((2, 64), np.float32))), np.zeros((2, 64)))
    W = normal((4, 64)) / 8
    for largest in (1e-45, 1e-39, 1e-38, 1e-9, 1e-5, 6e4):
        scaled = W * np.float32(largest)
        assert np.all(np.abs(np.asarray(FORMATS[format](scaled)) - scaled) <= largest / 16 + 127 * 2.0**-25)
    with pytest.raises(ValueError, match="weight: .* needs a scale of .*float16 ends at 65504"):
        FORMATS[format](W * np.float32(1e38))


@FORMAT
@pytest.mark.parametrize(
    "W, error, says",
    [
        (np.ones((4, 33), np.float32), ValueError, r"got shape \(4, 33\), expected rows of a multiple of 32"),
        (np.ones((32, 16), np.float32), ValueError, "expected rows of a multiple of 32"),  # blocks lie within a row
        (np.ones(32, np.float32), ValueError, "expected a matrix"),
        (np.full((1, 32), np.nan, np.float32), ValueError, "expected finite numbers"),
        (np.ones((1, 32), np.float16), TypeError, "expected float32 or float64"),
    ],
)
def test_what_has_no_blocks_is_refused(format, W, error, says):
    with pytest.raises(error, match=says):
        FORMATS[format](W)


@FORMAT
def test_rows_are_the_rows_of_the_dense_matrix(format):
    for weight in (random_blocks(format, 32), dataclasses.replace(random_blocks(format, 32), dtype=np.float64)):
        dense = np.asarray(weight)
        for ids in (np.array([[3, 0, -1], [3, 3, 17]]), np.arange(32), np.array([], int), 5):
            assert weight[ids].dtype == weight.dtype
            equal(weight[ids], dense[ids])
        with pytest.raises(IndexError):
            weight[np.array([0, 32])]
    table = random_blocks(format, 20_000)
    tracemalloc.start()
    try:
        table[np.arange(10)]
        assert tracemalloc.get_traced_memory()[1] < 100_000  # of 7.7 MB
    finally:
        tracemalloc.stop()


@FORMAT
def test_float64_has_the_same_numbers(format):
    weight = random_blocks(format)
    wide = dataclasses.replace(weight, dtype=np.float64)
    assert wide.nbytes == weight.nbytes and wide.blocks is weight.blocks and wide.dtype == np.dtype(np.float64)
    equal(np.asarray(wide), np.asarray(weight).astype(np.float64))


@FORMAT
def test_dequantising_takes_little_more_room_than_its_result(format):
    weight = random_blocks(format, 4096, 960)
    tracemalloc.start()
    try:
        dense = np.asarray(weight)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(dense) is np.ndarray and dense.flags.c_contiguous and dense.flags.writeable
    assert peak <= 1.1 * dense.nbytes


@FORMAT
def test_a_weight_in_a_dict_of_weights(format, tmp_path):
    W = normal((4, 64))
    small = quantise({"a": W, "b": W}, ["a"], format)
    assert small["b"] is W and held_bytes({"a": small["a"]}) == small["a"].blocks.nbytes == 8 * BLOCK_BYTES[format]
    assert small["a"].format == format and not small["a"].blocks.flags.writeable
    again = requantise(np.asarray(small["a"]) + 1, like=small["a"])
    equal(again.blocks, FORMATS[format](np.asarray(small["a"]) + 1).blocks)
    for other in (pickle.loads(pickle.dumps(small["a"])), copy.deepcopy(small["a"])):
        equal(np.asarray(other), np.asarray(small["a"]))
    small["a"].blocks.tofile(tmp_path / "blocks")
    mapped = np.memmap(tmp_path / "blocks", mode="r").reshape(4, -1)
    equal(np.asarray(BlockWeight(mapped, format)), np.asarray(small["a"]))


@pytest.mark.parametrize("seed", range(20))
def test_added_offsets(seed):
    """One block after the other: m′ is the sum, rounded once; all other bytes, and the weight itself, are as before."""
    rng, weight = np.random.default_rng(seed), random_blocks("q4_1", 3, 96, seed)
    change = rng.standard_normal((3, 3)) * 10.0 ** rng.integers(-6, 3, (3, 3))
    before, got = weight.blocks.copy(), with_offsets_added(weight, change)
    assert type(got) is BlockWeight and (got.format, got.dtype) == ("q4_1", weight.dtype)
    for row, new_row, numbers in zip(weight.blocks, got.blocks, change):
        for block, new, c in zip(row.reshape(-1, 20), new_row.reshape(-1, 20), numbers):
            equal(new[[0, 1, *range(4, 20)]], block[[0, 1, *range(4, 20)]])
            assert new[2:4].view("<f2")[0] == np.float16(float(block[2:4].view("<f2")[0]) + c)
    equal(weight.blocks, before)
    m = np.asarray(got) - np.asarray(weight)  # each block's, up to the rounding of m′ and of d q + m in float32
    offsets = got.blocks.reshape(3, 3, 20)[..., 2:4].view("<f2").astype(float)
    bound = np.abs(offsets) * 2.0**-11 + 2.0**-25 + 2.0**-22 * np.abs(np.asarray(weight)).max()
    assert np.all(np.abs(m.reshape(3, 3, 32) - change[..., None]) <= bound)


@pytest.mark.parametrize(
    "weight, change, says",
    [
        (random_blocks("q4_0"), np.zeros((3, 3)), "weight: got q4_0, expected q4_1"),
        (np.zeros((3, 96)), np.zeros((3, 3)), "weight: got ndarray, expected q4_1"),
        (random_blocks("q4_1"), np.zeros((3, 96)), r"change: got shape \(3, 96\), expected \(3, 3\)"),
        (random_blocks("q4_1"), np.full((3, 3), 7e4), "change: gives an offset of 7e.04, but float16 ends at 65504"),
    ],
)
def test_offsets_that_cannot_be_added(weight, change, says):
    with pytest.raises(ValueError, match=says):
        with_offsets_added(weight, change)


def test_offsets_make_q4_1_finer_for_weights_on_one_side_of_zero():
    W = 1 + normal((64, 256)) / 10
    errors = [quantisation_error(W, FORMATS[format](W)) for format in ("q4_0", "q4_1", "q8_0")]
    assert errors[0] > 3 * errors[1] > 3 * errors[2]
