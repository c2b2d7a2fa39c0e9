"""Full gradients of the linear layers, with and without an adapter, and the share that given directions hold."""

import numpy as np
import pytest

from lora_np.adapters import merge
from lora_np.analysis import energy_share, singular_values
from lora_np.analysis.updates import linear_weights
from lora_np.compress import quantise
from lora_np.model import loss_and_gradients
from lora_np.training import TrainConfig, model_objective, train, trainable_arrays

from .tiny import basis, with_svd


def test_the_gradient_of_an_adapted_layer_is_that_of_the_merged_weight_and_the_factors_see_a_part_of_it(
    config, random_params, random_batch, random_adapter
):
    """dA = s Bᵀ G and dB = s G Aᵀ, with s = 6/3."""
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
        noted.append({name: singular_values(grads[name]) for name in linear_weights(params)})

    settings = TrainConfig(steps=2, learning_rate=1e-3, clip_norm=1e-3)
    objective = model_objective(params, language)
    state = train(trainable_arrays(params), objective, lambda rng: [batch], settings, adjust=note)
    factor = 1e-3 / state.history["grad_norm"][0]
    assert factor < 0.1
    before = loss_and_gradients(params, batch, language, wanted=linear_weights(params)).grads
    for name, G in before.items():
        np.testing.assert_allclose(noted[0][name], factor * singular_values(G), rtol=1e-9, atol=1e-14)


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
