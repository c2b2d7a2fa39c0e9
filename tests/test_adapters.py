"""lora_np.adapters: where an adapter goes, how it starts, what it leaves alone, merging, counting."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import KINDS, AdapterConfig, adapted_modules, init_adapter, merge, trainable_report, unmerge
from lora_np.model import BertConfig, GPT2Config, LlamaConfig, backward, draw_masks, forward, parameter_shapes

ATTENTION = [f"attn.{name}_proj" for name in "qkvo"]
BLOCKS = {GPT2Config: ATTENTION + ["mlp.up_proj", "mlp.down_proj"]}
BLOCKS[LlamaConfig] = ATTENTION + ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
BLOCK = BLOCKS[BertConfig] = BLOCKS[GPT2Config]
ALL = [f"blocks.{i}.{layer}" for i in range(2) for layer in BLOCK]


@pytest.mark.parametrize(
    "targets, expected",
    [
        (["q_proj"], ["blocks.0.attn.q_proj", "blocks.1.attn.q_proj"]),
        (["v_proj", "q_proj"], [f"blocks.{i}.attn.{name}_proj" for i in range(2) for name in "qv"]),
        (["down_proj"], ["blocks.0.mlp.down_proj", "blocks.1.mlp.down_proj"]),
        (["blocks.1.attn.k_proj"], ["blocks.1.attn.k_proj"]),
        (["blocks.1.*"], [f"blocks.1.{layer}" for layer in BLOCK]),
        (["blocks.?.mlp.*"], [f"blocks.{i}.mlp.{name}" for i in range(2) for name in ("up_proj", "down_proj")]),
        (["*.[qv]_proj"], [f"blocks.{i}.attn.{name}_proj" for i in range(2) for name in "qv"]),
        (["all-linear", "q_proj", "blocks.0.attn.q_proj"], ALL),
        (["blocks.1.mlp.up_proj", "blocks.0.attn.o_proj"], ["blocks.0.attn.o_proj", "blocks.1.mlp.up_proj"]),
    ],
    ids=str,
)
def test_targets_in_execution_order(language, random_params, targets, expected):
    params = random_params(language)
    settings = AdapterConfig(r=2, targets=targets)
    assert adapted_modules(settings, params) == expected
    adapter = init_adapter(params, settings, np.random.default_rng(0))
    assert list(adapter.weights) == [f"{module}.{leaf}" for module in expected for leaf in ("lora_A", "lora_B")]
    assert list(adapters.layer_arrays(adapter)) == expected


def test_block_1_is_not_block_11():
    twelve = {f"blocks.{i}.attn.q_proj.weight": np.zeros((2, 2)) for i in range(12)}
    assert adapted_modules(AdapterConfig(targets=["blocks.1.attn.q_proj"]), twelve) == ["blocks.1.attn.q_proj"]


def test_the_first_key_of_a_pattern_that_fits_a_layer_counts(language, random_params):
    patterns = {"blocks.0.attn.q_proj": 5, "q_proj": 3, "blocks.1.*": 4}
    settings = AdapterConfig(2, 8.0, ["all-linear"], patterns, {name: 10.0 * n for name, n in patterns.items()})
    adapter = init_adapter(random_params(language), settings, np.random.default_rng(0))
    ranks = dict.fromkeys(ALL[:6], 2) | {"blocks.0.attn.q_proj": 5}
    ranks |= dict.fromkeys(ALL[6:], 4) | {"blocks.1.attn.q_proj": 3}
    assert {module: len(arrays["lora_A"]) for module, arrays in adapters.layer_arrays(adapter).items()} == ranks
    scales = {module: 4.0 if r == 2 else 10.0 for module, r in ranks.items()}
    assert {module: adapters.scaling(adapters.module_config(settings, module)) for module in ALL} == scales


def big_lora(init, r, seed=0):
    """A and B of one layer with 400 inputs and 300 outputs."""
    return KINDS["lora"].init(np.ones((300, 400)), AdapterConfig(r=r, init=init), np.random.default_rng(seed))


def test_kaiming_fills_its_interval_evenly():
    A = big_lora("kaiming", 50)["lora_A"]
    bound = 1 / math.sqrt(400)  # 1/√in, not 1/√out or 1/√r
    assert A.shape == (50, 400)
    assert np.abs(A).max() <= bound
    assert np.abs(A).max() > 0.999 * bound  # of 20,000 draws the largest is nearer than that, but for e⁻²⁰
    share = np.histogram(A, bins=10, range=(-bound, bound))[0] / A.size
    np.testing.assert_allclose(share, 0.1, atol=5 * math.sqrt(0.1 * 0.9 / A.size))


@pytest.mark.parametrize("r", [4, 50])
def test_gaussian_has_standard_deviation_one_over_r(r):
    A = big_lora("gaussian", r)["lora_A"]
    tolerance = 5 / math.sqrt(2 * A.size)  # five standard errors of a standard deviation
    assert np.std(A) * r == pytest.approx(1.0, abs=tolerance)
    assert abs(np.mean(A)) * r < 5 / math.sqrt(A.size)
    assert np.mean(np.abs(A) * r > 2) == pytest.approx(0.0455, abs=5 * math.sqrt(0.0455 / A.size))


FRESH = [("gaussian", "lora"), *(("kaiming", kind) for kind in KINDS)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("init, kind", FRESH)
def test_a_fresh_adapter_changes_no_bit(init, kind, config, random_params, random_batch, dtype):
    params, batch = random_params(config, dtype), random_batch(config)
    settings = AdapterConfig(r=3, alpha=5.0, targets=["all-linear"], kind=kind, init=init)
    adapter = init_adapter(params, settings, np.random.default_rng(0))
    base, adapted = (forward(params, batch.ids, config, lengths=batch.lengths, adapter=a)[0] for a in (None, adapter))
    assert adapted.dtype == base.dtype == dtype and adapted.tobytes() == base.tobytes()
    for name, delta in adapters.adapter_deltas(params, adapter).items():
        assert not delta.any(), name
    if kind == "lora":  # B is zero and no number of A is, or training could not begin
        assert all(array.any() != name.endswith("lora_B") for name, array in adapter.weights.items())
        assert all(array.all() for name, array in adapter.weights.items() if name.endswith("lora_A"))


@pytest.mark.parametrize("dtype, unit", [(np.float32, 2.0**-24), (np.float64, 2.0**-53)])
def test_unmerge_restores_to_rounding(either_classifier, random_params, random_adapter, dtype, unit):
    params = random_params(either_classifier, dtype)
    adapter = random_adapter(params)
    merged = merge(params, adapter)
    untouched = {name: array.copy() for name, array in merged.items()}
    restored = unmerge(merged, adapter)
    assert all(np.array_equal(merged[name], array) for name, array in untouched.items())
    deltas = adapters.adapter_deltas(params, adapter)
    assert list(restored) == list(params)
    for name, array in params.items():
        assert restored[name].dtype == dtype
        if name not in deltas:  # the trained head stays
            assert np.array_equal(restored[name], adapter.weights.get(name, array)), name
            continue
        assert not np.array_equal(merged[name], array)
        # Adding rounds by half a unit of the sum and subtracting by half a unit of the result.
        bound = 2 * unit * (np.abs(array) + np.abs(deltas[name]))
        assert (np.abs(restored[name] - array) <= bound).all(), name


def test_the_head_is_trained_in_full_beside_the_adapter(classifier, random_params, random_batch):
    params, batch = random_params(classifier), random_batch(classifier)
    adapter = init_adapter(params, AdapterConfig(r=2), np.random.default_rng(0))
    assert list(adapter.weights)[-1] == "head.weight"
    head = adapter.weights["head.weight"]
    assert np.array_equal(head, params["head.weight"]) and not np.shares_memory(head, params["head.weight"])
    moved = adapters.Adapter(adapter.config, {**adapter.weights, "head.weight": 2 * head})
    run = {"lengths": batch.lengths}
    base = forward(params, batch.ids, classifier, **run)[0]
    np.testing.assert_allclose(forward(params, batch.ids, classifier, adapter=moved, **run)[0], 2 * base, rtol=1e-14)
    np.testing.assert_array_equal(merge(params, moved)["head.weight"], 2 * head)
    frozen_head = init_adapter(params, AdapterConfig(r=2, train_head=False), np.random.default_rng(0))
    assert "head.weight" not in frozen_head.weights


def test_the_report_counts_by_hand(classifier, random_params):
    """q, v at rank 2 of the tiny classifier: 2 blocks · 2 layers · (2·12 + 12·2), and the head's 4·12."""
    params = random_params(classifier)
    adapter = init_adapter(params, AdapterConfig(r=2), np.random.default_rng(0))
    report = trainable_report(params, adapter.weights)
    embeddings = 13 * 12 + 7 * 12
    block = 4 * (12 * 12 + 12) + (20 * 12 + 20) + (12 * 20 + 12) + 2 * (12 + 12)
    base = embeddings + 2 * block + (12 + 12) + 4 * 12
    assert sum(math.prod(shape) for shape in parameter_shapes(classifier).values()) == base == 2680
    assert report.trainable == 2 * 2 * 48 + 48 == 240
    assert report.total == base + 192, "the head counts once"
    assert report.percent == pytest.approx(100 * 240 / 2872, rel=1e-15)
    assert trainable_report(params, params) == (2680, 2680, 100.0)
    assert trainable_report(params, {}) == (0, 2680, 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number, dtype", [(float, np.float64), (np.float64, np.float32)])
def test_the_dtype_of_the_parameters_is_that_of_everything(
    config, random_params, random_batch, random_adapter, kind, number, dtype
):
    """Also with settings that came out of a NumPy array, such as np.linspace(1, 16, 4)[3]."""
    params, batch, config = random_params(config, dtype), random_batch(config), replace(config, dropout=number(0.1))
    adapter = random_adapter(params, kind=kind, alpha=number(16), dropout=number(0.2))
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(0), adapter, dtype)
    record, record_back = {}, {}
    wanted = tuple(params) + tuple(name for name in adapter.weights if name not in params)
    options = {"lengths": batch.lengths, "adapter": adapter, "wanted": wanted, "masks": masks, "record": record}
    logits, cache = forward(params, batch.ids, config, **options)
    grads = backward(np.ones_like(logits), cache, record_back)
    n_places = 4 + ("embed" in record)  # two residuals of each block
    assert len(masks) == n_places + 2 * len(BLOCKS[type(config)]) and set(grads) == set(wanted)
    produced = {
        "fresh": init_adapter(params, adapter.config, np.random.default_rng(0)).weights,
        "masks": masks,
        "activations": record,
        "gradients of activations": record_back,
        "gradients": grads,
        "merged": merge(params, adapter),
    }
    if kind != "dora":
        produced["unmerged"] = unmerge(merge(params, adapter), adapter)
    if kind == "lora":
        mixed = adapters.mix(params, {"a": adapter, "b": adapter}, {"a": number(0.5), "b": np.float32(2)})
        wide = adapter._replace(weights={name: array.astype(np.float64) for name, array in adapter.weights.items()})
        produced["mixed"] = mixed.weights
        produced["compressed"] = adapters.compress(params, mixed, 2).adapter.weights
        produced["merged with an adapter in float64"] = merge(params, wide)
    wrong = [(group, n) for group, arrays in produced.items() for n, a in arrays.items() if a.dtype != dtype]
    assert wrong == []
