"""Work in pieces: rows cut into blocks give the whole's numbers, and names are shared out among threads."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lora_np import ops
from lora_np.ops.blocks import BLOCK, blocks
from lora_np.training import AdamW, adamw_update, global_norm
from lora_np.training.groups import MOST_GROUPS, WORTHWHILE, balanced_groups


@pytest.fixture
def small(monkeypatch):
    """Function (elements): from now on a block holds so many."""
    return lambda elements: monkeypatch.setattr("lora_np.ops.blocks.BLOCK", elements)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ------------------------------------------------------------------ blocks

SHAPES = [(), (1,), (11,), (7, 5), (1, 5), (7, 1), (2, 3, 5), (4, 1, 3), (2, 3, 2, 5)]
ROOMS = [1, 4, 5, 6, 12, 10**6]  # less than a row, one, one and a bit, some, all


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pieces_are_views_that_cover_each_element_once(shape, room, small):
    small(room)
    array, companion = np.zeros(shape), np.zeros(shape[:-1] + (1,) if shape else ())
    for number, (piece, beside) in enumerate(blocks(array, companion)):
        assert np.shares_memory(piece, array) and np.shares_memory(beside, companion)
        assert piece.shape[:-1] == beside.shape[:-1]
        piece += 1 + number
        beside += 1 + number
    # Each element was written once, and the rows of both arrays by the same piece, in their order.
    assert (array == companion).all() and array.min() == 1
    assert set(array.ravel()) == set(range(1, number + 2))
    assert (np.diff(array.ravel()) >= 0).all()


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape], ids=str)
def test_a_piece_is_as_many_whole_rows_as_fit_and_at_least_one(shape, room, small):
    small(room)
    *full, last = [piece.shape for (piece,) in blocks(np.zeros(shape))]
    if math.prod(shape) <= room:
        assert (full, last) == ([], shape)
        return
    fit = max(1, room // shape[-1])
    assert set(full) <= {(fit, shape[-1])}
    assert 1 <= last[0] <= fit and last[1] == shape[-1]


def test_the_first_array_says_how_many_rows_fit(small):
    small(10)
    pieces = list(blocks(np.zeros((7, 5)), np.zeros((7, 1)), np.zeros((7, 9))))
    assert [[piece.shape for piece in row] for row in pieces] == [
        *[[(2, 5), (2, 1), (2, 9)]] * 3,
        [(1, 5), (1, 1), (1, 9)],
    ]


def test_an_array_in_another_order_is_read_right(small):
    small(6)
    array = np.arange(30.0).reshape(5, 3, 2).transpose(2, 1, 0)
    pieces = [piece for (piece,) in blocks(array)]
    assert len(pieces) > 1
    assert np.array_equal(np.concatenate(pieces), array.reshape(6, 5))


def test_nothing_can_be_written_in_vain(small):
    """Into a copy of an array in another order, of which the array itself would know nothing."""
    small(6)
    array = np.zeros((5, 3, 2))
    pieces = list(blocks(array, np.asfortranarray(array)))
    assert [[piece.flags.writeable for piece in pair] for pair in pieces] == [[True, False]] * 5
    array.flags.writeable = False
    assert not any(piece.flags.writeable for (piece,) in blocks(array))


def test_a_small_array_comes_as_it_is(small):
    small(30)
    array, companion = np.zeros((2, 3, 5)), np.zeros((2, 3, 1))
    ((piece, beside),) = blocks(array, companion)
    assert piece is array and beside is companion


def test_nothing_to_do(small):
    small(4)
    assert list(blocks(np.zeros((0, 5)))) == list(blocks(np.zeros((3, 0)))) == []


# ------------------------------------------------------------------ the operations that work by blocks


def gelu(rng, shape, dtype):
    x = 3.0 * rng.normal(size=shape).astype(dtype)
    y, cache = ops.gelu_forward(x)
    assert same_bits(ops.gelu_forward(x, ())[0], y)
    return y, *ops.gelu_backward(rng.normal(size=shape).astype(dtype), cache)


def softmax(rng, shape, dtype):
    x = rng.normal(size=shape).astype(dtype)
    x[..., 1:] = np.where(rng.random(x[..., 1:].shape) < 0.3, -np.inf, x[..., 1:])  # as a causal mask does
    probs, cache = ops.softmax_forward(x)
    return probs, *ops.softmax_backward(rng.normal(size=shape).astype(dtype), cache)


def cross_entropy(rng, shape, dtype):
    targets = rng.integers(0, shape[-1], shape[:-1])
    targets.flat[1::3] = ops.IGNORE_INDEX
    logits = 3.0 * rng.normal(size=shape).astype(dtype)
    loss, cache = ops.cross_entropy_forward(logits, targets)
    assert same_bits(ops.cross_entropy_forward(logits, targets, wanted=())[0], loss)
    return loss, *ops.cross_entropy_backward(dtype(0.7), cache)


@pytest.mark.parametrize("room", [1, 7, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(67,), (9, 13), (3, 4, 13), (2, 3, 5, 6), (6, 1), (3, 300)], ids=str)
@pytest.mark.parametrize("operation", [gelu, softmax, cross_entropy])
def test_an_operation_by_blocks_has_the_same_bits(operation, shape, dtype, room, small):
    whole = operation(np.random.default_rng(5), shape, dtype)
    small(room)
    in_pieces = operation(np.random.default_rng(5), shape, dtype)
    assert len(whole) == len(in_pieces) >= 2
    assert all(same_bits(a, b) for a, b in zip(whole, in_pieces))


@pytest.mark.parametrize("room", [7, 10**6])
@pytest.mark.parametrize("logits_order, targets_order", [("C", "F"), ("F", "C")])
def test_operands_in_another_order_give_the_same_numbers(logits_order, targets_order, room, small):
    rng = np.random.default_rng(5)
    logits, targets = rng.normal(size=(4, 6, 13)), rng.integers(0, 13, (4, 6))
    loss, cache = ops.cross_entropy_forward(logits, targets)
    small(room)
    logits_so = np.asarray(logits, order=logits_order)
    found, found_cache = ops.cross_entropy_forward(logits_so, np.asarray(targets, order=targets_order))
    np.testing.assert_allclose(found, loss, rtol=1e-14)
    np.testing.assert_allclose(found_cache.dlogits, cache.dlogits, rtol=1e-13)
    for forward in (ops.gelu_forward, ops.softmax_forward):
        for a, b in zip(forward(logits_so), forward(logits)):
            np.testing.assert_allclose(a, b, rtol=1e-13)


@pytest.mark.parametrize("operation", [gelu, softmax, cross_entropy])
def test_an_operation_does_go_by_blocks(operation, monkeypatch):
    """Or the test above would compare one thing with itself."""
    calls = []
    monkeypatch.setattr(f"lora_np.ops.{operation.__name__}.blocks", lambda *args: calls.append(args) or blocks(*args))
    operation(np.random.default_rng(0), (3, 5), np.float64)
    assert len(calls) == 2  # forward and backward, or with a gradient and without


def test_an_array_that_is_truly_larger_than_a_block():
    x = np.random.default_rng(0).normal(size=(BLOCK // 64 + 3, 64)).astype(np.float32)
    pieces = [piece for (piece,) in blocks(x)]
    assert len(pieces) == 2 and same_bits(np.concatenate(pieces), x)


# ------------------------------------------------------------------ groups for threads


def sized(*sizes):
    """Arrays of these sizes that take no memory."""
    return {f"array {i}": np.broadcast_to(np.float32(0), size) for i, size in enumerate(sizes)}


def loads(groups, arrays):
    return [sum(arrays[name].size for name in group) for group in groups]


DRAWN = [tuple(np.random.default_rng(seed).integers(1, 4 * WORTHWHILE, 5 + 7 * seed).tolist()) for seed in range(5)]


@pytest.mark.parametrize("sizes", [(), (3,), (5, 5, 5), (WORTHWHILE,) * 16, (40 * WORTHWHILE, 1, 1), *DRAWN])
def test_every_name_is_in_one_group(sizes):
    arrays = sized(*sizes)
    groups = balanced_groups(arrays)
    assert sorted(name for group in groups for name in group) == sorted(arrays)
    assert all(groups)  # none is empty


def test_a_small_dict_is_one_group():
    assert balanced_groups(sized(4, 9, 2)) == [["array 1", "array 0", "array 2"]]
    assert len(balanced_groups(sized(WORTHWHILE, WORTHWHILE - 1))) == 1
    assert len(balanced_groups(sized(WORTHWHILE, WORTHWHILE))) == 2
    assert balanced_groups({}) == []


def test_no_more_groups_than_the_most():
    assert len(balanced_groups(sized(*[WORTHWHILE] * 50))) == MOST_GROUPS


@pytest.mark.parametrize("sizes", DRAWN)
def test_groups_are_balanced(sizes):
    arrays = sized(*sizes)
    found = loads(balanced_groups(arrays), arrays)
    # No group is larger than another by more than the array that came to it last.
    assert max(found) - min(found) <= max(sizes)
    assert max(found) <= sum(sizes) / len(found) + max(sizes)


def test_equal_arrays_are_shared_out_equally():
    arrays = sized(*[WORTHWHILE] * 24)
    assert loads(balanced_groups(arrays), arrays) == [3 * WORTHWHILE] * 8


def test_one_huge_array_has_a_group_of_its_own():
    groups = balanced_groups(sized(5, 40 * WORTHWHILE, 7, 6))
    assert ["array 1"] in groups


@pytest.mark.parametrize("sizes", DRAWN)
def test_the_groups_depend_on_the_arrays_alone(sizes):
    arrays = sized(*sizes)
    # Different sizes: not even the order of the names in the dict counts.
    assert len(set(sizes)) == len(sizes)
    assert balanced_groups(dict(reversed(arrays.items()))) == balanced_groups(arrays)


def test_the_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(0)
    shapes = {"a": (300, 1000), "b": (1000,), "c": (500, 700), "d": (100, 3000), "e": (7, 11, 13), "f": ()}
    p, g, m = ({n: np.asarray(rng.normal(size=s), np.float32) for n, s in shapes.items()} for _ in range(3))
    v = {n: np.asarray(np.square(array)) for n, array in m.items()}
    assert len(balanced_groups(p)) > 1
    norm, updated = global_norm(g), adamw_update(p, g, m, v, 3, 1e-3, AdamW())
    for n_threads in (1, 2, 3):
        with ThreadPoolExecutor(n_threads) as pool:
            assert global_norm(g, pool.map) == norm
            found = adamw_update(p, g, m, v, 3, 1e-3, AdamW(), pool.map)
        assert all(same_bits(a[n], b[n]) for a, b in zip(found, updated) for n in shapes)
