"""Variants of LoRA: starts out of the base's weights, learning rates of single arrays; DoRA, VeRA, AdaLoRA, QA-LoRA."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lora_np import adapters, training
from lora_np.adapters import VARIANTS, AdapterConfig, dora, init_adapter, qalora, start_adapter, variant_config, vera
from lora_np.adapters.adalora import orthogonality
from lora_np.compress import NF4Weight, quantisation_error, quantise_nf4
from lora_np.model import GPT2Config, forward
from lora_np.ops import linear_forward
from lora_np.ops.numerical_gradient import relative_error
from lora_np.training import RankAllocation, TrainConfig, allocating, attach, budget_at, evaluate, model_objective

from .tiny import copies, same_bits

EVERYWHERE = ("all-linear",)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Sizes of which 64 weights make a block of NF4: C = 16, F = 20.
QUANTISABLE = GPT2Config(vocab_size=13, n_positions=7, d_model=16, n_layers=2, n_heads=2, d_ff=20)


def moved(adapter, seed=1, size=0.3):
    """The adapter after training, as it were: every array that is trained has gone some way."""
    rng, trained = np.random.default_rng(seed), adapters.trained_weights(adapter)
    weights = {
        name: (array + size * rng.standard_normal(array.shape)).astype(array.dtype) if name in trained else array
        for name, array in adapter.weights.items()
    }
    return adapter._replace(weights=weights)


def logits_of(params, config, adapter=None, seed=0):
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, (3, 6))
    return forward(params, ids, config, adapter=adapter)[0]


# ------------------------------------------------------------------ names of variants


CHANGES = {  # of the defaults, by each variant's paper
    "lora": {},
    "rslora": {"rslora": True},
    "lora+": {"rate_factors": {"lora_B": 16.0}},
    "lora-fa": {"rate_factors": {"lora_A": 0.0}},
    **{kind: {"kind": kind} for kind in adapters.KINDS if kind != "lora"},
    **{init: {"init": init} for init in ("pissa", "olora", "loftq")},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_what_its_paper_changes_and_leaves_nothing_of_another(variant):
    chosen = AdapterConfig(r=5, alpha=7.0, targets=("k_proj",), rank_pattern={"k_proj": 2}, dropout=0.1)
    assert set(CHANGES) == set(VARIANTS) and variant_config(variant) == AdapterConfig(**CHANGES[variant])
    expected = replace(chosen, **CHANGES[variant])
    assert variant_config(variant, chosen) == expected
    assert all(variant_config(variant, variant_config(other, chosen)) == expected for other in VARIANTS)
    assert variant_config("lora", replace(chosen, init="gaussian")).init == "gaussian"


# ------------------------------------------------------------------ starts out of the base


@DTYPES
@pytest.mark.parametrize("kind, rslora", [("lora", False), ("lora", True), ("dora", False)])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_is_frozen_and_what_is_trained_are_the_weight(init, kind, rslora, dtype, config, random_params):
    """W_rest + s B A = W to rounding, in every layer, with its own rank and alpha; all else is the base's own.

    DoRA's lengths are those of W.
    """
    params = random_params(config, dtype)
    before, eps = copies(params), np.finfo(dtype).eps
    settings = AdapterConfig(
        3, 4.0, EVERYWHERE, {"v_proj": 1, "mlp.up_proj": 12}, {"o_proj": 0.5}, rslora, kind=kind, init=init
    )
    base, adapter = start_adapter(params, settings, np.random.default_rng(0))
    assert list(base) == list(params) and same_bits(params, before)
    assert adapter.config == settings and all(array.dtype == dtype for array in adapter.weights.values())
    for module, arrays in adapters.fitting_arrays(params, adapter).items():
        name, scale = f"{module}.weight", adapters.scaling(adapters.module_config(settings, module))
        A, B = (arrays[leaf].astype(np.float64) for leaf in ("lora_A", "lora_B"))
        whole = base[name].astype(np.float64) + scale * (B @ A)
        assert base[name].dtype == dtype and not np.shares_memory(base[name], params[name])
        assert relative_error(whole, params[name]) < 4 * eps, name
        assert relative_error(base[name], params[name]) > 0.05, "nothing was taken out"
        if kind == "dora":
            lengths = np.linalg.norm(params[name], axis=1)
            np.testing.assert_allclose(arrays[dora.MAGNITUDE], lengths, rtol=4 * eps)
    adapted = {f"{module}.weight" for module in adapters.linear_layers(params)}
    assert all(base[name] is params[name] for name in params if name not in adapted)
    if config.n_classes:
        assert same_bits({"": adapter.weights["head.weight"]}, {"": params["head.weight"]})
    assert relative_error(logits_of(base, config, adapter), logits_of(params, config)) < 200 * eps
    assert relative_error(logits_of(base, config), logits_of(params, config)) > 0.01


@DTYPES
def test_loftq_is_its_papers_algorithm(dtype, random_params):
    """Five turns of quantising and approximating in turns; each layer comes nearer than by quantising alone."""
    params = random_params(QUANTISABLE, dtype)
    before = copies(params)
    settings = AdapterConfig(4, 6.0, EVERYWHERE, init="loftq")
    base, adapter = start_adapter(params, settings, np.random.default_rng(0))
    assert same_bits(params, before)
    first = last = 0.0
    for module, arrays in adapters.fitting_arrays(params, adapter).items():
        name = f"{module}.weight"
        W, Q, update = params[name], base[name], 1.5 * (arrays["lora_B"] @ arrays["lora_A"])
        assert isinstance(Q, NF4Weight) and Q.dtype == dtype and Q.bits_per_weight < 5
        low, errors = np.zeros_like(W), []
        for _ in range(5):
            quantised = np.asarray(quantise_nf4(W - low))
            U, sigma, Vt = np.linalg.svd(W - quantised, full_matrices=False)
            low = ((U[:, :4] * sigma[:4]) @ Vt[:4]).astype(dtype)
            errors.append(quantisation_error(W, quantised + low))
        assert quantisation_error(W, np.asarray(Q) + update) == pytest.approx(errors[-1], rel=1e-3)
        assert relative_error(update, low) < 200 * np.finfo(dtype).eps, name
        assert errors[-1] < 0.75 * quantisation_error(W, quantise_nf4(W)), name
        first, last = first + errors[0], last + errors[-1]
    assert last < first, "the turns gain nothing"
    dense = [name for name in params if not isinstance(base[name], NF4Weight)]
    assert len(dense) == len(params) - 12 and all(base[name] is params[name] for name in dense)


def test_other_starts_leave_the_base_itself(language, random_params):
    params = random_params(language)
    for init in ("kaiming", "gaussian"):
        settings = AdapterConfig(3, init=init)
        base, adapter = start_adapter(params, settings, np.random.default_rng(0))
        assert base is params
        assert same_bits(adapter.weights, init_adapter(params, settings, np.random.default_rng(0)).weights)
        trained = moved(adapter)
        assert adapters.for_original_base(params, adapter, trained) is trained  # there is nothing to take back


# ------------------------------------------------------------------ back on the base that was given


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_on_the_given_base_it_is_lora_of_twice_the_rank(init, config, random_params):
    params = random_params(config)
    settings = AdapterConfig(3, 4.0, EVERYWHERE, {"v_proj": 1}, {"o_proj": 0.5}, init=init)
    base, start = start_adapter(params, settings, np.random.default_rng(0))
    trained = moved(start)
    restored = adapters.for_original_base(params, start, trained)
    expected = logits_of(base, config, trained)
    assert relative_error(expected, logits_of(params, config)) > 0.01
    assert relative_error(logits_of(params, config, restored), expected) < 1e-12
    assert relative_error(logits_of(adapters.merge(params, restored), config), expected) < 1e-12
    assert (restored.config.kind, restored.config.init) == ("lora", "kaiming")
    for module, arrays in adapters.fitting_arrays(params, restored).items():
        rank = 2 * adapters.module_config(settings, module).r
        assert (len(arrays["lora_A"]), adapters.module_config(restored.config, module).r) == (rank, rank), module
    # Untrained it changes nothing, though not one of its arrays is zero.
    nothing = adapters.adapter_deltas(params, adapters.for_original_base(params, start, start))
    assert max(np.abs(delta).max() for delta in nothing.values()) < 1e-14
    assert adapters.compress(params, restored, 6).error < 1e-12 < adapters.compress(params, restored, 3).error


# ------------------------------------------------------------------ learning rates of single arrays


def test_lorafa_never_moves_a(config, random_params, random_batch):
    """Nor, with a factor of 0 for it, the head."""
    params, batch = random_params(config, np.float32), random_batch(config)
    settings = variant_config("lora-fa", AdapterConfig(3, 6.0, EVERYWHERE, dropout=0.2))
    settings = replace(settings, rate_factors=settings.rate_factors | {"weight": 0.0})
    start = init_adapter(params, settings, np.random.default_rng(0))
    frozen = {name: array for name, array in start.weights.items() if name.endswith(("lora_A", "head.weight"))}
    before, trainable = copies(frozen), training.trainable_arrays(params, start)
    assert len(frozen) == len(adapters.linear_layers(params)) + bool(config.n_classes)
    assert set(trainable) == set(start.weights) - set(frozen)
    objective = model_objective(params, config, start)
    optimiser = training.adapter_optimiser(start)
    state = training.train(trainable, objective, lambda rng: [batch], TrainConfig(30, 2e-2, optimiser=optimiser))
    for group in (state.trainable, state.m, state.v, state.best):
        assert list(group) == list(trainable)
    _, adapter = attach(params, start, state.trainable)
    assert list(adapter.weights) == list(start.weights)  # dropout masks are drawn in this order
    assert all(adapter.weights[name] is start.weights[name] for name in frozen) and same_bits(frozen, before)
    loss = evaluate(params, [batch], config, adapter)["loss"]
    assert loss < 0.9 * evaluate(params, [batch], config)["loss"]


# ------------------------------------------------------------------ merging, compressing, rows of one batch


def started(variant, params, dtype=np.float64, seed=0, **settings):
    """The base and the adapter of a variant, as after training."""
    chosen = variant_config(variant, AdapterConfig(**{"r": 3, "alpha": 5.0, "targets": EVERYWHERE, **settings}))
    base, start = start_adapter(params, chosen, np.random.default_rng(seed))
    return base, moved(start, seed)


@DTYPES
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_merged_model_is_the_adapted_one(variant, dtype, random_params):
    config, eps = replace(QUANTISABLE, n_classes=4), np.finfo(dtype).eps
    base, adapter = started(variant, random_params(config, dtype), rank_pattern={"k_proj": 1})
    frozen = copies(base)
    expected = logits_of(base, config, adapter)
    merged = adapters.merge(base, adapter)
    assert relative_error(logits_of(merged, config), expected) < 100 * eps
    assert relative_error(logits_of(base, config), expected) > 0.01
    assert same_bits(copies(base), frozen)
    assert all(np.asarray(merged[name]).dtype == dtype for name in merged)


@pytest.mark.parametrize("kind", adapters.KINDS)
def test_every_kind_compresses_to_lora(kind, language, random_params):
    """Full rank keeps it all; a lower rank loses what is cut."""
    params = random_params(language)
    _, adapter = started(kind, params)
    whole = adapters.compress(params, adapter, 12)
    assert whole.adapter.config.kind == "lora" and whole.error < 1e-12
    assert relative_error(logits_of(params, language, whole.adapter), logits_of(params, language, adapter)) < 1e-11
    assert adapters.compress(params, adapter, 2).error > 0.05


# ------------------------------------------------------------------ DoRA


def test_a_row_of_zeros_stays_zero():
    """It has no direction: its output is the bias, and no gradient is NaN."""
    rng, settings = np.random.default_rng(2), AdapterConfig(3, 5.0, kind="dora")
    x, weight, bias, dy = (rng.normal(size=shape) for shape in ((2, 5, 6), (4, 6), (4,), (2, 5, 4)))
    adapter = {"lora_A": rng.normal(size=(3, 6)), "lora_B": rng.normal(size=(4, 3)), dora.MAGNITUDE: 1 + rng.random(4)}
    weight[1], adapter["lora_B"][1] = 0.0, 0.0
    for exact in (False, True):
        y, cache = dora.forward(x, weight, bias, adapter, replace(settings, norm_gradient=exact))
        dx, grads = dora.backward(dy, cache)
        assert np.array_equal(y[..., 1], np.full((2, 5), bias[1]))
        assert all(np.isfinite(array).all() for array in (dx, *grads.values()))
        assert not grads["lora_B"][1].any()
    assert not dora.delta(weight, adapter, settings)[1].any()


@DTYPES
def test_doras_start_does_not_depend_on_the_weights_memory_order(dtype):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(33, 57)).astype(dtype)
    for W in (weight, np.asfortranarray(weight), weight[::-1], weight[:, ::2]):
        settings = AdapterConfig(3, kind="dora")
        x, adapter = rng.normal(size=(5, W.shape[1])).astype(dtype), dora.init(W, settings, rng)
        y, _ = dora.forward(x, W, None, adapter, settings)
        # The product may take its terms in another order where V lies otherwise than W; V = W′ to the bit.
        assert not dora.delta(W, adapter, settings).any()
        assert relative_error(y, linear_forward(x, W)[0]) < 4 * np.finfo(dtype).eps


# ------------------------------------------------------------------ VeRA


def test_veras_random_factors_are_shared_and_come_from_their_seed(language, random_params):
    """Layers of one shape have the same, whatever the generator of the rest; another seed gives others."""
    params = random_params(language)
    for seed in (0, 1):
        settings = AdapterConfig(3, kind="vera", targets=EVERYWHERE, projection_seed=seed)
        adapter = init_adapter(params, settings, np.random.default_rng(5))
        ones = adapter._replace(weights={name: np.ones_like(array) for name, array in adapter.weights.items()})
        for name, delta in adapters.adapter_deltas(params, ones).items():  # B A itself
            A, B = vera.projections(params[name].shape, 3, seed, np.float64)
            np.testing.assert_allclose(delta, B @ A, rtol=1e-13)


def test_veras_random_numbers_stay_for_all_time():
    """Adapters on disk depend on them: the numbers of a seed are pinned, and what they are made of.

    So a smaller layer's are part of a larger one's.
    """
    for shape, r in (((20, 12), 3), ((12, 5), 3), ((4, 6), 2)):
        A, B = vera.projections(shape, r, 7, np.float64)
        for which, factor, fan_in in ((0, A.T, shape[1]), (1, B, r)):
            raw = np.random.PCG64([7, which]).random_raw(factor.size) >> np.uint64(11)
            units = [int(word) / 2**53 for word in raw]
            expected = [(2.0 * unit - 1.0) * math.sqrt(6.0 / fan_in) for unit in units]
            np.testing.assert_allclose(factor.ravel(), expected, rtol=1e-15)
    pinned = [0.25019093320933394, 0.794427601939151, 0.9357957046859837, -1.344323459750069]
    np.testing.assert_allclose([*A[:, 0], *B[0]], pinned, rtol=1e-14)


def test_veras_random_factors_cannot_be_written_to():
    for dtype in (np.float32, np.float64):
        pair, again = (vera.projections((4, 6), 2, 0, dtype) for _ in range(2))
        wide = vera.projections((4, 6), 2, 0, np.float64)
        for factor, same, exact in zip(pair, again, wide):
            assert factor is same and factor.dtype == dtype and factor.flags.c_contiguous
            assert np.array_equal(factor, exact.astype(dtype))
            with pytest.raises(ValueError, match="read-only"):
                factor[0, 0] = 1.0


# ------------------------------------------------------------------ QA-LoRA


@pytest.mark.parametrize("n_in, g", [(96, 32), (64, 32), (12, 4), (6, 2), (5, 1)])
def test_a_block_of_qalora_has_one_number_of_a(n_in, g):
    """The update is the same at all inputs of a block; the reference vectors have its numbers."""
    rng, settings, L = np.random.default_rng(0), AdapterConfig(2, 3.0, kind="qalora"), n_in // g
    weight = rng.normal(size=(4, n_in))
    fresh = qalora.init(weight, settings, rng)
    assert [array.shape for array in fresh.values()] == [(2, L), (4, 2)]
    assert np.abs(fresh["lora_A"]).max() <= L**-0.5 and not fresh["lora_B"].any()
    adapter = {name: rng.normal(size=array.shape) for name, array in fresh.items()}
    change = qalora.delta(weight, adapter, settings).reshape(4, L, g)
    assert np.ptp(change, axis=2).max() == 0.0
    np.testing.assert_allclose(change[..., 0], 1.5 * L / g * adapter["lora_B"] @ adapter["lora_A"], rtol=1e-14)


# ------------------------------------------------------------------ AdaLoRA: the allocation by hand


def test_the_budget_falls_along_a_cubic():
    """From all to the target; oracles/test_adapters_peft.py compares PEFT's."""
    settings = RankAllocation(target=0.5, first=0.1, last=0.3)
    budgets = [budget_at(step, 100, 40, settings) for step in range(1, 101)]
    assert budgets[:10] == [40] * 10 and 40 > budgets[10] > budgets[50] > 20 and budgets[69:] == [20] * 31
    assert budgets == sorted(budgets, reverse=True)
    assert (budgets[24], budgets[39]) == (round(20 + 20 * 0.75**3), round(20 + 20 * 0.5**3))
    assert budget_at(100, 100, 2, RankAllocation(target=0.01)) == 1  # one is always left
    assert [budget_at(step, 2, 9, RankAllocation(1 / 3, 0.5, 0.5)) for step in (1, 2)] == [9, 3]


def test_the_most_important_stay_whatever_their_layer():
    importance = {"a": np.array([5.0, 1.0, 3.0]), "b": np.array([4.0, 2.0])}
    stays = {budget: training.keep_most_important(importance, budget) for budget in (1, 3, 5)}
    assert {name: array.tolist() for name, array in stays[1].items()} == {"a": [True, False, False], "b": [False] * 2}
    assert {name: array.tolist() for name, array in stays[3].items()} == {"a": [True, False, True], "b": [True, False]}
    assert all(array.all() for array in stays[5].values())
    even = training.keep_most_important({"a": np.ones(2), "b": np.ones(3)}, 3)
    assert even["a"].tolist() == [True, True] and even["b"].tolist() == [True, False, False]


def test_the_distance_from_orthonormal_by_hand():
    """A = [[2, 0], [0, 1]] is 3 from it, squared 9; B = [[1, 1], [0, 1]] has BᵀB − I = [[0, 1], [1, 1]]."""
    A, B = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    distance, _ = orthogonality({"lora_A": A, "lora_B": B})
    assert type(distance) is float and distance == 9.0 + 3.0


def test_other_kinds_are_trained_as_they_are(language, random_params):
    params = random_params(language)
    objective = model_objective(params, language)
    head_alone = adapters.Adapter(AdapterConfig(kind="adalora", targets=()), {"head.weight": np.ones((2, 12))})
    for adapter in (None, init_adapter(params, AdapterConfig(), np.random.default_rng(0)), head_alone):
        assert allocating(objective, adapter, 10) == (objective, None)


def test_the_loss_has_the_further_term(language, random_params, random_batch, random_adapter):
    """γ R, R averaged over the layers, and its gradients; the singular values' is the model's own."""
    params, batch = random_params(language), random_batch(language)
    adapter = random_adapter(params, kind="adalora")
    plain = model_objective(params, language, adapter)
    objective, _ = allocating(plain, adapter, 10, RankAllocation(orthogonality=0.3))
    before, after = (f(adapter.weights, batch, np.random.default_rng(0)) for f in (plain, objective))
    distances = {module: orthogonality(arrays) for module, arrays in adapters.layer_arrays(adapter).items()}
    assert len(distances) == 12 and type(after.loss) is float and after.n_targets == before.n_targets
    assert after.loss == pytest.approx(before.loss + 0.3 * np.mean([R for R, _ in distances.values()]), rel=1e-14)
    for name, grad in after.grads.items():
        module, _, leaf = name.rpartition(".")
        further = 0.3 / 12 * distances[module][1][leaf] if leaf in ("lora_A", "lora_B") else 0.0
        np.testing.assert_allclose(grad, before.grads[name] + further, rtol=1e-13, atol=1e-15)


# ------------------------------------------------------------------ AdaLoRA: trained


def test_a_training_ends_with_the_target_number_of_singular_values(random_params, random_batch):
    """The best evaluation counts only from the last choice of directions on: before, it is of a larger model."""
    allocation = RankAllocation(target=0.5, first=0.1, last=0.3, every=0.1)
    params, config = random_params(QUANTISABLE, np.float32), replace(QUANTISABLE, dropout=0.1)
    chosen = AdapterConfig(4, 8.0, EVERYWHERE, kind="adalora", dropout=0.1)
    start = init_adapter(params, chosen, np.random.default_rng(0))
    batches = [random_batch(config, B=5, seed=seed) for seed in range(3)]
    objective, after_update = allocating(model_objective(params, config, start), start, 40, allocation)

    def measure(arrays):
        model, adapter = attach(params, start, arrays)
        return evaluate(model, batches[:1], config, adapter)

    def trained(**more):
        settings = TrainConfig(40, 2e-2, shards=2, eval_every=4, **more)
        order = lambda rng: [batches[i] for i in rng.permutation(3)]  # noqa: E731
        trainable = training.trainable_arrays(params, start)
        return training.train(trainable, objective, order, settings, measure, after_update=after_update)

    assert training.settled_from(start, 40, allocation) == 28
    assert training.settled_from(start._replace(config=AdapterConfig()), 40) == 0
    state = trained(select_from=28)
    E = {name: array for name, array in state.trainable.items() if name.endswith("lora_E")}
    counts = {name: np.count_nonzero(array) for name, array in E.items()}
    assert sum(array.size for array in E.values()) == 12 * 4 and sum(counts.values()) == 24
    assert len(set(counts.values())) > 1, "every layer kept the same number: nothing was allocated"
    for name, array in E.items():
        assert np.array_equal(array != 0, state.memory[name.replace("lora_E", "kept")]), name
    layers = [adapters.layer_arrays(start._replace(weights=w)).values() for w in (start.weights, state.trainable)]
    before, after = (np.mean([orthogonality(arrays)[0] for arrays in each]) for each in layers)
    assert after < 0.9 * before
    steps, losses = (state.history[f"eval_{name}"] for name in ("step", "loss"))
    assert losses[-1] < losses[0] < state.history["loss"][0]
    assert np.array_equal(losses, trained().history["eval_loss"])  # what is chosen changes no step
    assert sum(np.count_nonzero(array) for name, array in state.best.items() if name.endswith("lora_E")) <= 24
    assert measure(state.best)["loss"] == pytest.approx(losses[steps >= 28].min(), rel=1e-6)
    assert TrainConfig(40, 2e-2, select_from=40).select_from == 40  # the last step may be the first to count
