"""lora_np.adapters: where an adapter goes, how it starts, what it leaves alone, merging, counting."""

import json
import math

import numpy as np
import pytest

from lora_np.adapters import (
    KINDS,
    Adapter,
    AdapterConfig,
    adapted_modules,
    adapter_deltas,
    init_adapter,
    layer_arrays,
    merge,
    module_config,
    scaling,
    trainable_report,
    unmerge,
)
from lora_np.model import backward, draw_masks, forward, loss_and_gradients, parameter_shapes

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
BLOCK = [f"attn.{name}" for name in ATTENTION] + ["mlp.up_proj", "mlp.down_proj"]
ALL = [f"blocks.{i}.{layer}" for i in range(2) for layer in BLOCK]


@pytest.fixture(params=["language", "classifier"])
def config(request):
    return request.getfixturevalue(request.param)


def snapshot(params):
    return {name: array.tobytes() for name, array in params.items()}


# ------------------------------------------------------------------ where it goes


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
        (["all-linear"], ALL),
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
    assert list(layer_arrays(adapter)) == expected


def test_a_name_is_not_a_piece_of_a_name(language, random_params):
    """Neither block 1 for block 11 nor "proj" for "q_proj"."""
    params = random_params(language)
    twelve = {f"blocks.{i}.attn.q_proj.weight": params["blocks.0.attn.q_proj.weight"] for i in range(12)}
    assert adapted_modules(AdapterConfig(targets=["blocks.1.attn.q_proj"]), twelve) == ["blocks.1.attn.q_proj"]
    for target in ("proj", "attn", "blocks.1", "_proj", "Q_PROJ"):
        with pytest.raises(ValueError, match=f"targets: '{target}' fits no layer"):
            adapted_modules(AdapterConfig(targets=[target]), params)


@pytest.mark.parametrize("target", ["x_proj", "blocks.2.attn.q_proj", "ln1", "tok_emb", "head", "blocks.2.*", ""])
def test_a_target_that_fits_no_layer(classifier, random_params, target):
    with pytest.raises(ValueError, match="targets: .* fits no layer; expected one of q_proj, "):
        init_adapter(random_params(classifier), AdapterConfig(targets=["q_proj", target]), np.random.default_rng(0))


@pytest.mark.parametrize("argument", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_fits_no_layer(language, random_params, argument):
    settings = AdapterConfig(**{argument: {"q_proj": 2, "blocks.7.*": 3}})
    with pytest.raises(ValueError, match=f"{argument}: 'blocks.7.\\*' fits no layer"):
        init_adapter(random_params(language), settings, np.random.default_rng(0))


def test_patterns_set_rank_and_scale_by_layer(language, random_params):
    settings = AdapterConfig(
        r=2,
        alpha=8,
        targets=["all-linear"],
        rank_pattern={"blocks.0.attn.q_proj": 5, "q_proj": 3, "blocks.1.mlp.*": 4},
        alpha_pattern={"v_proj": 1.0, "blocks.1.mlp.*": 32},
    )
    adapter = init_adapter(random_params(language), settings, np.random.default_rng(0))
    ranks = {module: parts["lora_A"].shape[0] for module, parts in layer_arrays(adapter).items()}
    wanted = dict.fromkeys(ALL, 2) | {"blocks.0.attn.q_proj": 5, "blocks.1.attn.q_proj": 3}
    wanted |= {"blocks.1.mlp.up_proj": 4, "blocks.1.mlp.down_proj": 4}
    assert ranks == wanted
    scales = {module: scaling(module_config(settings, module)) for module in ALL}
    assert scales["blocks.0.attn.q_proj"] == 8 / 5
    assert scales["blocks.1.attn.q_proj"] == 8 / 3
    assert scales["blocks.0.attn.v_proj"] == 1 / 2
    assert scales["blocks.1.mlp.down_proj"] == 32 / 4
    assert scales["blocks.0.mlp.down_proj"] == 8 / 2


def test_a_pattern_acts_in_the_forward_pass_as_well(language, random_params, random_adapter, random_batch):
    params, ids = random_params(language), random_batch(language).ids
    settings = {"targets": ("q_proj", "v_proj"), "rank_pattern": {"v_proj": 5}, "alpha_pattern": {"v_proj": 40.0}}
    adapter = random_adapter(params, **settings)
    by_hand = dict(params)
    for i in range(2):
        for name, scale in (("q_proj", 6 / 3), ("v_proj", 40 / 5)):
            module = f"blocks.{i}.attn.{name}"
            A, B = adapter.weights[f"{module}.lora_A"], adapter.weights[f"{module}.lora_B"]
            by_hand[f"{module}.weight"] = params[f"{module}.weight"] + scale * B @ A
    got, expected = forward(params, ids, language, adapter=adapter)[0], forward(by_hand, ids, language)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("rank", [0, -1, True, 2.0, "2", None])
def test_ranks_that_are_none(rank):
    with pytest.raises(ValueError, match="^r: got .*, expected a whole number of at least 1"):
        AdapterConfig(r=rank)
    with pytest.raises(ValueError, match=r"^rank_pattern\['q_proj'\]: got .*, expected a whole number of at least 1"):
        AdapterConfig(rank_pattern={"q_proj": rank})


def test_rank_above_the_smaller_side(language, random_params):
    params = random_params(language)
    for settings, module in [
        (AdapterConfig(r=13, targets=["o_proj"]), "blocks.0.attn.o_proj"),
        (AdapterConfig(r=13, targets=["down_proj"]), "blocks.0.mlp.down_proj"),  # (12, 20)
        (AdapterConfig(r=2, targets=["q_proj", "up_proj"], rank_pattern={"blocks.1.*": 13}), "blocks.1.attn.q_proj"),
    ]:
        with pytest.raises(ValueError, match=f"{module}: r: got 13, expected at most min\\(out, in\\) = 12"):
            init_adapter(params, settings, np.random.default_rng(0))
    init_adapter(params, AdapterConfig(r=12, targets=["all-linear"]), np.random.default_rng(0))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dropout": 1.0}, "dropout: got 1.0, expected 0 ≤ dropout < 1"),
        ({"dropout": -0.1}, "dropout: got -0.1"),
        ({"dropout": math.nan}, "dropout: got nan"),
        ({"init": "zeros"}, "init: got 'zeros', expected one of kaiming, gaussian"),
        ({"targets": [], "train_head": False}, "targets: got none"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        AdapterConfig(**settings)


@pytest.mark.parametrize("alpha", [math.nan, math.inf, "16", None])
def test_alpha_must_be_a_finite_number(alpha):
    with pytest.raises(ValueError, match="alpha"):
        AdapterConfig(alpha=alpha)
    with pytest.raises(ValueError, match="alpha_pattern"):
        AdapterConfig(alpha_pattern={"q_proj": alpha})


def test_targets_as_a_single_string():
    """tuple("q_proj") is six letters: either one target is meant, or the error says so, not that 'q' is unknown."""
    try:
        settings = AdapterConfig(targets="q_proj")
    except (ValueError, TypeError) as error:
        assert "targets" in str(error) and "'q_proj'" in str(error)
    else:
        assert settings.targets == ("q_proj",)


def test_an_unknown_kind(language, random_params):
    with pytest.raises(ValueError, match="kind: got 'magic', expected one of lora"):
        init_adapter(random_params(language), AdapterConfig(kind="magic"), np.random.default_rng(0))


def test_the_scale_is_alpha_over_r_and_over_its_root_for_rslora():
    assert scaling(AdapterConfig(r=4, alpha=16)) == 4.0
    assert scaling(AdapterConfig(r=8, alpha=4)) == 0.5
    assert scaling(AdapterConfig(r=4, alpha=16, rslora=True)) == 8.0
    assert scaling(AdapterConfig(r=9, alpha=1, rslora=True)) == pytest.approx(1 / 3, abs=1e-15)


@pytest.mark.parametrize("rslora, scale", [(False, 2.0), (True, 6 / math.sqrt(3))])
def test_delta_is_the_scaled_product(language, random_params, random_adapter, rslora, scale):
    params = random_params(language)
    adapter = random_adapter(params, targets=("down_proj",), rslora=rslora)
    deltas = adapter_deltas(params, adapter)
    assert list(deltas) == ["blocks.0.mlp.down_proj.weight", "blocks.1.mlp.down_proj.weight"]
    A, B = (adapter.weights[f"blocks.1.mlp.down_proj.lora_{x}"] for x in "AB")
    assert A.shape == (3, 20) and B.shape == (12, 3)
    by_hand = [[scale * sum(B[o, k] * A[k, i] for k in range(3)) for i in range(20)] for o in range(12)]
    np.testing.assert_allclose(deltas["blocks.1.mlp.down_proj.weight"], by_hand, rtol=0, atol=1e-14)


# ------------------------------------------------------------------ first values


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


def test_first_values_come_from_the_generator_alone():
    first, again, other = (big_lora("kaiming", 4, seed)["lora_A"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_a_fresh_adapter_changes_no_bit(config, random_params, random_batch, init, dtype):
    params, batch = random_params(config, dtype), random_batch(config)
    settings = AdapterConfig(r=3, targets=["all-linear"], init=init)
    adapter = init_adapter(params, settings, np.random.default_rng(0))
    assert all(not array.any() for name, array in adapter.weights.items() if name.endswith("lora_B"))
    assert all(array.all() for name, array in adapter.weights.items() if name.endswith("lora_A"))
    base = forward(params, batch.ids, config, lengths=batch.lengths)[0]
    adapted = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)[0]
    assert adapted.dtype == base.dtype == dtype
    assert adapted.tobytes() == base.tobytes()


def test_the_first_gradient_moves_b_alone(config, random_params, random_batch):
    params = random_params(config)
    adapter = init_adapter(params, AdapterConfig(r=3, targets=["all-linear"]), np.random.default_rng(0))
    grads = loss_and_gradients(params, random_batch(config), config, adapter, tuple(adapter.weights)).grads
    for name, grad in grads.items():
        assert bool(grad.any()) == (not name.endswith("lora_A")), name


# ------------------------------------------------------------------ the base stays as it is


def test_the_base_is_left_alone(config, random_params, random_batch, random_adapter):
    params, batch = random_params(config), random_batch(config)
    arrays, before = dict(params), snapshot(params)
    adapter = random_adapter(params, dropout=0.3)
    adapter_before = snapshot(adapter.weights)
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(0), adapter, "float64")
    wanted = tuple(adapter.weights) + tuple(params)
    loss_and_gradients(params, batch, config, adapter, wanted, masks)
    merged = merge(params, adapter)
    unmerge(merged, adapter, params)
    assert list(params) == list(arrays)
    assert all(params[name] is array for name, array in arrays.items())
    assert snapshot(params) == before
    assert snapshot(adapter.weights) == adapter_before


def test_only_wanted_gradients_come_back(config, random_params, random_batch, random_adapter):
    """The frozen base has no gradient at all: not zeros, no entry."""
    params, batch = random_params(config), random_batch(config)
    adapter = random_adapter(params, targets=("q_proj", "down_proj"))
    grads = loss_and_gradients(params, batch, config, adapter, tuple(adapter.weights)).grads
    assert set(grads) == set(adapter.weights)
    assert all(grads[name].shape == array.shape for name, array in adapter.weights.items())


# ------------------------------------------------------------------ merging


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("all-linear",)], ids=str)
def test_merged_is_adapted_in_float64(config, random_params, random_batch, random_adapter, targets, rslora):
    params, batch = random_params(config), random_batch(config)
    adapter = random_adapter(params, targets=targets, rslora=rslora)
    merged = merge(params, adapter)
    assert list(merged) == list(params)
    base, adapted = (forward(params, batch.ids, config, lengths=batch.lengths, adapter=a)[0] for a in (None, adapter))
    got = forward(merged, batch.ids, config, lengths=batch.lengths)[0]
    assert np.abs(adapted - base).max() > 0.1, "the adapter is too weak to test anything"
    np.testing.assert_allclose(got, adapted, rtol=0, atol=1e-12 * np.abs(adapted).max())


def test_merged_is_adapted_in_float32(config, random_params, random_batch, random_adapter):
    params, batch = random_params(config, np.float32), random_batch(config)
    adapter = random_adapter(params)
    merged = merge(params, adapter)
    assert {array.dtype for array in merged.values()} == {np.dtype(np.float32)}
    adapted = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)[0]
    got = forward(merged, batch.ids, config, lengths=batch.lengths)[0]
    np.testing.assert_allclose(got, adapted, rtol=0, atol=1e-5 * np.abs(adapted).max())


def test_merge_touches_its_targets_alone(classifier, random_params, random_adapter):
    params = random_params(classifier)
    adapter = random_adapter(params, targets=("blocks.1.attn.v_proj",))
    merged = merge(params, adapter)
    changed = {name for name in params if merged[name] is not params[name]}
    assert changed == {"blocks.1.attn.v_proj.weight", "head.weight"}


@pytest.mark.parametrize("dtype, unit", [(np.float32, 2.0**-24), (np.float64, 2.0**-53)])
def test_unmerge_restores_to_rounding(classifier, random_params, random_adapter, dtype, unit):
    params = random_params(classifier, dtype)
    adapter = random_adapter(params)
    merged = merge(params, adapter)
    restored = unmerge(merged, adapter, params)
    deltas = adapter_deltas(params, adapter)
    assert list(restored) == list(params)
    for name, array in params.items():
        assert restored[name].dtype == dtype
        if name not in deltas:
            assert np.array_equal(restored[name], array), name
            continue
        assert not np.array_equal(merged[name], array)
        # Adding rounds by half a unit of the sum and subtracting by half a unit of the result.
        bound = 2 * unit * (np.abs(array) + np.abs(deltas[name]))
        assert (np.abs(restored[name] - array) <= bound).all(), name


def test_unmerge_without_the_base_keeps_the_trained_head(classifier, random_params, random_adapter):
    params = random_params(classifier)
    adapter = random_adapter(params)
    restored = unmerge(merge(params, adapter), adapter)
    assert np.array_equal(restored["head.weight"], adapter.weights["head.weight"])


# ------------------------------------------------------------------ the head


def test_the_head_is_trained_in_full_beside_the_adapter(classifier, random_params, random_batch):
    params, batch = random_params(classifier), random_batch(classifier)
    adapter = init_adapter(params, AdapterConfig(r=2), np.random.default_rng(0))
    assert list(adapter.weights)[-1] == "head.weight"
    head = adapter.weights["head.weight"]
    assert np.array_equal(head, params["head.weight"]) and not np.shares_memory(head, params["head.weight"])
    moved = Adapter(adapter.config, {**adapter.weights, "head.weight": 2 * head})
    run = {"lengths": batch.lengths}
    base = forward(params, batch.ids, classifier, **run)[0]
    np.testing.assert_allclose(forward(params, batch.ids, classifier, adapter=moved, **run)[0], 2 * base, rtol=1e-14)
    np.testing.assert_array_equal(merge(params, moved)["head.weight"], 2 * head)
    frozen_head = init_adapter(params, AdapterConfig(r=2, train_head=False), np.random.default_rng(0))
    assert "head.weight" not in frozen_head.weights


def test_an_adapter_can_be_the_head_alone(classifier, random_params, random_batch):
    params, batch = random_params(classifier), random_batch(classifier)
    adapter = init_adapter(params, AdapterConfig(targets=()), np.random.default_rng(0))
    assert list(adapter.weights) == ["head.weight"]
    grads = loss_and_gradients(params, batch, classifier, adapter, ("head.weight",)).grads
    assert list(grads) == ["head.weight"] and grads["head.weight"].any()
    assert list(merge(params, adapter)) == list(params)


def test_a_language_model_has_no_head_to_train(language, random_params):
    adapter = init_adapter(random_params(language), AdapterConfig(r=2), np.random.default_rng(0))
    assert {name.rpartition(".")[2] for name in adapter.weights} == {"lora_A", "lora_B"}


# ------------------------------------------------------------------ counting


def test_a_thousand_square_weight_at_rank_ten():
    """The paper's arithmetic: 2 · 1000 · 10 = 20,000 trained beside 1,000,000 frozen."""
    params = {"blocks.0.attn.q_proj.weight": np.zeros((1000, 1000), dtype=np.float32)}
    adapter = init_adapter(params, AdapterConfig(r=10, targets=["q_proj"]), np.random.default_rng(0))
    report = trainable_report(params, adapter.weights)
    assert report.trainable == 20_000
    assert report.total == 1_020_000
    assert report.percent == pytest.approx(100 * 20_000 / 1_020_000, rel=1e-15)
    assert trainable_report(params, params)[:3] == (1_000_000, 1_000_000, 100.0)


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
    assert report.by_name["blocks.1.attn.v_proj.lora_B"] == 24 and report.by_name["head.weight"] == 48
    assert sum(report.by_name.values()) == 240
    assert str(report) == "trainable 240 of 2,872 parameters (8.357 %)"


def test_the_report_of_full_training_and_of_none(classifier, random_params):
    params = random_params(classifier)
    assert trainable_report(params, params)[:3] == (2680, 2680, 100.0)
    assert trainable_report(params, {})[:3] == (0, 2680, 0.0)


# ------------------------------------------------------------------ dropout on the adapter's input


def test_dropout_masks_have_the_width_of_the_adapters_input(language, random_params, random_adapter):
    adapter = random_adapter(random_params(language), targets=("q_proj", "down_proj"), dropout=0.5)
    masks = draw_masks(language, (3, 6), np.random.default_rng(0), adapter, "float32")
    expected = {"attn.q_proj": 12, "mlp.down_proj": 20}
    assert {name: mask.shape for name, mask in masks.items()} == {
        f"blocks.{i}.{module}.adapter": (3, 6, width) for i in range(2) for module, width in expected.items()
    }
    for mask in masks.values():
        assert mask.dtype == np.float32 and set(np.unique(mask)) == {0.0, 2.0}


def test_a_mask_acts_on_the_adapters_branch_alone(language, random_params, random_batch, random_adapter):
    """An adapter whose whole input is dropped is no adapter: the base's branch sees no mask."""
    params, ids = random_params(language), random_batch(language).ids
    adapter = random_adapter(params, dropout=0.5)
    masks = draw_masks(language, ids.shape, np.random.default_rng(0), adapter, "float64")
    dropped = {name: np.zeros_like(mask) for name, mask in masks.items()}
    kept = {name: np.ones_like(mask) for name, mask in masks.items()}
    base = forward(params, ids, language)[0]
    evaluated = forward(params, ids, language, adapter=adapter)[0]
    np.testing.assert_array_equal(forward(params, ids, language, adapter=adapter, masks=dropped)[0], base)
    np.testing.assert_array_equal(forward(params, ids, language, adapter=adapter, masks=kept)[0], evaluated)
    masked = forward(params, ids, language, adapter=adapter, masks=masks)[0]
    assert not np.allclose(masked, evaluated) and not np.allclose(masked, base)


def test_a_masked_layer_by_hand(language, random_params, random_adapter):
    rng = np.random.default_rng(3)
    params = random_params(language)
    adapter = random_adapter(params, targets=("up_proj",))
    module = "blocks.0.mlp.up_proj"
    W, b, parts = params[f"{module}.weight"], params[f"{module}.bias"], layer_arrays(adapter)[module]
    x, mask = rng.standard_normal((3, 5, 12)), rng.integers(0, 2, (3, 5, 12)) / 0.5
    y, cache = KINDS["lora"].forward(x, W, b, parts, adapter.config, mask=mask)
    expected = x @ W.T + b + 2.0 * ((x * mask) @ parts["lora_A"].T) @ parts["lora_B"].T
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx, grads = KINDS["lora"].backward(dy, cache)
    du = 2.0 * np.einsum("bto,or->btr", dy, parts["lora_B"])
    by_hand = {
        "lora_B": 2.0 * np.einsum("bto,btr->or", dy, (x * mask) @ parts["lora_A"].T),
        "lora_A": np.einsum("btr,bti->ri", du, x * mask),
    }
    assert set(grads) == set(by_hand)
    for name, expected in by_hand.items():
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx, dy @ W + mask * (du @ parts["lora_A"]), rtol=0, atol=1e-12)


# ------------------------------------------------------------------ dtypes, and settings as JSON


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [float, np.float64])
def test_the_dtype_of_the_parameters_is_that_of_everything(config, random_params, random_batch, number, dtype):
    """Also with settings that came out of a NumPy array, such as np.linspace(1, 16, 4)[3]."""
    params, batch = random_params(config, dtype), random_batch(config)
    settings = AdapterConfig(r=3, alpha=number(16), targets=["all-linear"], dropout=number(0.2))
    adapter = init_adapter(params, settings, np.random.default_rng(0))
    assert {array.dtype for array in adapter.weights.values()} == {np.dtype(dtype)}
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(0), adapter, dtype)
    record, record_back = {}, {}
    wanted = tuple(params) + tuple(name for name in adapter.weights if name not in params)
    logits, cache = forward(
        params,
        batch.ids,
        config,
        lengths=batch.lengths,
        adapter=adapter,
        wanted=wanted,
        masks=masks,
        record=record,
    )
    grads = backward(np.ones_like(logits), cache, record_back)
    assert len(record) > 30 and len(record_back) > 30 and set(grads) == set(wanted)
    produced = {
        "masks": masks,
        "activations": record,
        "gradients of activations": record_back,
        "gradients": grads,
        "merged": merge(params, adapter),
        "unmerged": unmerge(merge(params, adapter), adapter, params),
    }
    wrong = [(kind, n) for kind, group in produced.items() for n, a in group.items() if a.dtype != dtype]
    assert wrong == []


def test_settings_survive_json():
    from dataclasses import asdict

    settings = AdapterConfig(r=3, targets=["q_proj", "blocks.0.*"], rank_pattern={"q_proj": 2}, rslora=True)
    assert AdapterConfig(**json.loads(json.dumps(asdict(settings)))) == settings
