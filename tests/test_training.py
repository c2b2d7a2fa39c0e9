"""lora_np.training: what is left alone, shards, evaluation and the loop.

test_vectors.py compares the arithmetic of AdamW, clipping, schedules and shards, which PyTorch has judged.
"""

import itertools
import math
import re
import sys
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from lora_np import training
from lora_np.adapters import AdapterConfig, init_adapter, start_adapter
from lora_np.data import Batch
from lora_np.model import BertConfig, Objective, forward
from lora_np.training import (
    AdamW,
    TrainConfig,
    adamw_update,
    blas_threads,
    evaluate,
    fine_tune,
    fine_tuning,
    head_alone,
    model_objective,
    threads,
    train,
)

from . import tiny
from .tiny import copies, same_bits

# ------------------------------------------------------------------ AdamW


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_optimiser_mutates_nothing_or_what_it_is_told_to_and_keeps_the_dtype(language, random_params, dtype):
    groups = [random_params(language, dtype, seed) for seed in range(3)]
    groups.append({name: array * array for name, array in groups[0].items()})
    before = [copies(group) for group in groups]
    results = adamw_update(*groups, 3, 0.1, AdamW())
    assert all(map(same_bits, groups, before))
    for result in results:
        assert list(result) == list(groups[0]) and {array.dtype for array in result.values()} == {np.dtype(dtype)}
        for name, array in result.items():
            assert not any(np.shares_memory(array, group[name]) for group in groups)
    params, grads, m, v = groups
    in_place = adamw_update(params, grads, m, v, 3, 0.1, AdamW(), out=(params, m, v))
    assert all(got is group for got, group in zip(in_place, (params, m, v)))
    assert all(map(same_bits, in_place, results))
    turned = {**params, "tok_emb.weight": np.asfortranarray(params["tok_emb.weight"])}
    with pytest.raises(ValueError, match="out: tok_emb.weight is not C-contiguous"):
        adamw_update(params, grads, m, v, 3, 0.1, AdamW(), out=(turned, m, v))


# ------------------------------------------------------------------ clipping


@pytest.mark.parametrize("max_norm, share", [(1.0, 0.2), (5.0, 1.0), (7.0, 1.0), (None, 1.0)])
def test_clipping_shortens_a_copy_or_nothing(max_norm, share):
    grads = {"a": np.array([3.0]), "b": np.array([[0.0, -4.0]])}
    before = copies(grads)
    clipped, norm = training.clip_by_global_norm(grads, max_norm)
    assert norm == training.global_norm(grads) == 5.0 and same_bits(grads, before)
    for name in grads:
        np.testing.assert_allclose(clipped[name], share * grads[name], rtol=0 if share == 1.0 else 1e-15)


# ------------------------------------------------------------------ schedule


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_of_runs_of_a_few_steps(schedule):
    assert [training.learning_rate_at(step, 3, 2.0, schedule, warmup_steps=7) for step in range(3)] == [0.25, 0.5, 0.75]
    assert training.learning_rate_at(0, 1, 2.0, schedule) == 2.0


# ------------------------------------------------------------------ shards


@pytest.mark.parametrize("n_shards, sizes", [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (5, [1] * 5), (9, [1] * 5)])
def test_a_batch_is_split_into_shards(language, random_batch, n_shards, sizes):
    batch = random_batch(language, B=5)
    shards = training.split_batch(batch, n_shards)
    assert [len(shard.ids) for shard in shards] == sizes
    assert {type(shard) for shard in shards} == {Batch}
    for field in Batch._fields:
        np.testing.assert_array_equal(np.concatenate([getattr(s, field) for s in shards]), getattr(batch, field))
    batch.targets[: sizes[0]] = -100  # a shard without targets is left out
    assert [len(shard.ids) for shard in training.split_batch(batch, n_shards)] == sizes[1:]


def test_accumulation_mutates_no_shards_gradient():
    results = [Objective(1.0, 2, {"w": np.ones(3)}), Objective(4.0, 1, {"w": np.full(3, 7.0)})]
    training.mean_over_shards(results)
    assert (results[0].grads["w"] == 1.0).all() and (results[1].grads["w"] == 7.0).all()


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("shards, threads", [(1, 1), (3, 1), (3, 2)])
def test_gradients_used_block_by_block_give_the_same_bits(
    config, random_params, random_batch, clip_norm, shards, threads
):
    """As those of an objective that returns all of them at once; without clipping, few of them are there at a time."""
    params, batches = random_params(config), [random_batch(config, B=6, seed=seed) for seed in range(2)]
    in_parts, settings = model_objective(params, config), {"clip_norm": clip_norm, "threads": threads, "shards": shards}
    together, states, alive = (lambda *given: in_parts(*given)), [], []

    def watched(trainable, batch, rng, release=None):
        def released(grads, **more):
            alive.append(sum(grad.nbytes for grad in grads.values()))
            release(grads, **more)

        return in_parts(trainable, batch, rng, released)

    watched.in_parts = True
    for objective in (together, in_parts, watched):
        train_config = TrainConfig(4, 1e-2, **settings)
        states.append(training.train(params, objective, lambda rng: batches, train_config))
    for state in states[1:]:
        assert tiny.same_bits(state.best, states[0].best)
        assert all(np.array_equal(state.history[name], values) for name, values in states[0].history.items())
    assert len(alive) == 4 * config.n_layers * shards
    assert max(alive) < 0.8 * sum(array.nbytes for array in params.values())


# ------------------------------------------------------------------ evaluation


WEIGHTS = np.array([0.2, 1.0, 3.0, 1.7])  # of the classes


def test_evaluation_by_hand(config, random_params, random_batch, random_adapter):
    """Every real target counts once, or by its class's weight, in whichever batch it is, with an adapter or without.

    The accuracy has no weights.
    """
    params = random_params(config)
    batches = [random_batch(config, B=B, seed=B) for B in (2, 5, 3)]
    ways = (None, WEIGHTS) if config.n_classes else (None,)
    for adapter, weights in itertools.product((None, random_adapter(params)), ways):
        losses, hits, shares = [], [], []
        for batch in batches:
            logits = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)[0]
            for place in np.ndindex(batch.targets.shape):
                target = batch.targets[place]
                if target != -100:
                    losses.append(np.log(np.exp(logits[place]).sum()) - logits[place][target])
                    hits.append(np.argmax(logits[place]) == target)
                    shares.append(1.0 if weights is None else weights[target])
        scores = evaluate(params, batches, config, adapter, weights)
        accuracy = {"accuracy": np.mean(hits)} if config.n_classes else {}
        assert scores == {"loss": pytest.approx(np.average(losses, weights=shares), rel=1e-12), **accuracy}
        again = evaluate(params, iter(batches[::-1]), config, adapter, weights)
        assert again == scores | {"loss": pytest.approx(scores["loss"])}


def test_class_weights(classifier, random_params, random_batch):
    """A batch's loss is its evaluation's; shards have the whole batch's loss and gradients."""
    params, weights, batch = random_params(classifier), WEIGHTS, random_batch(classifier, B=7)
    objective = model_objective(params, classifier, class_weights=weights)
    whole, shards = (
        training.mean_over_shards([objective(params, shard, None) for shard in training.split_batch(batch, n)])
        for n in (1, 3)
    )
    loss = evaluate(params, [batch], classifier, None, weights)["loss"]
    assert whole[0] == pytest.approx(loss, rel=1e-12) and shards[0] == pytest.approx(loss, rel=1e-12)
    for name, grad in whole[1].items():
        np.testing.assert_allclose(shards[1][name], grad, atol=1e-12)
    for wrong in (weights[:3], weights * 0, weights * np.nan):
        with pytest.raises(ValueError, match="weights: got .* expected a positive number for each of the 4 classes"):
            evaluate(params, [batch], classifier, None, wrong)


BERT = BertConfig(13, 7, 12, 2, 3, 20, n_classes=4)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("config", [tiny.tiny_config(n_classes=4), BERT], ids=["gpt2", "bert"])
def test_a_head_alone_is_trained_on_vectors_that_are_computed_once(config, weights, random_batch, monkeypatch):
    """To the weights, losses and evaluations of a run that computes them anew in each step."""
    params = tiny.random_params(config)
    batches = [random_batch(config, B=5, seed=seed)._replace(rows=5 * seed + np.arange(5)) for seed in range(3)]
    adapter = start_adapter(params, AdapterConfig(targets=()), np.random.default_rng(0))[1]

    def run():
        settings = {"learning_rate": 0.1, "epochs": 4, "class_weights": weights, "shards": 2}
        return train(**fine_tuning(params, config, adapter, lambda rng: batches, batches[:2], **settings))

    monkeypatch.setattr(head_alone, "forward", counted := Mock(side_effect=forward))
    once = run()
    assert counted.call_count == 5
    monkeypatch.setattr(fine_tune, "head_arrays", lambda arrays: {})
    again = run()
    assert counted.call_count == 5 and once.history.keys() == again.history.keys()
    for name, values in once.history.items():
        np.testing.assert_allclose(values, again.history[name], rtol=1e-9)
    for name, array in once.best.items():
        np.testing.assert_allclose(array, again.best[name], rtol=1e-9)


# ------------------------------------------------------------------ the loop


Run = namedtuple("Run", "trainable objective epoch_batches")  # what `train` takes


@pytest.fixture
def run(random_params, random_batch):
    """Function -> Run of a tiny model, with three batches an epoch, shuffled, and dropout where there is some."""

    def make(config, adapter_settings=None, dtype=np.float32, n_batches=3):
        params = random_params(config, dtype)
        adapter = None
        if adapter_settings is not None:
            adapter = init_adapter(params, adapter_settings, np.random.default_rng(0))
        batches = [random_batch(config, B=5, seed=seed) for seed in range(n_batches)]
        return Run(
            training.trainable_arrays(params, adapter),
            model_objective(params, config, adapter),
            lambda rng: [batches[i] for i in rng.permutation(n_batches)],
        )

    return make


LORA = AdapterConfig(r=3, alpha=6, targets=["all-linear"], dropout=0.2)


@pytest.mark.parametrize("adapter_settings", [None, LORA], ids=["full", "lora"])
def test_a_model_learns_a_batch_by_heart_and_leaves_alone_what_it_was_given(
    config, random_params, random_batch, adapter_settings
):
    params, batch, start = random_params(config, np.float32), random_batch(config, B=4), None
    if adapter_settings is not None:
        start = init_adapter(params, adapter_settings, np.random.default_rng(1))
    trainable = training.trainable_arrays(params, start)
    groups = [params, trainable, batch._asdict()]
    before, arrays = [copies(group) for group in groups], dict(trainable)
    settings = TrainConfig(80, 2e-2, schedule="constant", warmup_steps=5, shards=2)
    state = train(trainable, model_objective(params, config, start), lambda rng: [batch], settings)
    model, adapter = training.attach(params, start, state.trainable)
    first, last = evaluate(params, [batch], config), evaluate(model, [batch], config, adapter)
    assert last["loss"] < 0.5 * first["loss"] and last.get("accuracy", 1) > first.get("accuracy", 0)
    assert state.history["loss"][0] == pytest.approx(first["loss"], rel=1e-6)
    if adapter_settings is not None:
        assert model is params and set(adapter.weights) == set(trainable)
    assert all(map(same_bits, groups, before))
    assert all(trainable[name] is array for name, array in arrays.items())
    assert not any(np.shares_memory(state.trainable[name], array) for name, array in arrays.items())


EVALUATIONS = [  # eval_every, and each step with an evaluation -> its loss
    (3, {3: 1.0, 6: 2.0, 8: 3.0}),
    (2, {2: 3.0, 4: 1.0, 6: 1.0, 8: 4.0}),  # of equals the first is the best
    (4, {4: 2.0, 8: 1.0}),
    (0, {8: 5.0}),
]


@pytest.mark.parametrize("eval_every, losses", EVALUATIONS)
def test_history_and_log_have_a_number_for_every_step_and_evaluation_and_the_best_is_kept(
    language, run, eval_every, losses
):
    log, measured = {}, {}
    settings = TrainConfig(8, 1e-3, eval_every=eval_every, schedule="linear", warmup_steps=2)

    def measure(trainable):
        step = list(losses)[len(measured)]
        measured[step] = copies(trainable)
        return {"loss": losses[step], "accuracy": 0.5}

    state = train(*run(language), settings, measure, log.__setitem__)
    history, rates = state.history, [training.learning_rate_at(step, 8, 1e-3, "linear", 2) for step in range(8)]
    expected = {"eval_step": [*losses], "eval_loss": [*losses.values()], "eval_accuracy": [0.5] * len(losses)}
    assert {name: history[name].tolist() for name in expected} == expected
    assert history["learning_rate"].tolist() == rates and (history["grad_norm"] > 0).all() and state.step == 8
    assert set(history) == {*expected, "loss", "learning_rate", "grad_norm"} and list(log) == list(range(1, 9))
    for step in log:
        row = {name: history[name][step - 1] for name in ("loss", "learning_rate", "grad_norm")}
        assert log[step] == row | ({"eval_loss": losses[step], "eval_accuracy": 0.5} if step in losses else {})
    assert same_bits(measured[8], state.trainable) and same_bits(measured[min(losses, key=losses.get)], state.best)
    plain = train(*run(language), settings)  # without an evaluation the last weights are the best
    assert set(plain.history) == set(history) - set(expected) and same_bits(plain.best, plain.trainable)
    assert same_bits(plain.trainable, state.trainable)


@pytest.mark.parametrize("patience, select_from, last", [(1, 0, 6), (2, 0, 16), (4, 0, 20), (1, 10, 14), (None, 0, 20)])
def test_patience_ends_a_run_that_no_longer_improves(patience, select_from, last, language, run, tmp_path):
    """After as many evaluations in a row without a new best among those that count; also if the run is resumed."""
    losses = [3.0, 2.0, 2.5, 1.0, 1.5, 0.9, 1.0, 1.1, 1.2, 0.1]  # after 2, 4, … 20 steps
    settings = TrainConfig(20, 1e-3, eval_every=2, save_every=1, select_from=select_from, patience=patience)

    def trained(stop=None, **more):
        done = training.saved_run(more["state_path"])[0] // 2 if more and more["state_path"].exists() else 0
        coming = iter(losses[done:])

        def interrupt(step, _):
            if step == stop:
                raise KeyboardInterrupt

        return train(*run(language), settings, lambda trainable: {"loss": next(coming)}, interrupt, **more)

    whole = trained()
    assert whole.step == last and len(whole.history["eval_loss"]) == last // 2
    with pytest.raises(KeyboardInterrupt):
        trained(stop=last - 1, state_path=tmp_path / "state")
    again = trained(state_path=tmp_path / "state")
    assert again.step == last and same_bits(again.best, whole.best)


@pytest.mark.parametrize("adapter_settings", [None, LORA], ids=["full", "lora"])
def test_threads_change_no_bit(config, run, adapter_settings, monkeypatch):
    """Loss, gradients, norm and update, with arrays shared out in many groups and cut in many blocks."""
    monkeypatch.setattr("lora_np.training.threads.WORTHWHILE", 100)
    monkeypatch.setattr("lora_np.ops.blocks.BLOCK", 50)
    dropped = replace(config, dropout=0.1)
    settings = TrainConfig(steps=5, learning_rate=1e-2, shards=3, clip_norm=0.1)
    assert len(threads.balanced_groups(run(dropped, adapter_settings).trainable)) > 2
    one = train(*run(dropped, adapter_settings), settings)
    assert (one.history["grad_norm"] > 0.1).all(), "nothing is clipped"
    for n in (2, 3):
        more = train(*run(dropped, adapter_settings), replace(settings, threads=n))
        assert all(map(same_bits, one[1:], more[1:]))


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


def test_epochs_have_their_own_orders_and_shards_their_own_draws(language, run):
    setup = run(language)
    drawn, seen, draws = [], [], []

    def epoch_batches(rng):
        batches = setup.epoch_batches(rng)
        drawn.append([int(batch.ids.sum()) for batch in batches])
        return batches

    def objective(trainable, batch, rng):
        seen.append(int(batch.ids.sum()))
        draws.append(rng.random())
        return setup.objective(trainable, batch, np.random.default_rng(0))

    train(setup.trainable, objective, epoch_batches, TrainConfig(9, 1e-3, shards=2))
    steps = [first + second for first, second in zip(seen[::2], seen[1::2])]
    epochs = [steps[i : i + 3] for i in (0, 3, 6)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs == drawn[-3:]
    assert len(set(draws)) == 2 * 9


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


NO_GRADIENT = {"ln_f.bias": np.full(12, np.nan, np.float32)}
NOT_FINITE = {
    "loss became nan": lambda result: result._replace(loss=math.nan),
    "loss became inf": lambda result: result._replace(loss=math.inf),
    "gradient norm nan": lambda result: result._replace(grads={**result.grads, **NO_GRADIENT}),
}


@pytest.mark.parametrize("message", NOT_FINITE)
def test_what_is_not_finite_stops_the_run_and_names_the_step(language, run, tmp_path, message):
    setup, steps, path = run(language), [], tmp_path / "state.safetensors"

    def objective(trainable, batch, rng):
        result = setup.objective(trainable, batch, rng)
        steps.append(len(steps) + 1)
        return NOT_FINITE[message](result) if len(steps) == 4 else result

    with pytest.raises(FloatingPointError, match=f"{message}.* at step 4; a learning rate below 0.001"):
        train(*setup._replace(objective=objective), TrainConfig(9, 1e-3, save_every=3), state_path=path)
    assert steps == [1, 2, 3, 4] and path.exists()
    with pytest.raises(FloatingPointError, match="evaluation's loss became nan after step 2"):
        train(*setup, TrainConfig(2, 1e-3), lambda arrays: {"loss": math.nan})


def test_epochs_without_batches_of_another_length_or_without_targets_are_refused(language, run, random_batch):
    """A batch that is left out, or an IndexError after hours, would be the alternative."""
    setup, empty = run(language), random_batch(language)
    empty.targets[:] = -100
    lengths = iter([3, 3, 2, 2, 2, 2])
    for epoch_batches, message in [
        (lambda rng: setup.epoch_batches(rng)[: next(lengths)], "epoch_batches: got 2 batches in epoch"),
        (lambda rng: [], "epoch_batches: got no batches"),
        (lambda rng: [empty], "targets"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(*setup._replace(epoch_batches=epoch_batches), TrainConfig(steps=9, learning_rate=1e-3))


def test_threads_of_the_matrix_products_are_set_and_set_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    before = threads()
    with blas_threads(1):
        assert threads() == {1}
    assert threads() == before


def test_without_threadpoolctl_one_warning_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    for name in threads.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    threads.threadpool_limits.cache_clear()
    try:
        with pytest.warns(UserWarning, match="threadpoolctl is missing.*pip install threadpoolctl"), blas_threads(1):
            pass
        with blas_threads(1):  # once is enough
            pass
        threads.threadpool_limits.cache_clear()
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
        with blas_threads(1):  # all is well without it
            pass
    finally:
        threads.threadpool_limits.cache_clear()


@pytest.fixture
def slow_training(language, run, random_batch, monkeypatch, capsys):
    """Function (is_terminal) -> what a run of 12 steps wrote to stderr, in which a step takes 7 s and reads 14 tokens.

    Every third step is evaluated, which takes 70 s.
    """
    now, setup, batch = [0.0], run(language), random_batch(language)
    batch.lengths[:] = 6, 5, 3
    monkeypatch.setattr(training.progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def taking(seconds, result):
        now[0] += seconds
        return result

    def call(is_terminal):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
        objective, settings = (lambda *given: taking(7.0, setup.objective(*given))), TrainConfig(12, 1e-3, eval_every=3)
        measure = lambda arrays: taking(70.0, {"loss": 1.0})  # noqa: E731
        train(setup.trainable, objective, lambda rng: [batch], settings, measure, progress="tuning")
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize("is_terminal", [False, True], ids=["no terminal", "no tqdm"])
def test_a_line_a_minute_says_how_fast_and_how_long(slow_training, monkeypatch, is_terminal):
    """Three steps and their evaluation take 91 s. Tokens are not padding, and are not read in evaluations."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    lines = [re.sub(r"loss [0-9.]+", "loss", line) for line in slow_training(is_terminal).splitlines()]
    assert lines == [
        "tuning: step 4 of 12, loss, 2 tokens/s, 4 min 03 s left",  # 8 / 3 of 91 s
        "tuning: step 7 of 12, loss, 2 tokens/s, 2 min 32 s left",
        "tuning: step 10 of 12, loss, 2 tokens/s, 1 min 01 s left",
    ]


def test_a_bar_says_the_same_and_when_it_evaluates(slow_training):
    pytest.importorskip("tqdm")
    drawn = slow_training(True).split("\r")
    bar = r"tuning:  58%\|.*\| step 7 of 12, loss [0-9.]+, 2 tokens/s, 2 min 32 s left *"
    assert len([text for text in drawn if re.fullmatch(bar, text)]) == 1
    evaluating = [text.partition(" step ")[2].split()[0] for text in drawn if "evaluating" in text]
    assert evaluating == ["3", "6", "9", "12"]


# ------------------------------------------------------------------ random streams


def test_streams_of_one_seed_are_different_and_come_back():
    keys = [("weights",), ("head",), ("adapter",)]
    keys += [("shuffle", epoch) for epoch in range(3)]
    keys += [("masks", step, shard) for step in range(3) for shard in range(3)]
    drawn = [training.stream(seed, *key).random(4) for seed in (0, 1) for key in keys]
    assert len({array.tobytes() for array in drawn}) == 2 * len(keys)
    assert np.array_equal(training.stream(1, *keys[-1]).random(4), drawn[-1])


def test_a_variable_that_is_set_stays(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert "trim_threshold" in training.process_environment()["GLIBC_TUNABLES"]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    assert training.process_environment()["GLIBC_TUNABLES"] == "glibc.malloc.check=3"
