"""Singular values of gradients, noted while a training goes on."""

import numpy as np
import pytest

from lora_np.adapters import Adapter, AdapterConfig, init_adapter, merge
from lora_np.analysis import (
    gradient_spectra,
    layer_gradients,
    noted_spectra,
    noting_spectra,
    singular_values,
)
from lora_np.analysis.updates import linear_weights
from lora_np.compress import quantise
from lora_np.model import loss_and_gradients
from lora_np.training import TrainConfig, allocating, attach, model_objective, train, trainable_arrays

LAYER = "blocks.1.attn.v_proj.weight"


@pytest.fixture
def model(language, random_params, random_batch):
    """(params, config, batch) of a tiny language model."""
    return random_params(language), language, random_batch(language)


def run(params, config, batch, adapter=None, steps=5, clip_norm=None, state_path=None, adjust=None):
    objective, allocate = allocating(model_objective(params, config, adapter), adapter, steps)
    settings = TrainConfig(steps=steps, learning_rate=1e-3, clip_norm=clip_norm, save_every=1)
    trainable = trainable_arrays(params, adapter)
    return train(trainable, objective, lambda rng: [batch], settings, state_path=state_path, adjust=adjust or allocate)


# ------------------------------------------------------------------ full gradients, adapted or not


def test_the_gradient_of_an_adapted_layer_is_that_of_the_merged_weight_and_the_factors_see_a_part_of_it(
    model, random_adapter
):
    """dA = s Bᵀ G and dB = s G Aᵀ, with s = 6/3."""
    params, config, batch = model
    adapter = random_adapter(params)
    full = layer_gradients(params, batch, config, adapter)
    expected = layer_gradients(merge(params, adapter), batch, config)
    grads = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights)).grads
    assert list(full) == linear_weights(params)
    for name, G in full.items():
        np.testing.assert_allclose(G, expected[name], rtol=0, atol=1e-12 * np.abs(expected[name]).max())
        name_A, name_B = (f"{name.removesuffix('weight')}{leaf}" for leaf in ("lora_A", "lora_B"))
        np.testing.assert_allclose(grads[name_A], 2.0 * adapter.weights[name_B].T @ G, atol=1e-12)
        np.testing.assert_allclose(grads[name_B], 2.0 * G @ adapter.weights[name_A].T, atol=1e-12)


def test_the_full_gradient_on_a_quantised_base(model):
    params, config, batch = model
    names = linear_weights(params)
    quantised = quantise(params, names, block_size=24)
    dense = {name: np.asarray(weight) for name, weight in quantised.items()}
    got, expected = layer_gradients(quantised, batch, config), layer_gradients(dense, batch, config)
    assert all(np.array_equal(got[name], expected[name]) for name in names)


# ------------------------------------------------------------------ the hook


def test_the_hook_notes_a_runs_own_gradients_after_clipping(model):
    params, config, batch = model
    plain = run(params, config, batch)
    state, clipped = (run(params, config, batch, clip_norm=c, adjust=noting_spectra(every=2)) for c in (None, 1e-3))
    steps, sigma = noted_spectra(state.memory)
    assert steps.tolist() == [1, 3, 5]
    assert set(sigma) == set(linear_weights(params))
    assert sigma[LAYER].shape == (3, 12)
    first = gradient_spectra(layer_gradients(params, batch, config))  # before any step was taken
    factor = 1e-3 / plain.history["grad_norm"][0]
    for name, rows in sigma.items():
        np.testing.assert_allclose(rows[0], first[name].singular_values, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(noted_spectra(clipped.memory)[1][name][0], factor * rows[0], rtol=1e-9, atol=1e-14)
    assert factor < 0.1 and not np.allclose(sigma[LAYER][0], sigma[LAYER][2], rtol=1e-3)
    assert all(np.array_equal(state.best[name], plain.best[name]) for name in params)  # the hook changes no number


def test_the_hook_beside_another_in_the_training_of_an_adapter(model):
    """The full gradient at W + ΔW after each step, on a batch of its own; AdaLoRA's hook does what it does alone."""
    params, config, batch = model
    adapter = init_adapter(params, AdapterConfig(r=3, kind="adalora"), np.random.default_rng(0))
    _, allocate = allocating(model_objective(params, config, adapter), adapter, 5)

    def gradients_of(arrays):
        weights, attached = attach(params, adapter, arrays)
        return layer_gradients(weights, batch, config, attached)

    def after(step, trainable, grads, memory):
        weights.append({name: array.copy() for name, array in trainable.items()})
        allocate(step, trainable, grads, memory)

    weights, alone = [], run(params, config, batch, adapter)
    hook = noting_spectra(every=4, gradients_of=gradients_of, then=after)
    both = run(params, config, batch, adapter, adjust=hook)
    assert all(np.array_equal(both.best[name], alone.best[name]) for name in alone.best)
    assert set(alone.memory) < set(both.memory)
    steps, sigma = noted_spectra(both.memory)
    assert steps.tolist() == [1, 5]
    trained = merge(params, Adapter(adapter.config, weights[-1]))
    last = singular_values(layer_gradients(trained, batch, config)[LAYER])
    np.testing.assert_allclose(sigma[LAYER][-1], last, rtol=1e-9, atol=1e-14)


def test_a_stopped_run_goes_on_with_its_notes(model, tmp_path):
    class Stopped(Exception):
        pass

    params, config, batch = model
    whole = run(params, config, batch, adjust=noting_spectra())

    def stop(step, trainable, grads, memory):
        if step == 4:
            raise Stopped

    path = tmp_path / "state.safetensors"
    with pytest.raises(Stopped):
        run(params, config, batch, state_path=path, adjust=noting_spectra(then=stop))
    resumed = run(params, config, batch, state_path=path, adjust=noting_spectra())
    (steps, sigma), (_, expected) = noted_spectra(resumed.memory), noted_spectra(whole.memory)
    assert steps.tolist() == [1, 2, 3, 4, 5] and set(sigma) == set(expected)
    assert all(np.array_equal(sigma[name], expected[name]) for name in expected)
