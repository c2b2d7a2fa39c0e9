"""Adapters as parts: in rows of one batch, mixed, compressed, merged."""

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import (
    AdapterConfig,
    adapter_deltas,
    compact_pattern,
    compact_targets,
    compress,
    head_arrays,
    merge,
    mix,
)
from lora_np.formats import load_adapter, save_adapter
from lora_np.model import forward

TIGHT = 1e-12  # float64
LENGTHS = np.array([6, 3, 2, 5, 6, 4, 1, 6, 5, 3, 4])


@pytest.fixture
def params(config, random_params):
    return random_params(config)


@pytest.fixture
def alike(params, random_adapter):
    """Adapters of the same layers, of other ranks and scales, by name."""
    return {
        "a": random_adapter(params, 1),
        "b": random_adapter(params, 2, r=2, alpha=5.0),
        "c": random_adapter(params, 3, rank_pattern={"v_proj": 1}, alpha_pattern={"q_proj": 0.5}, rslora=True),
    }


def close(got, expected, tolerance=TIGHT):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def test_rows_with_adapters_of_their_own(config, params, alike, random_adapter):
    """One pass over the batch is one pass for each row: of every kind, in any order, and with the base among them."""
    kinds = [random_adapter(params, seed, kind=kind) for seed, kind in enumerate(adapters.KINDS)]
    of_q = random_adapter(params, 2, targets=("q_proj",), r=2, train_head=False)
    rows = [alike["a"], None, of_q, alike["a"], alike["c"], None, *kinds]
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (len(rows), 6))
    record = {}
    together, _ = forward(params, ids, config, lengths=LENGTHS, adapter=rows, record=record)
    assert record["logits"] is together
    for row, adapter in enumerate(rows):
        one = slice(row, row + 1)
        alone, _ = forward(params, ids[one], config, lengths=LENGTHS[one], adapter=adapter)
        close(together[one], alone)
    assert len({row.tobytes() for row in together}) == len(rows)
    for adapter in (None, alike["a"]):  # and of one adapter alone the plain pass
        plain, _ = forward(params, ids, config, lengths=LENGTHS, adapter=adapter)
        close(forward(params, ids, config, lengths=LENGTHS, adapter=[adapter] * len(rows))[0], plain)


def test_a_mix_is_the_weighted_sum_of_the_updates(config, params, alike):
    """By its definition in weight space, and so in its logits; a head moves by the weighted differences too."""
    weights = {"a": 0.7, "b": -1.3, "c": 2.0}
    mixed = mix(params, alike, weights)
    deltas = {name: adapter_deltas(params, adapter) for name, adapter in alike.items()}
    mixed_deltas = adapter_deltas(params, mixed)
    for name, delta in mixed_deltas.items():
        close(delta, sum(weights[key] * deltas[key][name] for key in alike))
    assert mixed.weights["blocks.0.attn.v_proj.lora_A"].shape == (3 + 2 + 1, 12)
    summed = {name: params[name] + sum(weights[k] * deltas[k][name] for k in alike) for name in mixed_deltas}
    for name, base in head_arrays(params).items():
        summed[name] = base + sum(weights[key] * (adapter.weights[name] - base) for key, adapter in alike.items())
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (3, 6))
    expected, _ = forward({**params, **summed}, ids, config)
    close(forward(params, ids, config, adapter=mixed)[0], expected, 1e-11)


def test_compression_is_the_best_of_its_rank(params, alike):
    """By Eckart and Young: what is lost are the singular values that were cut, and the error says so."""
    mixed = mix(params, alike, {"a": 1.0, "b": 1.0, "c": 1.0})
    deltas = adapter_deltas(params, mixed)
    for r in (1, 3, 8):
        cut = compress(params, mixed, r)
        lost = whole = 0.0
        for name, delta in adapter_deltas(params, cut.adapter).items():
            difference, size = np.linalg.norm(deltas[name] - delta), np.linalg.norm(deltas[name])
            sigma = np.linalg.svd(deltas[name], compute_uv=False)
            assert abs(difference - np.linalg.norm(sigma[r:])) <= 1e-12 * size
            assert abs(cut.errors[name.removesuffix(".weight")] - difference / size) <= 1e-12
            assert np.linalg.matrix_rank(delta) <= r
            lost, whole = lost + difference**2, whole + size**2
        assert abs(cut.error - np.sqrt(lost / whole)) <= 1e-12
    assert cut.error <= 1e-12  # rank 3 + 2 + 3 is all that there is
    assert compress(params, mixed, 99).error <= 1e-12  # no layer has room for 99
    fresh = adapters.init_adapter(params, AdapterConfig(targets=("q_proj",)), np.random.default_rng(0))  # B = 0
    cut = compress(params, fresh, 2)
    assert cut.error == 0.0 and set(cut.errors.values()) == {0.0}


def test_targets_and_patterns_in_few_words():
    modules = [f"blocks.{i}.attn.{name}_proj" for i in range(2) for name in "qk"]
    assert compact_targets(modules, modules) == ("q_proj", "k_proj")
    assert compact_targets(modules[:3], modules) == ("q_proj", "blocks.0.attn.k_proj")
    assert compact_targets([], modules) == ()
    assert compact_pattern(dict(zip(modules, (4, 4, 4, 4)))) == (4, {})
    assert compact_pattern(dict(zip(modules, (4, 2, 4, 2)))) == (4, {"k_proj": 2})
    assert compact_pattern(dict(zip(modules, (4, 4, 4, 2)))) == (4, {"blocks.1.attn.k_proj": 2})


@pytest.mark.parametrize(
    "dtype, least, most", [(np.float64, 0, 1e-14), (np.float32, 1e-9, 1e-5), (np.float16, 1e-5, 0.1)]
)
def test_merge_errors_are_those_of_one_rounding(dtype, least, most, params, random_adapter):
    """Each weight is rounded once, so the relative error is below the format's unit; ΔW, smaller than W, loses more."""
    adapter = random_adapter(params)
    small = adapter._replace(weights={name: 0.1 * array for name, array in adapter.weights.items()})
    errors, unit = adapters.merge_errors(params, small, dtype), np.finfo(dtype).eps
    assert errors.merged <= unit and errors.restored <= 2 * unit
    assert least <= errors.merged <= errors.update <= most
    W, AB = ({n: a.astype(dtype) for n, a in arrays.items()} for arrays in (params, small.weights))
    exact_W, exact_AB = ({n: a.astype(np.float64) for n, a in arrays.items()} for arrays in (W, AB))
    merged, lost, size = merge(W, small._replace(weights=AB)), 0.0, 0.0
    for name, delta in adapter_deltas(exact_W, small._replace(weights=exact_AB)).items():
        lost += np.sum((merged[name] - (exact_W[name] + delta)) ** 2)
        size += np.sum(delta**2)
    assert errors.update == pytest.approx(np.sqrt(lost / size), rel=1e-12)
    assert adapters.merge_errors(params, adapters.Adapter(AdapterConfig(targets=()), {}), dtype) == (0.0, 0.0, 0.0)


def test_ranks_that_add_up_to_more_than_a_layer_has(params, alike, tmp_path):
    """A mix is exact all the same, can be saved, and is no more than `compress` to the layer's rank."""
    many = {str(i): alike["a"] for i in range(5)}
    mixed = mix(params, many, dict.fromkeys(many, 0.2))
    assert mixed.config.r == 15
    expected, mixed_deltas = adapter_deltas(params, alike["a"]), adapter_deltas(params, mixed)
    for name in expected:
        close(mixed_deltas[name], expected[name])
    save_adapter(tmp_path, mixed)
    assert load_adapter(tmp_path, params).config.r == 15
    assert compress(params, mixed, 3).error <= 1e-12


def test_a_head_that_the_base_lacks(classifier, random_params, random_adapter):
    """merge and mix take it as `forward` does; a mix of heads is their weighted sum then."""
    params = random_params(classifier)
    a, b = random_adapter(params, 1), random_adapter(params, 2)
    headless = {name: array for name, array in params.items() if name != "head.weight"}
    ids = np.random.default_rng(0).integers(0, 13, (2, 5))
    expected, _ = forward(headless, ids, classifier, adapter=a)
    close(forward(merge(headless, a), ids, classifier)[0], expected)
    mixed = mix(headless, {"a": a, "b": b}, {"a": 0.5, "b": 0.25})
    close(mixed.weights["head.weight"], 0.5 * a.weights["head.weight"] + 0.25 * b.weights["head.weight"])
