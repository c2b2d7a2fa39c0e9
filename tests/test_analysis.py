"""Spectra and ranks, on matrices whose answer is known."""

import numpy as np
import pytest

from lora_np.analysis import (
    effective_rank,
    linear_updates,
    max_similarities,
    product_singular_values,
    rank_at_energy,
    spectrum,
    stable_rank,
    truncate,
    truncated_updates,
    weight_updates,
)
from lora_np.compress import quantise

from .tiny import basis, random_params, tiny_config, with_svd


@pytest.mark.parametrize("out, r, n", [(9, 3, 7), (4, 6, 7), (4, 6, 5), (9, 6, 2)])
def test_singular_values_of_a_product(out, r, n):
    """Those of the product formed, whichever of the three sizes is the least."""
    rng = np.random.default_rng(0)
    B, A = rng.normal(size=(out, r)), rng.normal(size=(r, n)).astype(np.float32)
    k = min(out, r, n)
    expected = np.linalg.svd(B @ A.astype(float), compute_uv=False)
    got = product_singular_values(B, A)
    assert got.shape == (k,)
    assert np.allclose(got, expected[:k], rtol=1e-12) and np.allclose(expected[k:], 0, atol=1e-12)


def test_the_spectrum_of_a_matrix():
    s = spectrum(with_svd(basis(9), [2.0] * 3, basis(5)))
    assert np.allclose(s.singular_values, [2.0, 2.0, 2.0, 0.0, 0.0], atol=1e-12)
    assert (s.stable_rank, s.effective_rank, s.rank_90) == (pytest.approx(3.0), pytest.approx(3.0), 3)
    zero = spectrum(np.zeros((3, 5)))
    assert (zero.stable_rank, zero.effective_rank, zero.rank_90) == (0.0, 0.0, 0)


@pytest.mark.parametrize("size", [1e-200, 1e-160, 1.0, 1e200])
def test_ranks_by_hand_at_any_size(size):
    """Squares of the smallest would be 0, and those of the largest infinite."""
    sigma, p = size * np.array([4.0, 2.0, 1.0, 1.0]), np.array([4, 2, 1, 1]) / 8
    assert stable_rank(sigma) == pytest.approx((16 + 4 + 1 + 1) / 16)
    assert effective_rank(sigma) == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert [rank_at_energy(sigma, share) for share in (0.5, 0.75, 0.9, 0.95, 1.0)] == [1, 2, 2, 3, 4]
    assert rank_at_energy(np.array([4.0, 2.0, 1.0, 1.0]), 16 / 22) == 1  # exactly the share


@pytest.mark.parametrize("share", [0.01, 0.37, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_rank_at_any_share_is_the_smallest_that_holds_it(share):
    sigma = np.sort(np.random.default_rng(0).exponential(size=30))[::-1]
    k, energy = rank_at_energy(sigma, share), sigma**2 / np.sum(sigma**2)
    assert energy[:k].sum() >= share - 1e-12 and energy[: k - 1].sum() < share


def test_truncation_is_the_closest_of_its_rank():
    matrix = with_svd(basis(8), [5.0, 3.0, 1.0, 0.5], basis(6))
    cut = truncate(matrix, 2)
    assert np.linalg.matrix_rank(cut) == 2
    # Eckart and Young: no other matrix of rank 2 has a smaller error than what was left out.
    assert np.linalg.norm(matrix - cut) == pytest.approx(np.hypot(1.0, 0.5))
    matrix = matrix.astype(np.float32)
    assert not truncate(matrix, 0).any()
    assert np.allclose(truncate(matrix, 99), matrix, atol=1e-6) and truncate(matrix, 99).dtype == np.float32


@pytest.fixture
def model():
    return random_params(tiny_config())


def test_truncated_update_cuts_the_linear_layers_alone(model):
    rng = np.random.default_rng(1)
    after = {name: array + rng.normal(size=array.shape) for name, array in model.items()}
    (_, cut), (_, whole), (_, none) = truncated_updates(model, after, (2, 12, 0))
    linear = linear_updates(model, after)
    assert len(linear) == 2 * 6 and list(weight_updates(model, after)) == list(model)
    assert all(np.array_equal(update, after[name] - model[name]) for name, update in linear.items())
    for name, update in weight_updates(model, cut).items():
        if name in linear:
            assert np.linalg.matrix_rank(update) == 2
        else:
            assert np.array_equal(cut[name], after[name])
    assert all(np.array_equal(none[name], model[name]) for name in linear)
    assert all(np.allclose(whole[name], after[name]) for name in after)


def test_quantised_weights_are_looked_at_as_what_they_stand_for(model):
    names = [name for name in linear_updates(model, model)]
    quantised = quantise(model, names, block_size=16)
    dense = {name: np.asarray(weight) for name, weight in quantised.items()}
    for name, update in weight_updates(model, quantised).items():
        assert np.array_equal(update, dense[name] - model[name])
    weight, expected = quantised[names[0]], dense[names[0]]
    assert np.array_equal(spectrum(weight).singular_values, spectrum(expected).singular_values)
    assert np.array_equal(truncate(weight, 3), truncate(expected, 3))
    assert np.array_equal(max_similarities(model[names[0]], weight, 4), max_similarities(model[names[0]], expected, 4))
