"""lora_np.training: the optimiser's arithmetic, clipping, schedule, shards, evaluation and the loop."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.data import Batch
from lora_np.model import Objective, forward, loss_and_gradients
from lora_np.training import (
    AdamW,
    TrainConfig,
    adamw_update,
    attach,
    balanced_groups,
    blas_threads,
    clip_by_global_norm,
    evaluate,
    global_norm,
    learning_rate_at,
    mean_over_shards,
    model_objective,
    process_environment,
    shard_threads,
    split_batch,
    stream,
    train,
    trainable_arrays,
)


@pytest.fixture(params=["language", "classifier"])
def config(request):
    return request.getfixturevalue(request.param)


def copies(arrays):
    return {name: array.copy() for name, array in arrays.items()}


def same_bits(first, second):
    return list(first) == list(second) and all(first[n].tobytes() == second[n].tobytes() for n in first)


# ------------------------------------------------------------------ AdamW


def test_two_steps_by_hand():
    """β₁ = 0.9, β₂ = 0.99, lr 0.1, λ 0.5, ε 0.01, worked out on paper.

    Step 1: m̂ = g and v̂ = g², so p ← p − 0.05 p − 0.1 g / (|g| + 0.01).
    Step 2, with g = 1 after g = 2: m = 0.9 · 0.2 + 0.1 · 1 = 0.28 and m̂ = 0.28 / 0.19; v = 0.99 · 0.04 +
    0.01 · 1 = 0.0496 and v̂ = 0.0496 / 0.0199.
    """
    settings = AdamW(beta1=0.9, beta2=0.99, eps=0.01, weight_decay=0.5)
    params = {"w": np.array([[1.0, -4.0]])}
    zeros = {"w": np.zeros((1, 2))}
    first, m, v = adamw_update(params, {"w": np.array([[2.0, -0.5]])}, zeros, zeros, 1, 0.1, settings)
    expected = [1.0 - 0.05 * 1.0 - 0.1 * 2.0 / 2.01, -4.0 + 0.05 * 4.0 + 0.1 * 0.5 / 0.51]
    np.testing.assert_allclose(first["w"], [expected], rtol=1e-14)
    np.testing.assert_allclose(m["w"], [[0.2, -0.05]], rtol=1e-14)
    np.testing.assert_allclose(v["w"], [[0.04, 0.0025]], rtol=1e-14)
    second, m, v = adamw_update(first, {"w": np.array([[1.0, 0.0]])}, m, v, 2, 0.1, settings)
    update = (0.28 / 0.19) / (math.sqrt(0.0496 / 0.0199) + 0.01)
    assert second["w"][0, 0] == pytest.approx(expected[0] * 0.95 - 0.1 * update, rel=1e-14)
    assert m["w"][0, 0] == pytest.approx(0.28, rel=1e-14) and v["w"][0, 0] == pytest.approx(0.0496, rel=1e-14)
    # The other element's gradient was 0 in step 2: m̂ = −0.045 / 0.19, v̂ = 0.002475 / 0.0199.
    update = (-0.045 / 0.19) / (math.sqrt(0.002475 / 0.0199) + 0.01)
    assert second["w"][0, 1] == pytest.approx(expected[1] * 0.95 - 0.1 * update, rel=1e-14)


def test_decay_is_for_matrices_alone():
    params = {"bias": np.ones(3), "weight": np.ones((2, 3)), "ln.weight": np.ones(4)}
    zeros = {name: np.zeros_like(array) for name, array in params.items()}
    new, _, _ = adamw_update(params, zeros, zeros, zeros, 1, 0.1, AdamW(weight_decay=0.5))
    assert (new["weight"] == 0.95).all()
    assert (new["bias"] == 1.0).all() and (new["ln.weight"] == 1.0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_optimiser_mutates_nothing_and_keeps_the_dtype(dtype):
    rng = np.random.default_rng(0)
    groups = [{"w": rng.standard_normal((3, 2)).astype(dtype), "b": np.ones(2, dtype)} for _ in range(3)]
    groups.append({name: np.abs(array) for name, array in groups[0].items()})
    before = [copies(group) for group in groups]
    results = adamw_update(*groups, 3, 0.1, AdamW())
    assert all(same_bits(group, copy) for group, copy in zip(groups, before))
    for result in results:
        assert list(result) == ["w", "b"] and {array.dtype for array in result.values()} == {np.dtype(dtype)}
        for array in result.values():
            assert not any(np.shares_memory(array, old) for group in groups for old in group.values())


# ------------------------------------------------------------------ clipping


def test_clipping_shortens_the_whole_gradient():
    grads = {"a": np.array([3.0]), "b": np.array([[0.0, -4.0]])}
    assert global_norm(grads) == 5.0
    clipped, norm = clip_by_global_norm(grads, 1.0)
    assert norm == 5.0 and global_norm(clipped) == pytest.approx(1.0, rel=1e-15)
    np.testing.assert_allclose(clipped["b"], [[0.0, -0.8]], rtol=1e-15)
    np.testing.assert_allclose(clipped["a"], [0.6], rtol=1e-15)
    assert grads["a"][0] == 3.0


@pytest.mark.parametrize("max_norm", [5.0, 7.0, None])
def test_a_short_gradient_stays_as_it_is(max_norm):
    grads = {"a": np.array([3.0]), "b": np.array([[0.0, -4.0]])}
    clipped, norm = clip_by_global_norm(grads, max_norm)
    assert norm == 5.0 and same_bits(clipped, grads)


# ------------------------------------------------------------------ schedule


def rates(total, schedule, **settings):
    return [learning_rate_at(step, total, 2.0, schedule, **settings) for step in range(total)]


def test_schedules_by_hand():
    assert rates(4, "linear") == [2.0, 1.5, 1.0, 0.5]
    assert rates(4, "linear", final_share=0.5) == [2.0, 1.75, 1.5, 1.25]
    assert rates(3, "constant") == rates(3, "constant", final_share=0.1) == [2.0] * 3
    values = rates(100, "cosine")
    assert values[0] == 2.0 and values[50] == pytest.approx(1.0, rel=1e-14)
    assert values[25] == pytest.approx(1.0 + math.sqrt(0.5), rel=1e-14)
    assert 0 < values[99] < 0.001 and values == sorted(values, reverse=True)
    assert rates(100, "cosine", final_share=0.1)[99] == pytest.approx(0.2, abs=0.001)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_rises_to_the_peak(schedule):
    values = rates(12, schedule, warmup_steps=3)
    assert values[:4] == [0.5, 1.0, 1.5, 2.0]
    assert max(values) == 2.0 and min(values) > 0
    assert rates(3, schedule, warmup_steps=7) == [0.25, 0.5, 0.75]
    assert rates(1, schedule) == [2.0]


# ------------------------------------------------------------------ shards


@pytest.mark.parametrize("n_shards, sizes", [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (5, [1] * 5), (9, [1] * 5)])
def test_a_batch_is_split_into_shards(language, random_batch, n_shards, sizes):
    batch = random_batch(language, B=5)
    shards = split_batch(batch, n_shards)
    assert [len(shard.ids) for shard in shards] == sizes
    assert {type(shard) for shard in shards} == {Batch}
    for field in Batch._fields:
        np.testing.assert_array_equal(np.concatenate([getattr(s, field) for s in shards]), getattr(batch, field))
    batch.targets[: sizes[0]] = -100  # a shard without targets is left out
    assert [len(shard.ids) for shard in split_batch(batch, n_shards)] == sizes[1:]


def test_a_batch_without_targets_is_refused_by_name(language, random_params, random_batch):
    batch = random_batch(language)
    batch.targets[:] = -100
    params = random_params(language)
    with pytest.raises(ValueError, match="targets"):
        train(params, model_objective(params, language), lambda rng: [batch], TrainConfig(1, 0.1))


@pytest.mark.parametrize("n_shards", [2, 3, 7])
def test_unequal_shards_sum_to_the_whole_batch(config, random_params, random_batch, n_shards):
    """Rows and real targets are spread unevenly, so a plain mean over shards would be another gradient."""
    params, batch = random_params(config), random_batch(config, B=7)
    if not config.n_classes:
        batch.targets[0] = -100
    shards = split_batch(batch, n_shards)
    counts = [int((shard.targets != -100).sum()) for shard in shards]

    def objective(shard):
        return loss_and_gradients(params, shard, config, wanted=tuple(params))

    whole = objective(batch)
    loss, grads = mean_over_shards([objective(shard) for shard in shards])
    assert loss == pytest.approx(whole.loss, rel=1e-13)
    assert set(grads) == set(params)
    for name, expected in whole.grads.items():
        measure = whole.grads[name.replace("k_proj.bias", "k_proj.weight")]  # its own is zero but for rounding
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=1e-13 * np.abs(measure).max(), err_msg=name)
    if not (config.n_classes and n_shards == 7):  # one row each
        assert len(set(counts)) > 1
        plain = np.mean([objective(shard).loss for shard in shards])
        assert abs(plain - whole.loss) > 1e-6, "the shards are too even to test anything"


def test_accumulation_mutates_no_shards_gradient():
    results = [Objective(1.0, 2, {"w": np.ones(3)}), Objective(4.0, 1, {"w": np.full(3, 7.0)})]
    loss, grads = mean_over_shards(results)
    assert loss == pytest.approx(2.0) and grads["w"].tolist() == pytest.approx([3.0] * 3)
    assert (results[0].grads["w"] == 1.0).all() and (results[1].grads["w"] == 7.0).all()


# ------------------------------------------------------------------ evaluation


def test_evaluation_by_hand(config, random_params, random_batch):
    """Every real target counts once, whichever batch it stands in."""
    params = random_params(config)
    batches = [random_batch(config, B=B, seed=B) for B in (2, 5, 3)]
    losses, hits = [], []
    for batch in batches:
        logits = forward(params, batch.ids, config, lengths=batch.lengths)[0]
        for place in np.ndindex(batch.targets.shape):
            if batch.targets[place] != -100:
                losses.append(np.log(np.exp(logits[place]).sum()) - logits[place][batch.targets[place]])
                hits.append(np.argmax(logits[place]) == batch.targets[place])
    scores = evaluate(params, batches, config)
    assert scores == {"loss": pytest.approx(np.mean(losses), rel=1e-12), "accuracy": np.mean(hits)}
    assert scores == evaluate(params, iter(batches[::-1]), config) | {"loss": pytest.approx(scores["loss"])}


def test_evaluation_uses_the_adapter(config, random_params, random_batch, random_adapter):
    params, batch = random_params(config), random_batch(config)
    adapter = random_adapter(params)
    expected = loss_and_gradients(params, batch, config, adapter).loss
    assert evaluate(params, [batch], config, adapter)["loss"] == expected
    assert evaluate(params, [batch], config)["loss"] != expected
    with pytest.raises(ValueError, match="batches: got none"):
        evaluate(params, [], config, adapter)


# ------------------------------------------------------------------ the loop


class Run(NamedTuple):
    """All that `train` takes for a tiny run: three batches an epoch, shuffled, with dropout where asked."""

    trainable: dict
    objective: object
    epoch_batches: object


@pytest.fixture
def run(random_params, random_batch):
    def make(config, adapter_settings=None, dtype=np.float32, n_batches=3):
        params = random_params(config, dtype)
        adapter = None
        if adapter_settings is not None:
            adapter = init_adapter(params, adapter_settings, np.random.default_rng(0))
        batches = [random_batch(config, B=5, seed=seed) for seed in range(n_batches)]
        return Run(
            trainable_arrays(params, adapter),
            model_objective(params, config, adapter),
            lambda rng: [batches[i] for i in rng.permutation(n_batches)],
        )

    return make


LORA = AdapterConfig(r=3, alpha=6, targets=["all-linear"], dropout=0.2)


@pytest.mark.parametrize("adapter_settings", [None, LORA], ids=["full", "lora"])
def test_a_model_learns_a_batch_by_heart(config, random_params, random_batch, adapter_settings):
    params = random_params(config, np.float32)
    before = copies(params)
    start = None
    if adapter_settings is not None:
        start = init_adapter(params, adapter_settings, np.random.default_rng(1))
    trainable = trainable_arrays(params, start)
    batch = random_batch(config, B=4)
    settings = TrainConfig(steps=80, learning_rate=2e-2, schedule="constant", warmup_steps=5)
    state = train(trainable, model_objective(params, config, start), lambda rng: [batch], settings)
    model, adapter = attach(params, start, state.trainable)
    scores = evaluate(model, [batch], config, adapter)
    start = evaluate(params, [batch], config)
    assert scores["loss"] < 0.5 * start["loss"] and scores["accuracy"] > start["accuracy"]
    assert state.history["loss"][0] == pytest.approx(start["loss"], rel=1e-6)
    assert same_bits(params, before), "the base has changed"
    if adapter_settings is not None:
        assert model is params and set(adapter.weights) == set(trainable)


def test_a_step_is_gradient_clip_schedule_and_adamw(language, random_params, random_batch):
    """The loop's first step, put together from its pieces."""
    params, batch = random_params(language), random_batch(language)
    optimiser = AdamW(weight_decay=0.3)
    settings = TrainConfig(2, 0.1, clip_norm=0.2, warmup_steps=1, optimiser=optimiser, eval_every=1)
    seen, states = {}, []

    def measure(trainable):
        states.append(copies(trainable))  # the next step writes into them
        return {"loss": 0.0}

    train(params, model_objective(params, language), lambda rng: [batch], settings, measure, seen.__setitem__)
    result = loss_and_gradients(params, batch, language, wanted=tuple(params))
    clipped, norm = clip_by_global_norm(result.grads, 0.2)
    zeros = {name: np.zeros_like(array) for name, array in params.items()}
    expected, _, _ = adamw_update(params, clipped, zeros, zeros, 1, 0.05, optimiser)
    assert norm > 0.2
    assert same_bits(states[0], expected)
    assert seen[1] == {"loss": result.loss, "learning_rate": 0.05, "grad_norm": norm, "eval_loss": 0.0}


def test_history_has_a_number_for_every_step_and_evaluation(language, run):
    settings = TrainConfig(steps=8, learning_rate=1e-3, eval_every=3, schedule="linear", warmup_steps=2)
    state = train(*run(language), settings, lambda trainable: {"loss": 1.0, "accuracy": 0.5})
    history, rates = state.history, [learning_rate_at(step, 8, 1e-3, "linear", 2) for step in range(8)]
    expected = {"eval_step": [3, 6, 8], "eval_loss": [1.0] * 3, "eval_accuracy": [0.5] * 3, "learning_rate": rates}
    assert {name: history[name].tolist() for name in expected} == expected
    assert set(history) == {*expected, "loss", "grad_norm"} and state.step == 8
    assert history["loss"].shape == history["grad_norm"].shape == (8,) and (history["grad_norm"] > 0).all()


def test_without_an_evaluation_the_last_is_the_best(language, run):
    state = train(*run(language), TrainConfig(steps=2, learning_rate=1e-3))
    assert set(state.history) == {"loss", "learning_rate", "grad_norm"}
    assert same_bits(state.best, state.trainable)


@pytest.mark.parametrize(
    "select, values, best",
    [
        ("loss", [3.0, 1.0, 2.0, 4.0], 1),
        ("loss", [3.0, 1.0, 1.0, 4.0], 1),  # of equals the first
        ("loss", [4.0, 3.0, 2.0, 1.0], 3),
        ("accuracy", [0.1, 0.4, 0.9, 0.2], 2),
        ("accuracy", [0.5, 0.4, 0.5, 0.2], 0),
    ],
)
def test_the_best_is_kept(language, run, select, values, best):
    seen = []

    def measure(trainable):
        seen.append(copies(trainable))
        return {"loss": 0.0, "accuracy": 0.0, select: values[len(seen) - 1]}

    settings = TrainConfig(steps=4, learning_rate=1e-3, eval_every=1, select=select)
    state = train(*run(language), settings, measure)
    assert same_bits(state.best, seen[best])
    assert same_bits(state.trainable, seen[3]) and not same_bits(seen[2], seen[3])


@pytest.mark.parametrize("adapter_settings", [None, LORA], ids=["full", "lora"])
def test_threads_change_no_bit(config, run, adapter_settings, monkeypatch):
    """Loss, gradients, norm and update, with arrays shared out in many groups and cut in many blocks."""
    monkeypatch.setattr("lora_np.training.groups.WORTHWHILE", 100)
    monkeypatch.setattr("lora_np.ops.blocks.BLOCK", 50)
    dropped = replace(config, dropout=0.1)
    settings = TrainConfig(steps=5, learning_rate=1e-2, shards=3, clip_norm=0.1)
    assert len(balanced_groups(run(dropped, adapter_settings).trainable)) > 2
    one = train(*run(dropped, adapter_settings), settings)
    assert (one.history["grad_norm"] > 0.1).all(), "nothing is clipped"
    for n in (2, 3):
        more = train(*run(dropped, adapter_settings), replace(settings, threads=n))
        assert all(map(same_bits, one[1:], more[1:]))


def test_shards_change_rounding_alone(classifier, run):
    one, three = (train(*run(classifier, dtype=np.float64), TrainConfig(4, 1e-2, shards=n)) for n in (1, 3))
    np.testing.assert_allclose(three.history["loss"], one.history["loss"], rtol=1e-9)
    for name, array in one.trainable.items():
        if not name.endswith("k_proj.bias"):  # moved by rounding alone, and AdamW makes rounding large
            np.testing.assert_allclose(three.trainable[name], array, rtol=0, atol=1e-7, err_msg=name)


def test_the_seed_decides_everything_and_the_global_generator_nothing(classifier, run):
    dropped = replace(classifier, dropout=0.1)
    settings = TrainConfig(steps=7, learning_rate=1e-2, shards=2)
    before, states = np.random.get_state(), []
    for global_seed in (0, 1):
        np.random.seed(global_seed)
        states.append(train(*run(dropped, LORA), settings))
        assert np.random.get_state()[1].tolist() == np.random.RandomState(global_seed).get_state()[1].tolist()
    np.random.set_state(before)
    assert all(map(same_bits, states[0][1:], states[1][1:]))
    other = train(*run(dropped, LORA), replace(settings, seed=1))
    assert not np.array_equal(states[0].history["loss"], other.history["loss"])


def test_each_epoch_has_an_order_of_its_own(language, run, random_batch):
    setup = run(language)
    drawn = []

    def epoch_batches(rng):
        batches = setup.epoch_batches(rng)
        drawn.append([int(batch.ids.sum()) for batch in batches])
        return batches

    seen = []

    def objective(trainable, batch, rng):
        seen.append(int(batch.ids.sum()))
        return setup.objective(trainable, batch, rng)

    train(setup.trainable, objective, epoch_batches, TrainConfig(steps=9, learning_rate=1e-3))
    epochs = [seen[i : i + 3] for i in (0, 3, 6)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs == drawn[-3:]


def test_dropout_differs_by_step_and_shard(language, run):
    setup = run(replace(language, dropout=0.1))
    draws = []

    def objective(trainable, batch, rng):
        draws.append(rng.random())
        return setup.objective(trainable, batch, np.random.default_rng(0))

    train(setup.trainable, objective, setup.epoch_batches, TrainConfig(4, 1e-3, shards=2))
    assert len(set(draws)) == 8


@pytest.mark.parametrize("adapter_settings", [None, LORA], ids=["full", "lora"])
def test_training_mutates_nothing_that_it_was_given(classifier, random_params, random_batch, adapter_settings):
    params = random_params(classifier, np.float32)
    start = None
    if adapter_settings is not None:
        start = init_adapter(params, adapter_settings, np.random.default_rng(0))
    trainable, batch = trainable_arrays(params, start), random_batch(classifier)
    groups = [params, trainable, batch._asdict()]
    before, arrays = [copies(group) for group in groups], dict(trainable)
    settings = TrainConfig(steps=3, learning_rate=0.1, shards=2)
    state = train(trainable, model_objective(params, classifier, start), lambda rng: [batch], settings)
    assert all(same_bits(group, copy) for group, copy in zip(groups, before))
    assert all(trainable[name] is array for name, array in arrays.items())
    assert not any(np.shares_memory(state.trainable[name], trainable[name]) for name in trainable)
    assert not same_bits(state.trainable, trainable)


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
def test_float32_is_trained_in_float32(classifier, run, number):
    """Also with settings that came out of a NumPy array, such as np.logspace(-4, -2, 5)[2]."""
    model = replace(classifier, dropout=number(0.25), layer_norm_eps=number(1e-5))
    optimiser = AdamW(*map(number, (0.9, 0.99, 1e-8, 0.1)))
    settings = TrainConfig(
        2, number(1e-3), final_share=number(0.5), clip_norm=number(1e-3), optimiser=optimiser, shards=2
    )
    state = train(*run(model, LORA), settings)
    for group in (state.trainable, state.m, state.v, state.best):
        assert {array.dtype for array in group.values()} == {np.dtype(np.float32)}


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(language, run, tmp_path, bad):
    setup = run(language)
    steps = []

    def objective(trainable, batch, rng):
        result = setup.objective(trainable, batch, rng)
        steps.append(len(steps) + 1)
        return result._replace(loss=bad) if len(steps) == 4 else result

    path = tmp_path / "state.safetensors"
    with pytest.raises(FloatingPointError, match=f"loss became {bad}.* at step 4"):
        train(*setup._replace(objective=objective), TrainConfig(9, 1e-3, save_every=3), state_path=path)
    assert steps == [1, 2, 3, 4] and path.exists()


def test_a_gradient_or_evaluation_that_is_not_finite_stops_the_run(language, run):
    """Also the last evaluation, after which no step would notice."""
    setup = run(language)

    def objective(trainable, batch, rng):
        result = setup.objective(trainable, batch, rng)
        return result._replace(grads={**result.grads, "ln_f.bias": np.full(12, np.nan, np.float32)})

    with pytest.raises(FloatingPointError, match="gradient norm nan.* at step 1; a lower learning rate than 0.001"):
        train(*setup._replace(objective=objective), TrainConfig(9, 1e-3))
    with pytest.raises(FloatingPointError, match="evaluation's loss became nan after step 2"):
        train(*setup, TrainConfig(2, 1e-3), lambda arrays: {"loss": math.nan})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_learning_rate_that_is_far_too_high(language, run):
    with pytest.raises(FloatingPointError, match="at step"):
        train(*run(language), TrainConfig(50, 1e30))


RUN, COUNT = {"steps": 10, "learning_rate": 1e-3}, "expected a whole number of at least"
REFUSED = [
    ("steps: got 0, " + COUNT + " 1", lambda: TrainConfig(0, 1e-3)),
    ("steps: got 10.5", lambda: TrainConfig(10.5, 1e-3)),
    *[
        (f"{name}: got {value}, {COUNT}", lambda name=name, value=value: TrainConfig(**RUN, **{name: value}))
        for name, value in {"shards": True, "threads": 0, "save_every": 0, "seed": -1, "eval_every": -1}.items()
    ],
    ("shards: got 0", lambda: TrainConfig(**RUN, shards=0)),
    ("warmup_steps: got -1", lambda: TrainConfig(**RUN, warmup_steps=-1)),
    *[
        (f"learning_rate: got {rate}, expected a number above 0", lambda rate=rate: TrainConfig(10, rate))
        for rate in (0.0, -1.0, math.nan, math.inf, None)
    ],
    ("learning_rate: got 1000", lambda: TrainConfig(10, 10**400)),  # no float can hold it
    ("clip_norm: got 0.0", lambda: TrainConfig(**RUN, clip_norm=0.0)),
    ("final_share: got nan, expected a finite number", lambda: TrainConfig(**RUN, final_share=math.nan)),
    ("select: got 'f1', expected one of loss, accuracy", lambda: TrainConfig(**RUN, select="f1")),
    ("schedule: got 'step', expected one of constant, linear, cosine", lambda: TrainConfig(**RUN, schedule="step")),
    ("schedule: got 'step', expected one of constant, linear, cosine", lambda: learning_rate_at(0, 10, 1.0, "step")),
    ("beta1: got 1.0, expected 0 ≤ beta1 < 1", lambda: AdamW(beta1=1.0)),
    ("beta2: got -0.1", lambda: AdamW(beta2=-0.1)),
    ("eps: got 0.0, expected a number above 0", lambda: AdamW(eps=0.0)),
    ("weight_decay: got nan, expected a number of at least 0", lambda: AdamW(weight_decay=math.nan)),
    *[
        (f"seed: got {seed!r}, {COUNT} 0", lambda seed=seed: stream(seed, "head"))
        for seed in (-1, 1.5, "0", None, True)
    ],
]


@pytest.mark.parametrize("message, call", REFUSED, ids=[message for message, _ in REFUSED])
def test_settings_out_of_range_are_refused_by_name(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_epochs_of_unequal_length_or_without_batches_are_refused(language, run):
    """A batch that is left out, or an IndexError after hours, would be the alternative."""
    setup = run(language)
    lengths = iter([3, 3, 2, 2, 2, 2])
    for n_batches, message in ((lambda: next(lengths), "got 2 batches in epoch"), (lambda: 0, "got no batches")):
        with pytest.raises(ValueError, match=f"epoch_batches: {message}"):
            shortened = setup._replace(epoch_batches=lambda rng, n=n_batches: setup.epoch_batches(rng)[: n()])
            train(*shortened, TrainConfig(steps=9, learning_rate=1e-3))


def test_threads_of_the_matrix_products_are_set_and_set_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    before = threads()
    with blas_threads(1):
        assert threads() == {1}
    assert threads() == before


# ------------------------------------------------------------------ random streams


def test_streams_of_one_seed_are_different_and_come_back():
    keys = [("weights",), ("head",), ("adapter",)]
    keys += [("shuffle", epoch) for epoch in range(3)]
    keys += [("masks", step, shard) for step in range(3) for shard in range(3)]
    drawn = [stream(seed, *key).random(4) for seed in (0, 1) for key in keys]
    assert len({array.tobytes() for array in drawn}) == 2 * len(keys)
    assert np.array_equal(stream(1, *keys[-1]).random(4), drawn[-1])


def test_a_variable_that_is_set_stays(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert "trim_threshold" in process_environment()["GLIBC_TUNABLES"]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    assert process_environment()["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_shard_threads_keep_the_order():
    for n in (1, 2, 3):
        with shard_threads(n) as run:
            assert list(run(lambda a, b: a - b, range(10), range(0, 20, 2))) == [-i for i in range(10)]


def test_adamw_in_place_is_adamw(language, random_params):
    params, grads = random_params(language, np.float32), random_params(language, np.float32, seed=1)
    m, v = random_params(language, np.float32, seed=2), {n: a * a for n, a in params.items()}
    expected = adamw_update(params, grads, m, v, 2, 0.1, AdamW())
    own = tuple(map(copies, (params, m, v)))
    got = adamw_update(own[0], grads, own[1], own[2], 2, 0.1, AdamW(), out=own)
    assert all(g is o for g, o in zip(got, own)) and all(map(same_bits, got, expected))
    turned = {**own[0], "tok_emb.weight": np.asfortranarray(own[0]["tok_emb.weight"])}
    with pytest.raises(ValueError, match="out: tok_emb.weight is not C-contiguous"):
        adamw_update(params, grads, m, v, 2, 0.1, AdamW(), out=(turned, *own[1:]))
