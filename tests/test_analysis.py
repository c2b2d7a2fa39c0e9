"""Spectra, ranks, subspaces and full gradients, on matrices whose answer is known."""

import math

import numpy as np
import pytest

from lora_np import analysis
from lora_np.adapters import merge
from lora_np.analysis import amplification, energy_share, intruder_dimensions, max_similarities
from lora_np.analysis.updates import linear_weights
from lora_np.compress import quantise
from lora_np.model import loss_and_gradients
from lora_np.training import TrainConfig, model_objective, train, trainable_arrays

from .tiny import basis, random_params, tiny_config, with_svd


@pytest.mark.parametrize("out, r, n", [(9, 3, 7), (4, 6, 7), (9, 6, 5), (9, 6, 2)])
def test_singular_values_and_directions_of_a_product(out, r, n):
    """Those of the product formed, whichever of the three sizes is the least; directions as many as its rank."""
    U, V, T, k = basis(out), basis(n, seed=1), basis(r, seed=2), min(out, r, n)
    sigma = [5.0, 3.0, 1.0, 0.2][:k]
    B, A = with_svd(U, sigma, T), with_svd(T, [1.0] * len(sigma), V)
    assert np.allclose(analysis.product_singular_values(B, A), [*sigma, 0][:k], rtol=1e-12, atol=1e-12)
    for got in (analysis.right_directions(B @ A, 2), analysis.product_right_directions(B, A, 2)):
        assert got.shape == (n, 2) and np.allclose(np.abs(got.T @ V[:, :2]), np.eye(2), atol=1e-12)
    B, A = np.random.default_rng(0).normal(size=(out, r)), np.random.default_rng(1).normal(size=(r, n))
    expected = np.linalg.svd(B @ A.astype(np.float32), compute_uv=False)[:k]
    got = analysis.product_singular_values(B, A.astype(np.float32))
    assert got.shape == (k,) and np.allclose(got, expected, rtol=1e-12)


def test_the_spectrum_of_a_matrix():
    s = analysis.spectrum(with_svd(basis(9), [2.0] * 3, basis(5)))
    assert np.allclose(s.singular_values, [2.0, 2.0, 2.0, 0.0, 0.0], atol=1e-12)
    assert s[1:] == (pytest.approx(3.0), pytest.approx(3.0), 3)
    assert analysis.spectrum(np.zeros((3, 5)))[1:] == (0.0, 0.0, 0)


@pytest.mark.parametrize("size", [1e-200, 1e-160, 1.0, 1e200])
def test_ranks_by_hand_at_any_size(size):
    """Squares of the smallest would be 0, and those of the largest infinite."""
    sigma, p = size * np.array([4.0, 2.0, 1.0, 1.0]), np.array([4, 2, 1, 1]) / 8
    assert analysis.stable_rank(sigma) == pytest.approx((16 + 4 + 1 + 1) / 16)
    assert analysis.effective_rank(sigma) == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert [analysis.rank_at_energy(sigma, share) for share in (0.5, 0.75, 0.9, 0.95, 1.0)] == [1, 2, 2, 3, 4]
    assert analysis.rank_at_energy(sigma / size, 16 / 22) == 1  # exactly the share
    sigma = size * np.sort(np.random.default_rng(0).exponential(size=30))[::-1]
    energy = (sigma / size) ** 2 / np.sum((sigma / size) ** 2)
    for share in (0.01, 0.37, 0.5, 0.9, 0.99, 0.999, 1.0):  # the smallest that holds it
        k = analysis.rank_at_energy(sigma, share)
        assert energy[:k].sum() >= share - 1e-12 and energy[: k - 1].sum() < share


def test_truncation_is_the_closest_of_its_rank():
    matrix = with_svd(basis(8), [5.0, 3.0, 1.0, 0.5], basis(6))
    cut = analysis.truncate(matrix, 2)
    assert np.linalg.matrix_rank(cut) == 2
    # Eckart and Young: no other matrix of rank 2 has a smaller error than what was left out.
    assert np.linalg.norm(matrix - cut) == pytest.approx(np.hypot(1.0, 0.5))
    matrix = matrix.astype(np.float32)
    whole = analysis.truncate(matrix, 99)
    assert np.allclose(whole, matrix, atol=1e-6) and whole.dtype == np.float32
    assert not analysis.truncate(matrix, 0).any()


@pytest.fixture
def model():
    return random_params(tiny_config())


def test_truncated_update_cuts_the_linear_layers_alone(model):
    rng = np.random.default_rng(1)
    after = {name: array + rng.normal(size=array.shape) for name, array in model.items()}
    (_, cut), (_, whole), (_, none) = analysis.truncated_updates(model, after, (2, 12, 0))
    linear = analysis.linear_updates(model, after)
    assert len(linear) == 2 * 6 and list(analysis.weight_updates(model, after)) == list(model)
    updates = analysis.weight_updates(model, cut)
    for name in after:
        if name in linear:
            assert np.array_equal(linear[name], after[name] - model[name])
            assert np.linalg.matrix_rank(updates[name]) == 2 and np.array_equal(none[name], model[name])
        else:
            assert np.array_equal(cut[name], after[name])
        assert np.allclose(whole[name], after[name])


def test_quantised_weights_are_looked_at_as_what_they_stand_for(model):
    names = list(analysis.linear_updates(model, model))
    quantised = quantise(model, names, block_size=16)
    dense = {name: np.asarray(weight) for name, weight in quantised.items()}
    for name, update in analysis.weight_updates(model, quantised).items():
        assert np.array_equal(update, dense[name] - model[name])
    weight, expected = quantised[names[0]], dense[names[0]]
    assert np.array_equal(analysis.spectrum(weight).singular_values, analysis.spectrum(expected).singular_values)
    assert np.array_equal(analysis.truncate(weight, 3), analysis.truncate(expected, 3))
    assert np.array_equal(max_similarities(model[names[0]], weight, 4), max_similarities(model[names[0]], expected, 4))


def test_table_is_the_definition_at_every_place():
    """For bases at random and for spans that are equal, orthogonal or one inside the other."""
    Q, other = basis(12), basis(12, 7, seed=1)
    for U, V in ((Q[:, :5], other), (Q[:, :4], Q[:, 2:8]), (Q[:, :3], Q[:, :3] @ basis(3)), (Q, Q)):
        table = analysis.similarity_table(U, V)
        assert table.shape == (U.shape[1], V.shape[1]) and np.all(table <= 1.0)
        for i, j in np.ndindex(table.shape):
            first, second = U[:, : i + 1], V[:, : j + 1]
            by_definition = np.linalg.norm(first.T @ second) ** 2 / min(i + 1, j + 1)
            assert table[i, j] == pytest.approx(by_definition, rel=1e-12)
            assert analysis.subspace_similarity(U, V, i + 1, j + 1) == pytest.approx(by_definition, rel=1e-12)
        assert np.allclose(analysis.similarity_table(-U, V * (-1) ** np.arange(V.shape[1])), table)
        assert np.allclose(analysis.similarity_table(V, U), table.T)


def test_float32_is_computed_in_float64():
    U, V = (basis(4, 2, seed).astype(np.float32) for seed in (0, 1))
    table = analysis.similarity_table(U, V)
    assert analysis.right_directions(U @ V.T, 2).dtype == table.dtype == np.float64
    assert np.array_equal(table, analysis.similarity_table(U.astype(float), V.astype(float)))


def test_directions_beyond_the_rank_are_refused():
    """They would be any of the null space's, and comparing them would compare rounding."""
    rng = np.random.default_rng(0)
    B, A = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(4, 30)).astype(np.float32)
    for product in (B @ A, (B @ A).astype(np.float16)):
        assert analysis.right_directions(product, 4).shape == (30, 4)
    with pytest.raises(ValueError, match="k: got 5, expected an integer from 1 to 4, the rank of matrix"):
        analysis.right_directions(B @ A, 5)
    with pytest.raises(ValueError, match="k: got 5, .* the rank of B A"):
        analysis.product_right_directions(B, A, 5)


def test_random_subspaces_overlap_by_chance():
    """The mean of 400 pairs is max(i, j) / n to within five standard errors, for all i and j at once."""
    rng, draw = np.random.default_rng(0), analysis.random_directions
    tables = [analysis.similarity_table(draw(20, 4, rng), draw(20, 6, rng)) for _ in range(400)]
    expected = [[analysis.gaussian_similarity(20, i, j) for j in range(1, 7)] for i in range(1, 5)]
    assert expected[1][4] == 5 / 20
    assert (np.abs(np.mean(tables, axis=0) - expected) < 5 * np.std(tables, axis=0) / 20).all()


def test_amplification_by_hand():
    """ΔW brings out W's third and fourth direction: √(2² + 1²) of W lies there, and ‖ΔW‖ = √(8² + 6²) = 10."""
    U, V = basis(6), basis(4, seed=1)
    W, delta = with_svd(U, [4.0, 3.0, 2.0, 1.0], V), with_svd(U[:, [3, 2]], [8.0, 6.0], V[:, [3, 2]])
    draws = [amplification(W, -delta, 2, np.random.default_rng(seed)) for seed in range(300)]
    for got in (amplification(W, delta, 2, np.random.default_rng(0)), draws[7]):  # chance is in one number alone
        assert (got.update, got.base) == pytest.approx((math.sqrt(5), 5.0))  # 4² + 3²
        assert (got.base_norm, got.update_norm) == pytest.approx((math.sqrt(30), 10.0))
        assert got.factor == pytest.approx(10 / math.sqrt(5))
    squares = [draw.random**2 for draw in draws]
    assert abs(np.mean(squares) - 2**2 * 30 / (6 * 4)) < 5 * np.std(squares) / math.sqrt(300)
    W_without, beyond = np.diag([3.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 1.0, 0.0])
    assert amplification(W_without, beyond, 1, np.random.default_rng(0)).factor == math.inf
    assert amplification(W_without, W_without, 2, np.random.default_rng(0)).factor == pytest.approx(1.0)


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
    # The base's null space knows no direction.
    before, after = np.diag([3.0, 2.0, 0.0]), np.diag([3.0, 0.0, 5.0])
    assert np.allclose(max_similarities(before, after, 2), [0.0, 1.0])


def test_an_intruder_is_a_direction_below_epsilon_whatever_its_singular_value():
    U, V = basis(12), basis(9, seed=1)
    tilted = np.column_stack([0.6 * U[:, 0] + 0.8 * U[:, 10], U[:, 1:9]])
    before, after = with_svd(U, range(9, 0, -1), V), with_svd(tilted, range(9, 0, -1), V)
    assert max_similarities(before, after, 1) == pytest.approx([0.6])
    assert [intruder_dimensions(before, after, 9, epsilon).positions for epsilon in (0.59, 0.61)] == [(), (0,)]
    rescaled = with_svd(U, [1.0, 20.0, 3.0, 9.5, 7.0, 0.1, 2.0, 5.0, 30.0], V)  # other places in the order, too
    got = intruder_dimensions(before, rescaled, k=9, epsilon=1 - 1e-9)
    assert got.number == 0 and np.allclose(got.similarities, 1.0)


def test_the_factors_see_a_part_of_the_merged_weights_gradient(config, random_params, random_batch, random_adapter):
    """dA = s Bᵀ G and dB = s G Aᵀ, with s = 6/3, where G is the adapted layer's gradient and the merged weight's."""
    params, batch = random_params(config), random_batch(config)
    adapter = random_adapter(params)
    full = loss_and_gradients(params, batch, config, adapter, linear_weights(params)).grads
    expected = loss_and_gradients(merge(params, adapter), batch, config, wanted=tuple(full)).grads
    grads = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights)).grads
    assert len(full) == 2 * (6 + ("blocks.0.mlp.gate_proj.weight" in full))
    for name, G in full.items():
        np.testing.assert_allclose(G, expected[name], rtol=0, atol=1e-12 * np.abs(expected[name]).max())
        name_A, name_B = (f"{name.removesuffix('weight')}{leaf}" for leaf in ("lora_A", "lora_B"))
        np.testing.assert_allclose(grads[name_A], 2.0 * adapter.weights[name_B].T @ G, atol=1e-12)
        np.testing.assert_allclose(grads[name_B], 2.0 * G @ adapter.weights[name_A].T, atol=1e-12)


def test_the_full_gradient_on_a_quantised_base(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    quantised = quantise(params, linear_weights(params), block_size=24)
    dense = {name: np.asarray(weight) for name, weight in quantised.items()}
    got, expected = (loss_and_gradients(base, batch, config, wanted=tuple(base)).grads for base in (quantised, dense))
    assert all(np.array_equal(got[name], array) for name, array in expected.items())


def test_a_hook_gets_a_runs_own_gradients_after_clipping(language, random_params, random_batch):
    params, batch, noted = random_params(language), random_batch(language), []

    def note(step, trainable, grads, memory):
        noted.append({name: analysis.singular_values(grads[name]) for name in linear_weights(params)})

    settings = TrainConfig(steps=2, learning_rate=1e-3, clip_norm=1e-3)
    objective = model_objective(params, language)
    state = train(trainable_arrays(params), objective, lambda rng: [batch], settings, after_update=note)
    factor = 1e-3 / state.history["grad_norm"][0]
    assert factor < 0.1
    before = loss_and_gradients(params, batch, language, wanted=linear_weights(params)).grads
    for name, G in before.items():
        np.testing.assert_allclose(noted[0][name], factor * analysis.singular_values(G), rtol=1e-9, atol=1e-14)


def test_energy_share_by_hand():
    U, V = basis(7), basis(5, seed=1)
    G = with_svd(U, [4.0, 3.0], V)
    assert energy_share(G, V[:, :1]) == pytest.approx(16 / 25)
    assert energy_share(G.T, U[:, 1:2]) == pytest.approx(9 / 25)
    assert energy_share(G, V[:, 2:]) == pytest.approx(0.0)
    assert energy_share(1e-200 * G, V[:, :2] @ [[1.0, 2.0], [0.0, -3.0]]) == pytest.approx(1.0)  # any basis of the span
    assert energy_share(np.zeros((7, 5)), V[:, :2]) == 0.0
    by_projection = np.linalg.norm(G @ V[:, 1:3] @ V[:, 1:3].T) ** 2 / np.linalg.norm(G) ** 2
    assert energy_share(G, V[:, 1:3]) == pytest.approx(by_projection)
