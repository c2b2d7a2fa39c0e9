"""Quantised and pruned weights: bits, errors against theory, and what a quantised weight gives in an array's place.

The reference vectors have NF4's and the blocks' bytes and numbers, rounding and ties among them (test_reference.py).
oracles/test_gguf.py compares blocks with the `gguf` package, bit for bit.
"""

import copy
import dataclasses
import math
import pickle
import tracemalloc

import numpy as np
import pytest

from lora_np import compress
from lora_np.compress import CODE_POINTS, FORMATS, BlockWeight, quantisation_error, quantise, quantise_nf4, requantise
from lora_np.compress.ggml import LAYOUTS

# Dettmers et al. 2023, appendix E
PUBLISHED = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453]
PUBLISHED += [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0]
PUBLISHED += [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
PUBLISHED += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]

MAKERS = {**FORMATS, "nf4, single": lambda W: quantise_nf4(W, 32, False)}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EACH_FORMAT = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
WRITTEN = [format for format in LAYOUTS if format in FORMATS]
BLOCKS = pytest.mark.parametrize("format", WRITTEN)
equal = np.testing.assert_array_equal


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def random_blocks(format, n_out=3, n_in=96, seed=0):
    """A weight with random codes and finite scales."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n_out, n_in // 32, LAYOUTS[format].bytes), dtype=np.uint8)
    blocks[..., :4] = rng.standard_normal((n_out, n_in // 32, 2)).astype("<f2").view(np.uint8)
    return BlockWeight(blocks.reshape(n_out, -1), format)


def spelt_out(format, block):
    """A K-quant's block (bytes), one weight after another, from the layout in ggml-common.h."""
    at = slice(208, 210) if format == "q6_k" else slice(0, 2)
    d, weights = float(np.frombuffer(block[at], "<f2")[0]), []
    if format == "q6_k":
        for i in range(256):
            half, j = divmod(i, 128)
            low = block[64 * half + j % 64] >> (4 * (j // 64)) & 15
            high = block[128 + 32 * half + j % 32] >> (2 * (j // 32)) & 3
            scale = int(np.frombuffer(block[192 + i // 16 : 193 + i // 16], np.int8)[0])
            weights.append(d * scale * ((low | high << 4) - 32))
        return weights
    e, packed = float(np.frombuffer(block[2:4], "<f2")[0]), block[4:16]
    codes = block[16:] if format == "q4_k" else block[48:]
    for i in range(256):
        s = i // 32
        if s < 4:
            scale, offset = packed[s] & 63, packed[s + 4] & 63
        else:
            scale = packed[s + 4] & 15 | packed[s - 4] >> 6 << 4
            offset = packed[s + 4] >> 4 | packed[s] >> 6 << 4
        code = codes[32 * (s // 2) + i % 32] >> (4 * (s % 2)) & 15
        if format == "q5_k":
            code |= (block[16 + i % 32] >> s & 1) << 4
        weights.append(d * scale * code - e * offset)
    return weights


@pytest.mark.parametrize("format", [format for format in LAYOUTS if format not in FORMATS])
def test_k_quants_are_read_as_spelt_out(format):
    layout, rng = LAYOUTS[format], np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 2, layout.bytes), dtype=np.uint8)
    heads = rng.standard_normal((3, 2, (layout.header.stop - layout.header.start) // 2)).astype("<f2")
    blocks[..., layout.header] = heads.view(np.uint8)
    weight = BlockWeight(blocks.reshape(3, -1), format)
    expected = [[w for block in row for w in spelt_out(format, block.tobytes())] for row in blocks]
    np.testing.assert_allclose(np.asarray(weight), expected, rtol=1e-6, atol=1e-6)
    equal(weight[np.array([2, 0])], np.asarray(weight)[[2, 0]])
    assert weight.shape == (3, 512) and weight.is_finite() and weight.bits_per_weight == layout.bytes / 32
    blocks[1, 1, layout.header.start + 1] = 0x7C  # an infinite scale
    assert not BlockWeight(blocks.reshape(3, -1), format).is_finite()
    with pytest.raises(ValueError, match=f"{format} can only be read; merge into dense weights"):
        requantise(np.zeros((3, 512), np.float32), weight)


def peak_bytes(function):
    """What a function returns, and the most bytes that it held at a time."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------ bits and bytes


def test_the_code_points_are_the_published_ones():
    equal(CODE_POINTS, PUBLISHED)
    assert not CODE_POINTS.flags.writeable


@DTYPES
@pytest.mark.parametrize(
    "block_size, shape", [(16, (512, 128)), (64, (1024, 1024)), (64, (300, 64)), (128, (512, 128))]
)
def test_bits_per_weight(dtype, block_size, shape):
    """4 + 8/64 + 32/(64 · 256) bits, as in the paper, and one mean for the matrix; a last group may be short."""
    W = normal(shape, dtype)
    single, double = quantise_nf4(W, block_size, double=False), quantise_nf4(W, block_size)
    blocks = W.size // block_size
    groups = math.ceil(blocks / 256)
    assert single.bits_per_weight == 4 + 32 / block_size
    assert double.nbytes == W.size / 2 + blocks + 4 * groups + 4 and double.absmax.steps.shape == (groups,)
    assert double.bits_per_weight == pytest.approx(8 * double.nbytes / W.size, rel=1e-15)
    expected = {"int8": 8 + 32 / shape[1], "q8_0": 8.5, "q4_0": 4.5, "q4_1": 5.0}
    assert {format: FORMATS[format](W).bits_per_weight for format in expected} == expected


@EACH_FORMAT
def test_dequantising_takes_little_more_room_than_its_result_and_rows_than_theirs(make):
    weight = make(normal((4096, 960)))
    dense, peak = peak_bytes(lambda: np.asarray(weight))
    assert dense.nbytes <= peak <= 1.3 * dense.nbytes
    assert peak_bytes(lambda: weight[np.arange(10)])[1] < 0.05 * dense.nbytes


# ------------------------------------------------------------------ the round trip

HALF_STEPS = {  # function of blocks (n, size) -> how far off a number may be: half of its block's widest gap
    "nf4": lambda W: (CODE_POINTS[1] - CODE_POINTS[0]) / 2 * np.abs(W).max(axis=1),
    "int8": lambda W: np.abs(W).max(axis=1) / 254,
    "q8_0": lambda W: np.abs(W).max(axis=1) / 254,
    "q4_0": lambda W: np.abs(W).max(axis=1) / 8,  # a whole step: the code 16, of −w_k, is cut to 15
    "q4_1": lambda W: np.ptp(W, axis=1) / 30,
}
SHAPES = [("int8", {}, 96)] + [(format, {}, 32) for format in WRITTEN]
SHAPES += [("nf4", {"block_size": b, "double": d}, b) for b, d in ((64, True), (64, False), (2, False), (96, False))]


@DTYPES
@pytest.mark.parametrize("format, settings, block_size", SHAPES)
def test_no_weight_is_further_off_than_half_the_widest_gap_and_zeros_stay_zeros(format, settings, block_size, dtype):
    equal(np.asarray(FORMATS[format](np.zeros((4, 96), dtype), **settings)), np.zeros((4, 96)))
    W = normal((48, 96), dtype) * np.logspace(-4, 3, 48, dtype=dtype)[:, None]
    W[3], W[5, ::2] = 0.0, 0.0
    weight = FORMATS[format](W, **settings)
    assert np.asarray(weight).dtype == W.dtype == weight.dtype
    assert np.asarray(weight).shape == W.shape == weight.shape
    blocks = W.reshape(-1, block_size)
    bound = HALF_STEPS[format](blocks) * (1 + 1e-4)
    if settings.get("double"):  # a scale is off by half a step, and a point is 1 at most
        bound = bound + np.repeat(weight.absmax.steps, 256)[: len(blocks)] / 2 * (1 + 1e-4)
    if format in WRITTEN:  # scales are float16, whose steps are at least 2⁻²⁴
        bound = bound + 2.0**-10 * np.abs(blocks).max(axis=1) + 127 * 2.0**-25
    dense = np.asarray(weight)
    assert np.all(np.abs(dense.reshape(blocks.shape) - blocks) <= bound[:, None])
    assert format == "q4_1" or not dense[W == 0].any(), "only offsets move a zero"
    assert not dense[3].any() and (format in WRITTEN or not np.signbit(dense[3]).any())


def test_q8_0_rounds_halves_away_from_zero():
    """With d = 1; 0.49999997 + 0.5 would round to 1."""
    row = np.array([127, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -0.49999997] * 4, np.float32)
    equal(np.asarray(FORMATS["q8_0"](row[None])), [[127, 1, -1, 2, 3, -3, 0, 0] * 4])


@DTYPES
@pytest.mark.parametrize("make", [lambda W: quantise_nf4(W, double=False), compress.quantise_int8], ids=["nf4", "int8"])
def test_a_second_round_trip_changes_nothing(make, dtype):
    W = normal((24, 64), dtype) * np.linspace(0.1, 3, 24, dtype=dtype)[:, None]
    first = make(W)
    again = make(np.asarray(first))
    for field in dataclasses.fields(first):
        equal(getattr(again, field.name), getattr(first, field.name))
    largest = np.abs(W).argmax(axis=1)[:, None]  # a block is a row here, and its largest weight stays
    np.testing.assert_allclose(*(np.take_along_axis(x, largest, 1) for x in (np.asarray(first), W)), rtol=1e-6)


@EACH_FORMAT
def test_weights_at_the_ends_of_the_range_stay_finite(make):
    """Except where a block's scale would exceed float16."""
    W = normal((8, 64))
    for largest in (1e38, 6e4, 1e-5, 1e-38, 1e-43, 1e-45):  # the last two no longer have full precision
        scaled = W / np.abs(W).max() * np.float32(largest)
        if largest == 1e38 and make in [FORMATS[format] for format in WRITTEN]:
            with pytest.raises(ValueError, match="weight: .* needs a scale of .*float16 is 65504"):
                make(scaled)
            continue
        error = np.abs(np.asarray(make(scaled)).astype(np.float64) - scaled)
        assert np.all(error <= np.float32(largest))


def test_blocks_follow_the_rows_whatever_the_memory_order():
    W = normal((6, 32))
    equal(np.asarray(quantise_nf4(np.asfortranarray(W))), np.asarray(quantise_nf4(W)))
    wide = np.asarray(quantise_nf4(W.reshape(3, 64), double=False))
    equal(np.asarray(quantise_nf4(W, double=False)), wide.reshape(6, 32))


# ------------------------------------------------------------------ errors against theory


# Expected errors for normal weights, by numerical integration over the largest weight and the others.
NF4_ERRORS = {16: 0.08083478324, 64: 0.09197854597, 256: 0.09863483029}


@pytest.mark.parametrize("block_size, double", [(16, False), (64, True), (256, False)])
def test_nf4_has_the_error_that_theory_expects(block_size, double):
    """To within 0.5 %, also with double quantisation, which adds 0.01 %."""
    W = normal((1024, 1024), seed=3)
    measured = quantisation_error(W, quantise_nf4(W, block_size, double))
    assert measured == pytest.approx(NF4_ERRORS[block_size], rel=5e-3)


def test_relative_error_of_nothing():
    zeros = np.zeros((2, 3))
    assert quantisation_error(zeros, zeros) == 0.0
    assert quantisation_error(zeros, np.ones((2, 3))) == math.inf
    assert quantisation_error(np.ones((2, 2)), np.full((2, 2), 1.5)) == 0.5


def test_offsets_make_q4_1_finer_for_weights_on_one_side_of_zero():
    W = 1 + normal((64, 256)) / 10
    errors = [quantisation_error(W, FORMATS[format](W)) for format in ("q4_0", "q4_1", "q8_0")]
    assert errors[0] > 3 * errors[1] > 3 * errors[2]


# ------------------------------------------------------------------ standing in an array's place


@EACH_FORMAT
@DTYPES
def test_numpys_array_protocol(make, dtype):
    W = normal((6, 64), dtype)
    weight = make(W)
    assert (weight.shape, weight.dtype, weight.ndim, weight.size) == ((6, 64), np.dtype(dtype), 2, 384)
    assert f"(6, 64), {np.dtype(dtype)}" in repr(weight)
    dense = np.asarray(weight)
    assert type(dense) is np.ndarray and dense.dtype == dtype and dense.flags.c_contiguous
    dense[:] = 0  # a fresh array each time
    assert np.abs(np.asarray(weight)).max() > 0
    assert np.array(weight, copy=True).flags.writeable
    assert np.asarray(weight, dtype=np.float64).dtype == np.float64
    for ask in (np.asarray, np.array):
        with pytest.raises(ValueError, match="copy: got False"):
            ask(weight, copy=False)


ROWS = [(make, (32, 32), {}) for make in MAKERS.values()]
ROWS += [(quantise_nf4, (32, 18), {}), (quantise_nf4, (4, 21846), {"block_size": 6, "double": False})]
ROWS += [(FORMATS[format], (5200, 320), {}) for format in WRITTEN]


@DTYPES
@pytest.mark.parametrize("make, shape, settings", ROWS)
def test_rows_are_the_rows_of_the_dense_matrix(make, shape, settings, dtype):
    """Bit for bit, for ids of any shape; where blocks run over a row's end, and of two pieces."""
    weight = make(normal(shape, dtype), **settings)
    dense, n = np.asarray(weight), shape[0]
    for ids in (np.array([[3, 0, n - 1], [3, 3, n // 2]]), np.arange(n)[-40:], np.array([], int), -1):
        assert weight[ids].dtype == dtype
        equal(weight[ids], dense[ids])
    with pytest.raises(IndexError):
        weight[np.array([0, n])]
    with pytest.raises(TypeError, match="ids: got dtype bool, expected integers"):
        weight[np.ones(n, bool)]


@EACH_FORMAT
def test_a_quantised_weight_does_not_change(make):
    W = normal((6, 64))
    before, weight = W.copy(), make(W)
    for field in dataclasses.fields(weight):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(weight, field.name, None)
        value = getattr(weight, field.name)
        for array in value if isinstance(value, tuple) else (value,):
            assert not isinstance(array, np.ndarray) or not array.flags.writeable
    equal(W, before)
    for again in (pickle.loads(pickle.dumps(weight)), copy.deepcopy(weight)):
        equal(np.asarray(again), np.asarray(weight))


@BLOCKS
def test_blocks_in_float64_and_in_a_mapped_file_have_the_same_numbers(format, tmp_path):
    weight = random_blocks(format)
    wide = dataclasses.replace(weight, dtype=np.float64)
    assert wide.nbytes == weight.nbytes and wide.blocks is weight.blocks and wide.dtype == np.dtype(np.float64)
    equal(np.asarray(wide), np.asarray(weight).astype(np.float64))
    weight.blocks.tofile(tmp_path / "blocks")
    mapped = np.memmap(tmp_path / "blocks", mode="r").reshape(weight.blocks.shape)
    equal(np.asarray(BlockWeight(mapped, format)), np.asarray(weight))


@BLOCKS
@pytest.mark.parametrize(
    "W, says",
    [
        (np.ones((4, 33)), r"got shape \(4, 33\), expected a row length that is a multiple of 32"),
        (np.ones((32, 16)), "expected a row length that is a multiple of 32"),  # blocks lie within a row
        (np.full((1, 32), np.nan), "expected finite values"),
    ],
)
def test_what_has_no_blocks_is_refused(format, W, says):
    with pytest.raises(ValueError, match=says):
        FORMATS[format](W)


def test_quantising_named_matrices_of_a_dict():
    params = {f"blocks.{i}.{name}.weight": normal((128, 256), seed=i) for i in range(4) for name in ("up", "q")}
    params["ln.weight"] = np.ones(128, dtype=np.float32)
    names = [name for name in params if name.endswith("up.weight")]
    small = quantise(params, names, block_size=32, double=False)
    assert list(small) == list(params)
    for name in params:
        if name in names:
            assert small[name].settings == {"block_size": 32, "double": False}
        else:
            assert small[name] is params[name]  # shared, not copied
    assert compress.weight_bytes(params) == 8 * 128 * 256 * 4 + 128 * 4
    assert compress.weight_bytes(small) == 4 * 128 * 256 * (4 + 32 / 32 + 32) / 8 + 128 * 4
    assert compress.weight_bytes({"a": params["ln.weight"], "b": params["ln.weight"]}) == 128 * 4  # one array
    for format in FORMATS:
        assert quantise(params, iter(names), format)[names[0]].format == format
    assert quantise(params, [])["ln.weight"] is params["ln.weight"]


@EACH_FORMAT
def test_a_changed_matrix_takes_the_form_of_the_old_one(make):
    W, delta = normal((8, 64)), normal((8, 64), seed=1)
    old = make(W)
    new = requantise(np.asarray(old) + delta, like=old)
    assert type(new) is type(old) and new.settings == old.settings and new.nbytes == old.nbytes
    equal(np.asarray(new), np.asarray(make(np.asarray(old) + delta)))
    assert requantise(delta, like=W) is delta
    wide = delta.astype(np.float64)
    assert requantise(wide, like=old).dtype == requantise(wide, like=W).dtype == np.float32


# ------------------------------------------------------------------ offsets


@pytest.mark.parametrize("seed", range(20))
def test_added_offsets(seed):
    """Each m′ is the sum, rounded once; all other bytes, and the weight itself, are as before."""
    rng, weight = np.random.default_rng(seed), random_blocks("q4_1", 3, 96, seed)
    change = rng.standard_normal((3, 3)) * 10.0 ** rng.integers(-6, 3, (3, 3))
    before, got = weight.blocks.copy(), compress.with_offsets_added(weight, change)
    assert type(got) is BlockWeight and (got.format, got.dtype) == ("q4_1", weight.dtype)
    equal(weight.blocks, before)
    old, new = (each.blocks.reshape(3, 3, 20) for each in (weight, got))
    equal(np.delete(new, [2, 3], axis=2), np.delete(old, [2, 3], axis=2))
    m, offsets = (blocks[..., 2:4].copy().view("<f2")[..., 0].astype(float) for blocks in (old, new))
    equal(offsets, (m + change).astype(np.float16))


@pytest.mark.parametrize(
    "weight, change, says",
    [
        (random_blocks("q4_0"), np.zeros((3, 3)), "weight: got q4_0, expected q4_1"),
        (np.zeros((3, 96)), np.zeros((3, 3)), "weight: got ndarray, expected q4_1"),
        (random_blocks("q4_1"), np.zeros((3, 96)), r"change: got shape \(3, 96\), expected \(3, 3\)"),
        (
            random_blocks("q4_1"),
            np.full((3, 3), 7e4),
            "change: gives an offset of 7e.04, but the largest float16 is 65504",
        ),
    ],
)
def test_offsets_that_cannot_be_added(weight, change, says):
    with pytest.raises(ValueError, match=says):
        compress.with_offsets_added(weight, change)


# ------------------------------------------------------------------ pruning


@pytest.mark.parametrize("share, zeros", [(0, 0), (0.3, 18), (0.5, 30), (1 / 7, 9), (1.0, 60)])
def test_magnitude_pruning_keeps_the_largest(share, zeros):
    W = normal((5, 12))
    pruned, mask = compress.prune_magnitude(W, share), compress.magnitude_mask(W, share)
    assert np.sum(pruned == 0) == zeros == round(share * 60)
    equal(pruned, np.where(mask, W, 0))
    assert pruned.dtype == W.dtype and np.all(W != 0)
    if 0 < zeros < 60:
        assert np.abs(W[mask]).min() > np.abs(W[~mask]).max()


def test_of_equal_magnitudes_the_earlier_goes_first():
    ties = np.array([[1.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 0.5, 1.0]])
    equal(compress.prune_magnitude(ties, 3 / 8), [[0, 0, 2, 1], [-1, 1, 0, 1]])
    equal(compress.prune_n_of_m(ties), [[0, 0, 2, 1], [0, 1, 0, 1]])


@pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (4, 8), (3, 3), (0, 6)])
def test_n_of_m_pruning_keeps_the_largest_of_each_group(n, m):
    W = normal((5, 24), np.float64)
    pruned, mask = compress.prune_n_of_m(W, n, m), compress.n_of_m_mask(W, n, m)
    for group, stays in zip(W.reshape(-1, m), mask.reshape(-1, m)):
        assert stays.sum() == n
        assert set(np.abs(group[stays])) == set(sorted(np.abs(group))[m - n :])
    equal(pruned, np.where(mask, W, 0))
