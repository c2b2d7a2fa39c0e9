"""Adapters on a quantised or pruned base: merging, and how much of the base is ever in full precision."""

import weakref
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest

from lora_np import adapters, compress
from lora_np.adapters import KINDS, AdapterConfig, adapter_deltas, init_adapter, merge, merge_in_format, unmerge
from lora_np.analysis.updates import linear_weights
from lora_np.compress import NF4Weight, QuantisedWeight, prune_n_of_m, quantise_int8, quantise_nf4, quantise_q4_1
from lora_np.model import GPT2Config, LlamaConfig, forward, generate
from lora_np.training import TrainConfig, evaluate, model_objective, train, trainable_arrays

from .tiny import LLAMA

# Widths that blocks of 32 weights in a row, blocks of 64 in a matrix and groups of 4 divide.
CONFIGS = {
    "GPT-2": GPT2Config(vocab_size=13, n_positions=7, d_model=32, n_layers=2, n_heads=2, d_ff=64),
    "Llama": LlamaConfig(13, 7, 32, n_layers=2, n_heads=4, n_kv_heads=2, head_size=16, d_ff=96, **LLAMA),
}

FORMATS = {
    "nf4": quantise_nf4,
    "nf4, single": lambda W: quantise_nf4(W, 32, False),
    "int8": quantise_int8,
    "q8_0": compress.quantise_q8_0,
    "q4_1": quantise_q4_1,
    "2:4": prune_n_of_m,
    "magnitude": lambda W: compress.prune_magnitude(W, 0.6),
    "dense": lambda W: W,
}
FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
KIND = pytest.mark.parametrize("kind", KINDS)
QUANTISED = pytest.mark.parametrize("form", list(FORMATS.values())[:5], ids=list(FORMATS)[:5])
# Every format with LoRA, and every kind with two formats: QA-LoRA's updates go into Q4_1's offsets.
PAIRS = [(form, kind) for form in FORMATS for kind in KINDS if kind == "lora" or form in ("nf4", "q4_1")]


def pairs(formats):
    """A mark for tests of these formats and their kinds of adapter."""
    chosen = [(form, kind) for form, kind in PAIRS if form in formats]
    ids = [f"{form}-{kind}" for form, kind in chosen]
    return pytest.mark.parametrize("form, kind", [(FORMATS[form], kind) for form, kind in chosen], ids=ids)


def compressed(params, form):
    """The model with its linear layers in a format."""
    return {**params, **{name: form(params[name]) for name in linear_weights(params)}}


def dense(params):
    return {name: np.asarray(weight) for name, weight in params.items()}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture
def base(config, random_params):
    return random_params(config, np.float32)


# ------------------------------------------------------------------ merging as always: exact, and dense


@pairs(list(FORMATS)[:5])
def test_merging_into_a_quantised_base_makes_the_adapted_layers_dense(
    config, base, random_adapter, random_batch, form, kind
):
    quantised = compressed(base, form)
    adapter, batch = random_adapter(quantised, kind=kind, targets=("q_proj", "up_proj")), random_batch(config)
    merged, deltas = merge(quantised, adapter), adapter_deltas(quantised, adapter)
    for name, weight in quantised.items():
        if name in deltas:
            assert type(merged[name]) is np.ndarray and merged[name].dtype == np.float32
            np.testing.assert_array_equal(merged[name], np.asarray(weight) + deltas[name])
        else:
            assert merged[name] is weight
    adapted, got = (forward(p, batch.ids, config, adapter=a)[0] for p, a in ((quantised, adapter), (merged, None)))
    np.testing.assert_allclose(got, adapted, rtol=0, atol=2e-5 * np.abs(adapted).max())
    if kind == "dora":  # W′ alone does not determine W, which is detected, for a user's own kind too
        with pytest.raises(ValueError, match="adapter: an update of kind 'dora' depends on the base's weight"):
            unmerge(merged, adapter)
        return
    restored = unmerge(merged, adapter)
    for name in deltas:
        np.testing.assert_allclose(restored[name], np.asarray(quantised[name]), rtol=0, atol=1e-5)


@KIND
def test_merge_errors_of_every_kind(base, random_adapter, kind):
    got = adapters.merge_errors(base, random_adapter(base, kind=kind), np.float32)
    assert 0 < got.merged < 1e-6 and 0 < got.update < 1e-4 and 0 < got.restored < 1e-6


# ------------------------------------------------------------------ merging into the base's format


@pairs(FORMATS)
def test_merged_weights_have_the_bases_format(base, random_adapter, form, kind):
    params = compressed(base, form)
    before, adapter = dense(params), random_adapter(params, kind=kind, targets=("v_proj", "down_proj"))
    got, deltas = merge_in_format(params, adapter), adapter_deltas(params, adapter)
    assert list(got.params) == list(params) and list(got.layers) == list(deltas)
    squares = np.zeros(3)  # of the error, of W + ΔW and of ΔW, over all layers
    for name, weight in params.items():
        merged = got.params[name]
        assert type(merged) is type(weight) and (merged.shape, merged.dtype) == (weight.shape, weight.dtype)
        if isinstance(weight, QuantisedWeight):
            assert merged.settings == weight.settings and merged.nbytes == weight.nbytes
        if name not in deltas:
            assert merged is weight
            continue
        wanted = before[name].astype(np.float64) + deltas[name]
        if not isinstance(weight, QuantisedWeight):
            assert np.all(merged[weight == 0] == 0)
        if isinstance(weight, QuantisedWeight) and (weight.format, kind) != ("q4_1", "qalora"):
            np.testing.assert_array_equal(np.asarray(merged), np.asarray(form(wanted.astype(np.float32))))
        expected = np.asarray(merged)
        error, size, update = norms = [np.linalg.norm(array) for array in (expected - wanted, wanted, deltas[name])]
        squares += np.square(norms)
        assert got.layers[name] == pytest.approx((error / size, error / update))
    assert got.overall == pytest.approx(tuple(np.sqrt(squares[0] / squares[1:])))
    for name, weight in params.items():
        np.testing.assert_array_equal(np.asarray(weight), before[name])


def test_a_dense_base_loses_to_rounding_alone_and_a_pruned_one_with_a_mask_of_ones_nothing(base, random_adapter):
    pruned, masks = compressed(base, prune_n_of_m), {n: np.ones(base[n].shape, bool) for n in linear_weights(base)}
    adapter = random_adapter(base)
    for params, given in ((base, None), (pruned, masks)):
        got, plain = merge_in_format(params, adapter, given), merge(params, adapter)
        assert all(np.array_equal(got.params[name], plain[name]) for name in params)
        assert 0 < got.overall.merged < 2**-24 and got.overall.merged < got.overall.update < 1e-6


@FORMAT
def test_a_layer_that_is_not_moved_stays_what_it_is(base, form):
    params = compressed(base, form)
    got = merge_in_format(params, init_adapter(params, AdapterConfig(r=2), np.random.default_rng(0)))
    assert all(got.params[name] is weight for name, weight in params.items())
    assert set(got.layers.values()) == {(0.0, 0.0)} and got.overall == (0.0, 0.0)


@pytest.mark.parametrize("form", [quantise_nf4, quantise_int8, compress.quantise_q8_0])  # Q4_1 has no 0
def test_a_mask_keeps_what_is_pruned_and_quantised_pruned(base, random_adapter, form):
    masks = {name: compress.n_of_m_mask(base[name]) for name in linear_weights(base)}
    params = compressed({**base, **{name: np.where(mask, base[name], 0) for name, mask in masks.items()}}, form)
    adapter = random_adapter(params)
    masked, free = (merge_in_format(params, adapter, given) for given in (masks, None))
    for name, mask in masks.items():
        assert np.all(np.asarray(masked.params[name])[~mask] == 0)
        assert np.any(np.asarray(free.params[name])[~mask] != 0)
        assert type(masked.params[name]) is type(params[name])


def low_codes(weight):
    """A matrix in Q4_1 whose codes are at most 7. Quantised again, it would have other ones."""
    quantised = quantise_q4_1(weight)
    blocks = quantised.blocks.reshape(-1, 20).copy()
    blocks[:, 4:] &= 0x77
    return replace(quantised, blocks=blocks.reshape(quantised.blocks.shape))


def constant_in_blocks(params, kind, rng, size=1e-3):
    """An adapter of every linear layer whose update is constant in each block of 32 weights of a row."""
    adapter = init_adapter(
        params, AdapterConfig(r=4 if kind == "qalora" else 1, targets=("all-linear",), kind=kind), rng
    )
    weights = {}
    for name, array in adapter.weights.items():
        weights[name] = (size * rng.standard_normal(array.shape)).astype(array.dtype)
        if name.endswith("lora_A") and kind == "lora":
            weights[name] = np.repeat(weights[name][:, ::32], 32, axis=1)
    return adapter._replace(weights=weights)


@pytest.mark.parametrize("kind", ["qalora", "lora"])
@pytest.mark.parametrize("seed", range(5))
def test_an_update_that_is_constant_in_blocks_leaves_q4_1_s_codes(base, kind, seed):
    """It goes into the offsets, whatever its kind. What is lost is float16's rounding of the offsets."""
    rng, params = np.random.default_rng(seed), compressed(base, low_codes)
    adapter = constant_in_blocks(params, kind, rng, 0.1)
    got, deltas = merge_in_format(params, adapter), adapter_deltas(params, adapter)
    for name, delta in deltas.items():
        old, new = (p[name].blocks.reshape(-1, 20) for p in (params, got.params))
        np.testing.assert_array_equal(new[:, :2], old[:, :2])
        np.testing.assert_array_equal(new[:, 4:], old[:, 4:])
        assert np.any(new[:, 2:4] != old[:, 2:4])
        error = np.asarray(got.params[name], dtype=np.float64) - (np.asarray(params[name], dtype=np.float64) + delta)
        m = np.abs(new[:, 2:4].copy().view("<f2").astype(float))
        assert np.all(np.abs(error).reshape(-1, 32) <= m * 2.0**-11 + 2.0**-21)
        assert got.layers[name].update == pytest.approx(np.linalg.norm(error) / np.linalg.norm(delta))


def test_another_update_is_quantised_again_in_q4_1(base):
    """One for a weight with a mask, whose zeros an offset would move; and one that varies in a single block."""
    rng, params = np.random.default_rng(0), compressed(base, low_codes)
    adapter = constant_in_blocks(params, "lora", rng, 0.1)
    name, masks = "blocks.1.mlp.down_proj.weight", {n: np.ones(base[n].shape, bool) for n in linear_weights(base)}
    A = adapter.weights[name.replace("weight", "lora_A")]
    for given in (masks, None):
        wanted = np.asarray(params[name]) + adapter_deltas(params, adapter)[name]
        got = merge_in_format(params, adapter, given).params[name]
        np.testing.assert_array_equal(got.blocks, quantise_q4_1(wanted).blocks)
        A[0, -1] += 1.0


def test_an_offset_beyond_float16_names_its_layer(base):
    params = compressed(base, quantise_q4_1)
    adapter = constant_in_blocks(params, "qalora", np.random.default_rng(0))
    name = "blocks.1.attn.v_proj"
    adapter.weights[f"{name}.lora_B"][2] = adapter.weights[f"{name}.lora_A"][:, 0] = 1e3
    with pytest.raises(ValueError, match=rf"^{name}.weight: W \+ ΔW .*: change: gives an offset of .*65504"):
        merge_in_format(params, adapter)


def test_a_head_is_trained_in_full_and_goes_in_as_it_is(classifier, random_params, random_adapter):
    params = compress.quantise(random_params(classifier), ["blocks.0.attn.q_proj.weight", "head.weight"], "int8")
    start = init_adapter(params, AdapterConfig(r=2), np.random.default_rng(0)).weights["head.weight"]
    assert type(start) is np.ndarray
    np.testing.assert_array_equal(start, np.asarray(params["head.weight"]))
    adapter = random_adapter(params, targets=("q_proj",))
    got = merge_in_format(params, adapter)
    np.testing.assert_array_equal(got.params["head.weight"], adapter.weights["head.weight"])
    assert "head.weight" not in got.layers
    head_alone = adapters.Adapter(AdapterConfig(targets=()), {"head.weight": adapter.weights["head.weight"]})
    alone = merge_in_format(params, head_alone)
    assert alone.layers == {} and alone.overall == (0.0, 0.0)


# ------------------------------------------------------------------ training, and its memory


def train_steps(params, adapter, batch, config, steps=3):
    objective, settings = model_objective(params, config, adapter), TrainConfig(steps=steps, learning_rate=1e-2)
    return train(trainable_arrays(params, adapter), objective, lambda rng: [batch], settings)


@pairs(list(FORMATS)[:5])
def test_training_on_a_quantised_base_is_training_on_what_it_stands_for(
    config, base, random_batch, random_adapter, form, kind
):
    """Bit for bit; and the base is the same afterwards."""
    quantised, batch = compressed(base, form), random_batch(config)
    adapter = random_adapter(quantised, kind=kind, dropout=0.2)
    before = dense(quantised)
    got, expected = (train_steps(params, adapter, batch, config) for params in (quantised, before))
    assert all(np.array_equal(got.best[name], array) for name, array in expected.best.items())
    assert any(not np.array_equal(got.best[name], adapter.weights[name]) for name in got.best)
    assert all(np.array_equal(np.asarray(quantised[name]), array) for name, array in before.items())


@pytest.fixture
def alive_at_once(monkeypatch):
    """A list that has, for every dequantised matrix, how many of them are alive at that moment, itself included."""
    numbers, references = [], []

    def watched(weight, dequantise):
        matrix = dequantise(weight)
        owner = matrix if matrix.base is None else matrix.base  # the memory itself, which views keep alive
        references.append(weakref.ref(owner))
        numbers.append(sum(reference() is not None for reference in references))
        return matrix

    for kind in (NF4Weight, QuantisedWeight):
        monkeypatch.setattr(kind, "dequantise", partialmethod(watched, kind.dequantise))
    return numbers


@pairs(list(FORMATS)[:5])
def test_one_dequantised_layer_is_held_at_a_time(config, base, random_batch, random_adapter, alive_at_once, form, kind):
    quantised, batch = compressed(base, form), random_batch(config)
    adapter = random_adapter(quantised, kind=kind, dropout=0.2)
    train_steps(quantised, adapter, batch, config, steps=2)
    evaluate(quantised, [batch], config, adapter)
    assert len(alive_at_once) > 2 * len(linear_weights(base)) and max(alive_at_once) == 1
    merge_in_format(quantised, adapter)
    assert max(alive_at_once) <= 2  # of the layer that is merged: DoRA's update reads it once more


def test_the_watch_sees_what_is_kept(base, alive_at_once):
    """The check can fail: an array that stays, and a view of one."""
    weight = quantise_nf4(base["blocks.0.mlp.up_proj.weight"])
    alive = [np.asarray(weight), np.asarray(weight).T]
    np.asarray(weight)
    assert alive_at_once == [1, 2, 3] and len(alive) == 2


# ------------------------------------------------------------------ reading and writing with a quantised base


@QUANTISED
@pytest.mark.parametrize("targets", [(), ("tok_emb.weight", "pos_emb.weight")], ids=["linear", "embeddings too"])
def test_generation_is_that_of_what_the_base_stands_for(config, base, random_adapter, form, targets):
    quantised = compressed(base, form)
    quantised |= {name: quantise_int8(base[name]) for name in targets if name in base}
    ids = np.array([[1, 5, 2], [7, 7, 0], [12, 3, 4]])
    adapters = [random_adapter(quantised, seed=seed) for seed in (0, 1)]
    for adapter in (None, adapters[0], [adapters[0], None, adapters[1]]):
        got, expected = (generate(params, ids, config, 4, adapter) for params in (quantised, dense(quantised)))
        np.testing.assert_array_equal(got, expected)
        got, expected = (forward(params, ids, config, adapter=adapter)[0] for params in (quantised, dense(quantised)))
        np.testing.assert_array_equal(got, expected)
    assert all(
        isinstance(quantised[name], QuantisedWeight) for name in (*linear_weights(base), *set(targets) & set(base))
    )


def test_a_decoder_dequantises_each_layer_once(config, base, alive_at_once):
    quantised = compressed(base, quantise_nf4)
    generate(quantised, np.array([[1, 2]]), config, 5)
    assert len(alive_at_once) == len(linear_weights(base))
