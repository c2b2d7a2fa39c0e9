"""Quantised and pruned weights: codes, bits, errors against theory, and what stands in an array's place."""

import copy
import dataclasses
import math
import pickle
import tracemalloc

import numpy as np
import pytest

from lora_np.compress import (
    CODE_POINTS,
    double_quantise,
    held_bytes,
    magnitude_mask,
    n_of_m_mask,
    nearest_point,
    pack,
    prune_magnitude,
    prune_n_of_m,
    quantisation_error,
    quantise,
    quantise_int8,
    quantise_nf4,
    requantise,
    unpack,
)

# Dettmers et al. 2023, appendix E
PUBLISHED = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453]
PUBLISHED += [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0]
PUBLISHED += [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
PUBLISHED += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
MAKERS = {"nf4": quantise_nf4, "nf4, single": lambda W: quantise_nf4(W, 32, False), "int8": quantise_int8}
EACH_FORMAT = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
equal = np.testing.assert_array_equal


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ------------------------------------------------------------------ the code points


def test_the_code_points_are_the_published_ones():
    equal(CODE_POINTS, PUBLISHED)
    assert not CODE_POINTS.flags.writeable


@DTYPES
def test_the_nearest_point_is_found_as_by_brute_force(dtype):
    x = np.random.default_rng(1).uniform(-1.1, 1.1, (40, 50)).astype(dtype)
    distances = np.abs(x[..., None].astype(np.float64) - CODE_POINTS)  # (40, 50, 16)
    nearest = np.take_along_axis(distances, nearest_point(x, CODE_POINTS)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(nearest, distances.min(axis=-1), rtol=0, atol=1e-7 if dtype is np.float32 else 0)


def test_a_tie_goes_to_the_lower_point():
    points = np.array([-1.0, -0.5, 0.0, 1.0])
    equal(nearest_point(np.array([-0.75, -0.25, 0.5, 0.5 + 1e-15]), points), [0, 1, 2, 3])
    equal(nearest_point(CODE_POINTS, CODE_POINTS), np.arange(16))


# ------------------------------------------------------------------ packing, bits and bytes


def test_packing_two_codes_to_a_byte():
    every_byte = np.arange(256, dtype=np.uint8)
    equal(pack(unpack(every_byte)), every_byte)
    codes = np.array([0xA, 0x3, 0x0, 0xF])
    equal(pack(codes), np.array([0xA3, 0x0F], dtype=np.uint8))  # the first in the high half
    equal(unpack(pack(codes)), codes)


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
    assert quantise_int8(W).bits_per_weight == 8 + 32 / shape[1]
    assert double.nbytes == W.size / 2 + blocks + 4 * groups + 4 and double.absmax.steps.shape == (groups,)
    assert double.bits_per_weight == pytest.approx(8 * double.nbytes / W.size, rel=1e-15)


@pytest.mark.parametrize("make, more", [(quantise_nf4, 0.3), (quantise_int8, 0.05)])
def test_dequantising_takes_little_more_room_than_its_result(make, more):
    weight = make(normal((1024, 256)))
    tracemalloc.start()
    try:
        dense = np.asarray(weight)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dense.nbytes <= peak <= (1 + more) * dense.nbytes


@pytest.mark.parametrize("block_size, shape", [(64, (600, 128)), (2, (3, 2)), (6, (4, 21846))])
def test_pieces_of_any_length_are_put_together(block_size, shape):
    """The bytes of 600 × 128 weights fill a piece and a part of one; those of 4 × 21846 a piece and a few."""
    weight = quantise_nf4(normal(shape), block_size, double=False)
    blocks = CODE_POINTS.astype(np.float32)[unpack(weight.packed)].reshape(-1, block_size)
    equal(np.asarray(weight), (blocks * weight.absmax[:, None]).reshape(shape))


# ------------------------------------------------------------------ the round trip


@DTYPES
@pytest.mark.parametrize("block_size, double", [(64, True), (64, False), (2, False), (32, True), (96, False)])
def test_no_weight_is_further_off_than_half_the_widest_gap(dtype, block_size, double):
    W = normal((48, 96), dtype) * np.linspace(0.1, 3, 48, dtype=dtype)[:, None]
    weight = quantise_nf4(W, block_size, double)
    error = np.abs(np.asarray(weight) - W).reshape(-1, block_size)
    absmax = np.abs(W).reshape(-1, block_size).max(axis=1)
    bound = absmax * np.diff(CODE_POINTS).max() / 2
    if double:  # a scale is off by half a step, and a point is 1 at most
        bound = bound + np.repeat(weight.absmax.steps, 256)[: absmax.size] / 2
    assert np.all(error <= bound[:, None] * (1 + 1e-5))
    assert np.asarray(weight).dtype == W.dtype == weight.dtype
    assert np.asarray(weight).shape == W.shape == weight.shape


@DTYPES
@pytest.mark.parametrize("make", [lambda W: quantise_nf4(W, double=False), quantise_int8], ids=["nf4", "int8"])
def test_a_second_round_trip_changes_nothing(make, dtype):
    W = normal((24, 64), dtype) * np.linspace(0.1, 3, 24, dtype=dtype)[:, None]
    first = make(W)
    again = make(np.asarray(first))
    for field in dataclasses.fields(first):
        equal(getattr(again, field.name), getattr(first, field.name))
    largest = np.abs(W).argmax(axis=1)[:, None]  # a block is a row here, and its largest weight stays
    np.testing.assert_allclose(*(np.take_along_axis(x, largest, 1) for x in (np.asarray(first), W)), rtol=1e-6)


@DTYPES
def test_int8_is_off_by_half_a_step(dtype):
    W = normal((30, 70), dtype) * np.linspace(0.1, 3, 30, dtype=dtype)[:, None]
    weight = quantise_int8(W)
    assert np.all(np.abs(weight.codes).max(axis=1) == 127)
    assert np.all(np.abs(np.asarray(weight) - W) <= weight.scales[:, None] * (0.5 + 1e-4))


@DTYPES
def test_with_double_quantisation_the_codes_stay_and_the_scales_move_by_half_a_step(dtype):
    first = quantise_nf4(normal((300, 64), dtype))
    again = quantise_nf4(np.asarray(first))
    equal(again.packed, first.packed)
    equal(first.packed, quantise_nf4(normal((300, 64), dtype), double=False).packed)
    half_steps = np.repeat(again.absmax.steps, 256)[:300] / 2
    assert np.all(np.abs(again.scales() - first.scales()) <= half_steps * (1 + 1e-4))


def test_double_quantised_scales():
    scales = np.random.default_rng(2).uniform(0, 3, 600).astype(np.float32)
    stored = double_quantise(scales)
    steps = np.repeat(stored.steps, 256)[:600]
    assert np.all(np.abs(stored.dequantise() - scales) <= steps / 2 * (1 + 1e-4))
    assert np.abs(stored.codes).max() == 127
    flat = double_quantise(np.full(7, 0.3, dtype=np.float32))  # no spread: the mean says all
    equal(flat.dequantise(), np.full(7, 0.3, dtype=np.float32))


@DTYPES
@EACH_FORMAT
def test_zeros_stay_zeros(make, dtype):
    equal(np.asarray(make(np.zeros((4, 64), dtype))), np.zeros((4, 64)))
    W = normal((8, 64), dtype)
    W[3] = 0.0
    W[5, ::2] = 0.0
    dense = np.asarray(make(W))
    assert np.all(dense[W == 0] == 0) and not np.signbit(dense[3]).any()
    assert np.all(np.abs(dense[0]).max() > 0)


@EACH_FORMAT
def test_weights_at_the_ends_of_the_range_stay_finite(make):
    W = normal((8, 64))
    for largest in (1e38, 1e-38, 1e-43, 1e-45):  # the last two have no full precision any more
        scaled = W / np.abs(W).max() * np.float32(largest)
        error = np.abs(np.asarray(make(scaled)).astype(np.float64) - scaled)
        assert np.all(error <= np.float32(largest))


def test_blocks_follow_the_rows_whatever_the_memory_order():
    W = normal((6, 32))
    equal(np.asarray(quantise_nf4(np.asfortranarray(W))), np.asarray(quantise_nf4(W)))
    equal(
        np.asarray(quantise_nf4(W, double=False)),
        np.asarray(quantise_nf4(W.reshape(3, 64), double=False)).reshape(6, 32),
    )


# ------------------------------------------------------------------ errors against theory


# Expected errors for normal weights, by numerical integration over the largest weight and the others.
NF4_ERRORS = {16: 0.08083478324, 64: 0.09197854597, 256: 0.09863483029}
INT8_ERROR = 0.006956762019  # for rows of 256 weights


@pytest.mark.parametrize("block_size, double", [(16, False), (64, False), (64, True), (256, False)])
def test_nf4_has_the_error_that_theory_expects(block_size, double):
    """To within 0.5 %, also with double quantisation, which adds 0.01 %."""
    W = normal((1024, 1024), seed=3)
    measured = quantisation_error(W, quantise_nf4(W, block_size, double))
    assert measured == pytest.approx(NF4_ERRORS[block_size], rel=5e-3)


def test_int8_has_the_error_that_theory_expects():
    W = normal((4096, 256), seed=4)
    assert quantisation_error(W, quantise_int8(W)) == pytest.approx(INT8_ERROR, rel=1e-2)


def test_relative_error_of_nothing():
    zeros = np.zeros((2, 3))
    assert quantisation_error(zeros, zeros) == 0.0
    assert quantisation_error(zeros, np.ones((2, 3))) == math.inf
    assert quantisation_error(np.ones((2, 2)), np.full((2, 2), 1.5)) == 0.5


# ------------------------------------------------------------------ standing in an array's place


@EACH_FORMAT
@DTYPES
def test_numpys_array_protocol(make, dtype):
    W = normal((6, 64), dtype)
    weight = make(W)
    assert (weight.shape, weight.dtype, weight.ndim, weight.size) == ((6, 64), np.dtype(dtype), 2, 384)
    dense = np.asarray(weight)
    assert type(dense) is np.ndarray and dense.dtype == dtype and dense.flags.c_contiguous
    dense[:] = 0  # a fresh array each time
    assert np.abs(np.asarray(weight)).max() > 0
    assert np.array(weight, copy=True).flags.writeable
    assert np.asarray(weight, dtype=np.float64).dtype == np.float64
    for ask in (np.asarray, np.array):
        with pytest.raises(ValueError, match="copy: got False"):
            ask(weight, copy=False)
    x = normal((5, 64), dtype, seed=1)
    y = x @ np.asarray(weight).T
    assert y.shape == (5, 6) and y.dtype == dtype
    np.testing.assert_allclose(y, x @ W.T, atol=4.0)


@EACH_FORMAT
@DTYPES
def test_rows_are_the_rows_of_the_dense_matrix(make, dtype):
    """Bit for bit, for ids of any shape; also where blocks run over a row's end."""
    weight = make(normal((32, 18), dtype))
    dense = np.asarray(weight)
    for ids in (np.array([[3, 0, 31], [3, 3, 17]]), np.arange(32), np.array([], int), 5):
        assert weight[ids].dtype == dtype
        equal(weight[ids], dense[ids])
    with pytest.raises(IndexError):
        weight[np.array([0, 32])]
    with pytest.raises(TypeError, match="ids: got dtype bool, expected integers"):
        weight[np.ones(32, bool)]


@EACH_FORMAT
def test_a_quantised_weight_does_not_change(make):
    W = normal((6, 64))
    before, weight = W.copy(), make(W)
    with pytest.raises(dataclasses.FrozenInstanceError):
        weight.shape = (64, 6)
    for field in dataclasses.fields(weight):
        value = getattr(weight, field.name)
        for array in value if isinstance(value, tuple) else (value,):
            assert not isinstance(array, np.ndarray) or not array.flags.writeable
    equal(W, before)
    assert "(6, 64), float32" in repr(weight)
    for again in (pickle.loads(pickle.dumps(weight)), copy.deepcopy(weight)):
        equal(np.asarray(again), np.asarray(weight))


def model():
    params = {f"blocks.{i}.{name}.weight": normal((128, 256), seed=i) for i in range(4) for name in ("up", "q")}
    return {**params, "ln.weight": np.ones(128, dtype=np.float32)}


def test_quantising_named_matrices_of_a_dict():
    params = model()
    names = [name for name in params if name.endswith("up.weight")]
    small = quantise(params, names, block_size=32, double=False)
    assert list(small) == list(params)
    for name in params:
        if name in names:
            assert small[name].settings == {"block_size": 32, "double": False}
        else:
            assert small[name] is params[name]  # shared, not copied
    assert held_bytes(params) == 8 * 128 * 256 * 4 + 128 * 4
    assert held_bytes(small) == 4 * 128 * 256 * (4 + 32 / 32 + 32) / 8 + 128 * 4
    assert held_bytes({"a": params["ln.weight"], "b": params["ln.weight"]}) == 128 * 4  # one array
    assert quantise(params, iter(names), "int8")[names[0]].format == "int8"
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


# ------------------------------------------------------------------ pruning


@pytest.mark.parametrize("share, zeros", [(0, 0), (0.3, 18), (0.5, 30), (1 / 7, 9), (1.0, 60)])
def test_magnitude_pruning_keeps_the_largest(share, zeros):
    W = normal((5, 12))
    pruned, mask = prune_magnitude(W, share), magnitude_mask(W, share)
    assert np.sum(pruned == 0) == zeros == round(share * 60)
    equal(pruned, np.where(mask, W, 0))
    assert pruned.dtype == W.dtype and np.all(W != 0)
    if 0 < zeros < 60:
        assert np.abs(W[mask]).min() > np.abs(W[~mask]).max()


def test_of_equal_magnitudes_the_earlier_goes_first():
    ties = np.array([[1.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 0.5, 1.0]])
    equal(prune_magnitude(ties, 3 / 8), [[0, 0, 2, 1], [-1, 1, 0, 1]])
    equal(prune_n_of_m(ties), [[0, 0, 2, 1], [0, 1, 0, 1]])


@pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (4, 8), (3, 3), (0, 6)])
def test_n_of_m_pruning_keeps_the_largest_of_each_group(n, m):
    W = normal((5, 24), np.float64)
    pruned, mask = prune_n_of_m(W, n, m), n_of_m_mask(W, n, m)
    for group, stays in zip(W.reshape(-1, m), mask.reshape(-1, m)):
        assert stays.sum() == n
        assert set(np.abs(group[stays])) == set(sorted(np.abs(group))[m - n :])
    equal(pruned, np.where(mask, W, 0))
