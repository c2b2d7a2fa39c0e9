"""What two updates have in common, and what an update does to its base, on matrices whose answer is known."""

import math

import numpy as np
import pytest

from lora_np.analysis import (
    amplification,
    gaussian_similarity,
    intruder_dimensions,
    max_similarities,
    product_right_directions,
    random_directions,
    right_directions,
    similarity_table,
    subspace_similarity,
)

from .tiny import basis, with_svd

# ------------------------------------------------------------------ subspaces


def test_table_is_the_definition_at_every_place():
    """For bases at random and for spans that are equal, orthogonal or one inside the other."""
    Q, other = basis(12), basis(12, 7, seed=1)
    for U, V in ((Q[:, :5], other), (Q[:, :4], Q[:, 2:8]), (Q[:, :3], Q[:, :3] @ basis(3)), (Q, Q)):
        table = similarity_table(U, V)
        assert table.shape == (U.shape[1], V.shape[1]) and np.all(table <= 1.0)
        for i, j in np.ndindex(table.shape):
            first, second = U[:, : i + 1], V[:, : j + 1]
            by_definition = np.linalg.norm(first.T @ second) ** 2 / min(i + 1, j + 1)
            assert table[i, j] == pytest.approx(by_definition, rel=1e-12)
            assert subspace_similarity(U, V, i + 1, j + 1) == pytest.approx(by_definition, rel=1e-12)
        assert np.allclose(similarity_table(-U, V * (-1) ** np.arange(V.shape[1])), table)
        assert np.allclose(similarity_table(V, U), table.T)


@pytest.mark.parametrize("out, r, n", [(9, 3, 7), (4, 6, 7), (9, 6, 5)])
def test_right_directions_of_a_matrix_and_of_a_product(out, r, n):
    U, V, T = basis(out), basis(n, seed=1), basis(r, seed=2)
    sigma = [5.0, 3.0, 1.0, 0.2][: min(out, r, n)]
    B, A = with_svd(U, sigma, T), with_svd(T, [1.0] * len(sigma), V)
    for got in (right_directions(B @ A, 3), product_right_directions(B, A, 3)):
        assert got.shape == (n, 3)
        assert np.allclose(np.abs(got.T @ V[:, :3]), np.eye(3), atol=1e-12)


def test_float32_is_computed_in_float64():
    U, V = (basis(4, 2, seed).astype(np.float32) for seed in (0, 1))
    assert right_directions(U @ V.T, 2).dtype == similarity_table(U, V).dtype == np.float64
    assert np.array_equal(similarity_table(U, V), similarity_table(U.astype(float), V.astype(float)))


def test_directions_beyond_the_rank_are_refused():
    """They would be any of the null space's, and comparing them would compare rounding."""
    rng = np.random.default_rng(0)
    B, A = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(4, 30)).astype(np.float32)
    assert right_directions(B @ A, 4).shape == (30, 4)
    assert right_directions((B @ A).astype(np.float16), 4).shape == (30, 4)
    with pytest.raises(ValueError, match="k: got 5, expected a whole number from 1 to 4, the rank of matrix"):
        right_directions(B @ A, 5)
    with pytest.raises(ValueError, match="k: got 5, .* the rank of B A"):
        product_right_directions(B, A, 5)


def test_random_subspaces_overlap_by_chance():
    """The mean of 400 pairs is max(i, j) / n to within five standard errors, for all i and j at once."""
    rng = np.random.default_rng(0)
    tables = [similarity_table(random_directions(20, 4, rng), random_directions(20, 6, rng)) for _ in range(400)]
    expected = [[gaussian_similarity(20, i, j) for j in range(1, 7)] for i in range(1, 5)]
    assert expected[1][4] == 5 / 20
    assert (np.abs(np.mean(tables, axis=0) - expected) < 5 * np.std(tables, axis=0) / 20).all()


# ------------------------------------------------------------------ amplification


def test_amplification_by_hand():
    """ΔW brings out W's third and fourth direction: √(2² + 1²) of W lies there, and ‖ΔW‖ = √(8² + 6²) = 10."""
    U, V = basis(6), basis(4, seed=1)
    W, delta = with_svd(U, [4.0, 3.0, 2.0, 1.0], V), with_svd(U[:, [3, 2]], [8.0, 6.0], V[:, [3, 2]])
    got = amplification(W, delta, 2, np.random.default_rng(0))
    assert got.update == pytest.approx(math.sqrt(5))
    assert got.base == pytest.approx(5.0)  # 4² + 3²
    assert (got.base_norm, got.update_norm) == pytest.approx((math.sqrt(30), 10.0))
    assert got.factor == pytest.approx(10 / math.sqrt(5))
    draws = [amplification(W, -delta, 2, np.random.default_rng(seed)) for seed in range(300)]
    assert {round(draw.factor, 9) for draw in draws} == {round(got.factor, 9)}  # chance is in one number alone
    W_without, beyond = np.diag([3.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 1.0, 0.0])
    assert amplification(W_without, beyond, 1, np.random.default_rng(0)).factor == math.inf
    assert amplification(W_without, W_without, 2, np.random.default_rng(0)).factor == pytest.approx(1.0)
    squares = [draw.random**2 for draw in draws]
    assert abs(np.mean(squares) - 2**2 * 30 / (6 * 4)) < 5 * np.std(squares) / math.sqrt(300)


# ------------------------------------------------------------------ intruders


def test_planted_intruders_are_found_where_they_are():
    """A base (12, 9) with σ = 9 … 1, and one whose two last directions gave way to new ones of σ = 8.5 and 5.5."""
    U, V = basis(12), basis(9, seed=1)
    before = with_svd(U, range(9, 0, -1), V)
    after = with_svd(U[:, [*range(7), 9, 10]], [*range(9, 2, -1), 8.5, 5.5], V)
    got = intruder_dimensions(before, after, k=9)
    assert (got.number, got.positions) == (2, (1, 5))  # of 9, 8.5, 8, 7, 6, 5.5, 5, 4, 3
    assert np.allclose(got.similarities, [1, 0, 1, 1, 1, 0, 1, 1, 1], atol=1e-12)
    assert intruder_dimensions(before, after, k=5).positions == (1,)
    R, S = basis(12, seed=3), basis(9, seed=4)  # no rotation and no sign changes the similarities
    assert np.allclose(max_similarities(-R @ before, R @ after @ S, 9), got.similarities, atol=1e-12)


def test_an_intruder_is_a_direction_below_epsilon_whatever_its_singular_value():
    U, V = basis(12), basis(9, seed=1)
    tilted = np.column_stack([0.6 * U[:, 0] + 0.8 * U[:, 10], U[:, 1:9]])
    before, after = with_svd(U, range(9, 0, -1), V), with_svd(tilted, range(9, 0, -1), V)
    assert max_similarities(before, after, 1) == pytest.approx([0.6])
    assert [intruder_dimensions(before, after, 9, epsilon).positions for epsilon in (0.59, 0.61)] == [(), (0,)]
    rescaled = with_svd(U, [1.0, 20.0, 3.0, 9.5, 7.0, 0.1, 2.0, 5.0, 30.0], V)  # other places in the order, too
    got = intruder_dimensions(before, rescaled, k=9, epsilon=1 - 1e-9)
    assert got.number == 0 and np.allclose(got.similarities, 1.0)


def test_the_base_null_space_knows_no_direction():
    before, after = np.diag([3.0, 2.0, 0.0]), np.diag([3.0, 0.0, 5.0])
    assert np.allclose(max_similarities(before, after, 2), [0.0, 1.0])
