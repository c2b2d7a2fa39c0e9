"""Work in pieces: rows cut into blocks give the whole's numbers, and names are shared out among threads."""

import numpy as np
import pytest

from lora_np import ops
from lora_np.compress import quantise_q8_0
from lora_np.ops.blocks import blocks
from lora_np.training.threads import MOST_GROUPS, WORTHWHILE, balanced_groups


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
def test_pieces_are_as_many_rows_as_fit_and_cover_each_element_once(shape, room, small):
    """Rows of the first array: at least one, and of the others the same, as views that are written to."""
    small(room)
    array = np.zeros(shape)
    companions = [np.zeros((*shape[:-1], width)) if shape else np.zeros(()) for width in (1, 9)]
    pieces = list(blocks(array, *companions))
    for number, piece in enumerate(pieces):
        for whole, part in zip((array, *companions), piece):
            assert np.shares_memory(part, whole) and part.shape[:-1] == piece[0].shape[:-1]
            part += 1 + number
    # Each element was written once, and the rows of all arrays by the same piece, in their order.
    for companion in companions:
        assert (array == companion.reshape(*shape[:-1], -1)[..., :1] if shape else array == companion).all()
        assert set(companion.ravel()) == set(range(1, len(pieces) + 1))
    assert array.min() == 1 and (np.diff(array.ravel()) >= 0).all()
    assert list(blocks(array.reshape(*shape, 1)[..., :0])) == [], "an empty array has no pieces"
    if array.size <= room:  # a small array comes as it is
        assert len(pieces) == 1 and pieces[0][0] is array and pieces[0][1] is companions[0]
        return
    *full, last = [piece[0].shape for piece in pieces]
    fit = max(1, room // shape[-1])
    assert set(full) <= {(fit, shape[-1])}
    assert 1 <= last[0] <= fit and last[1] == shape[-1]


def test_an_array_in_another_order_is_read_right_and_never_written_in_vain(small):
    """Its pieces are those of a copy, of which the array itself would know nothing."""
    small(6)
    array = np.arange(30.0).reshape(5, 3, 2)
    pieces = list(blocks(array, np.asfortranarray(array)))
    assert [[piece.flags.writeable for piece in pair] for pair in pieces] == [[True, False]] * 5
    for side in zip(*pieces):
        assert np.array_equal(np.concatenate(side), array.reshape(15, 2))
    array.flags.writeable = False
    assert not any(piece.flags.writeable for (piece,) in blocks(array))


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


@pytest.mark.parametrize("chunk", [1, 2 * 13, 3 * 13, 10**6])
def test_the_head_and_its_loss_in_chunks_are_those_of_all_logits(chunk):
    """Of 5 targets among 8 rows: chunks of one, of 2, 2 and 1, of 3 and 2, and of all."""
    rng = np.random.default_rng(5)
    x, weight, targets = rng.normal(size=(2, 4, 6)), rng.normal(size=(13, 6)), rng.integers(0, 13, (2, 4))
    targets[[0, 1, 1], [2, 0, 3]] = ops.IGNORE_INDEX
    logits, of_head = ops.linear_forward(x, weight)
    loss, of_loss = ops.cross_entropy_forward(logits, targets)
    expected = ops.linear_backward(ops.cross_entropy_backward(1.0, of_loss).dlogits, of_head)
    got, cache = ops.linear_cross_entropy_forward(x, weight, targets, chunk=chunk)
    np.testing.assert_allclose(got, loss, rtol=1e-14)
    np.testing.assert_allclose(cache.dx, expected.dx, rtol=0, atol=1e-15)
    np.testing.assert_allclose(cache.dweight, expected.dweight, rtol=0, atol=1e-15)
    alone, nothing = ops.linear_cross_entropy_forward(x, weight, targets, wanted=(), chunk=chunk)
    assert alone == got and nothing == (None, None)
    with pytest.raises(ValueError, match="targets: all are -100"):
        ops.linear_cross_entropy_forward(x, weight, np.full((2, 4), ops.IGNORE_INDEX), chunk=chunk)


def test_a_large_quantised_weight_is_expanded_in_tiles(monkeypatch):
    rng, tiles = np.random.default_rng(5), []
    weight, x = quantise_q8_0(rng.standard_normal((13, 32))), rng.standard_normal((2, 4, 32))
    targets, dense, rows = rng.integers(0, 13, (2, 4)), np.asarray(weight), type(weight).rows

    def of_head(weight):
        y, cache = ops.linear_forward(x, weight, wanted=("x",))
        loss, grads = ops.linear_cross_entropy_forward(x, weight, targets, wanted=("x",), chunk=39)
        log_probs, kept = ops.token_log_probs_forward(x, weight, targets, wanted=("x",), chunk=39)
        backs = ops.linear_backward(y, cache).dx, ops.token_log_probs_backward(log_probs, kept).dx
        return y, loss, grads.dx, log_probs, *backs

    expected = of_head(dense)
    monkeypatch.setattr("lora_np.ops.linear.LARGE", 0)
    monkeypatch.setattr("lora_np.ops.linear.TILE", 5 * 32)
    monkeypatch.setattr(type(weight), "rows", lambda self, ids: tiles.append(ids) or rows(self, ids))
    for got, of_dense in zip(of_head(weight), expected):
        np.testing.assert_allclose(got, of_dense, rtol=1e-12, atol=1e-14)
    assert {(tile.start, tile.stop) for tile in tiles} == {(0, 5), (5, 10), (10, 13)}


@pytest.mark.parametrize("room", [7, 10**6])
@pytest.mark.parametrize("logits_order, targets_order", [("C", "F"), ("F", "C")])
def test_operands_in_another_order_give_the_same_numbers(logits_order, targets_order, room, small):
    rng = np.random.default_rng(5)
    logits, targets = rng.normal(size=(4, 6, 13)), rng.integers(0, 13, (4, 6))
    loss, cache = ops.cross_entropy_forward(logits, targets)
    small(room)
    logits_so = np.asarray(logits, order=logits_order)
    loss_so, cache_so = ops.cross_entropy_forward(logits_so, np.asarray(targets, order=targets_order))
    np.testing.assert_allclose(loss_so, loss, rtol=1e-14)
    np.testing.assert_allclose(cache_so.dlogits, cache.dlogits, rtol=1e-13)
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


def sized(*sizes):
    """Arrays of these sizes that take no memory."""
    return {f"array {i}": np.broadcast_to(np.float32(0), size) for i, size in enumerate(sizes)}


DRAWN = [tuple(np.random.default_rng(seed).integers(1, 4 * WORTHWHILE, 5 + 7 * seed).tolist()) for seed in range(5)]
HUGE = (5, 40 * WORTHWHILE, 7, 6)


@pytest.mark.parametrize("sizes", [(), (3,), (5, 5, 5), (WORTHWHILE,) * 16, HUGE, *DRAWN])
def test_groups_are_balanced_and_have_each_name_once(sizes):
    arrays = sized(*sizes)
    groups = balanced_groups(arrays)
    assert sorted(name for group in groups for name in group) == sorted(arrays)
    assert all(groups)  # none is empty
    loads = [sum(arrays[name].size for name in group) for group in groups]
    # No group is larger than another by more than the array that came to it last.
    assert max(loads, default=0) - min(loads, default=0) <= max(sizes, default=0)
    if len(set(sizes)) == len(sizes):  # then not even the order of the names in the dict counts
        assert balanced_groups(dict(reversed(arrays.items()))) == groups
    if sizes == HUGE:
        assert ["array 1"] in groups


def test_a_group_is_worth_its_thread():
    assert balanced_groups(sized(4, 9, 2)) == [["array 1", "array 0", "array 2"]]
    numbers = [len(balanced_groups(sized(WORTHWHILE, WORTHWHILE - less))) for less in (1, 0)]
    assert numbers == [1, 2]
    groups = balanced_groups(sized(*[WORTHWHILE] * 48))
    assert [len(group) for group in groups] == [6] * MOST_GROUPS  # equal arrays are shared out equally
