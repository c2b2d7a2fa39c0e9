"""The laboratory's recipes and their training runs."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, linear_layers, start_adapter, trainable_report
from lora_np.compress import Int8Weight, NF4Weight, held_bytes
from lora_np.experiments import gallery, laboratory, tuned
from lora_np.experiments.evidence import FAILS, HOLDS, UNKNOWN, verdict
from lora_np.experiments.recipes import (
    RECIPES,
    compression,
    cost,
    headline,
    learning_rate,
    low_data,
    planted_rank,
    rank_sweep,
    recipe,
    truncation,
)
from lora_np.experiments.run_store import run_key
from lora_np.experiments.runs import RUNNERS, ClassifyRun, PlantedRun, carry_out, classify, planted
from lora_np.experiments.runs.base import load_base
from lora_np.experiments.runs.classify import BASES, classify_run, parts, starting_point, training_rows
from lora_np.experiments.runs.sentiment import load_task
from lora_np.experiments.tuned import METHODS, QUICK, QV, lora
from lora_np.formats import read_json
from lora_np.model import ModelConfig, initial_params
from lora_np.training import attach, trainable_arrays

LIMIT = 24  # snippets of each split
FIVE = [0, 1, 2, 3, 4]
TABLED = [name for name in RECIPES if name not in ("dialect", "cost")]  # those measured from runs of a classifier


@pytest.fixture(scope="module")
def small_base():
    """A random base, wide enough for r = 64."""
    config = ModelConfig(vocab_size=8000, n_positions=128, d_model=128, n_layers=1, n_heads=4, d_ff=256)
    return initial_params(config, np.random.default_rng(0)), config


@pytest.fixture
def small(small_base, monkeypatch):
    """Runs on a small base in the shipped one's place, and few snippets for a quick look."""
    base = small_base
    for module in (classify, cost):
        monkeypatch.setattr(module, "load_base", lambda: base)
    monkeypatch.setitem(QUICK, "limit", LIMIT)
    return base


def small_run(adapter, seed=0, **more):
    few = {"learning_rate": 3e-3, "epochs": 1, "batch_size": 8, "evaluations": 2, "limit": LIMIT}
    return ClassifyRun(adapter, seed, **few | more)


def without_time(numbers):
    return {name: value for name, value in numbers.items() if name != "seconds"}


def same_arrays(first, second):
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------- runs of the classifier

ADAPTERS = {
    "full": None,
    "head": AdapterConfig(targets=()),
    "lora": lora(4, *QV),
    "lora+": tuned.variant("lora+"),
    "lora-fa": tuned.variant("lora-fa"),
    "dora": tuned.variant("dora"),
    "adalora": tuned.variant("adalora"),
}


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_run_is_a_function_of_its_settings(method, small):
    run = small_run(ADAPTERS[method], keep=True)
    (numbers, arrays), (again, arrays_again) = classify_run(run), classify_run(run)
    assert without_time(numbers) == without_time(again) and same_arrays(arrays, arrays_again)
    assert json.loads(json.dumps(numbers)) == numbers and numbers["seconds"] > 0
    assert without_time(classify_run(replace(run, seed=1))[0]) != without_time(numbers)


def test_what_a_run_keeps_is_what_it_measured(small):
    """The arrays are those of the best evaluation; to keep them changes no number."""
    task = load_task(LIMIT)
    for adapter in (None, lora(4, *QV)):
        run = small_run(adapter, keep=True, epochs=4, evaluations=4, learning_rate=0.03)
        numbers, arrays = classify_run(run)
        bare, nothing = classify_run(replace(run, keep=False))
        assert nothing == {} and without_time(bare) == without_time(numbers)
        params, config, start = starting_point(run)
        assert set(arrays) == set(trainable_arrays(params, start))
        assert sum(array.size for array in arrays.values()) == numbers["trainable"]
        model, attached = attach(params, start, arrays)
        found = {split: classify.score(model, attached, config, task, split) for split in ("validation", "test")}
        assert found["validation"]["loss"] == numbers["validation_loss"]
        assert found["test"] == {"loss": numbers["test_loss"], "accuracy": numbers["test_accuracy"]}
        evaluations = numbers["evaluations"]
        assert min(evaluations["loss"]) == pytest.approx(numbers["validation_loss"], abs=1e-6)
        assert len(evaluations["step"]) == 4 and evaluations["step"][-1] == numbers["steps"] == 4 * LIMIT // 8


def test_the_best_evaluation_is_that_of_the_least_loss(small, monkeypatch):
    """Not the last, nor that of the best accuracy."""
    scores = iter([(0.7, 0.5), (0.4, 0.6), (0.6, 0.9), (0.5, 0.7)])
    seen = []

    def score(params, adapter, config, task, split):
        seen.append({name: array.copy() for name, array in adapter.weights.items()})
        loss, accuracy = next(scores, (0.0, 1.0))
        return {"loss": loss, "accuracy": accuracy}

    monkeypatch.setattr(classify, "score", score)
    numbers, arrays = classify_run(small_run(lora(4, *QV), keep=True, epochs=4, evaluations=4))
    assert numbers["evaluations"]["accuracy"] == [0.5, 0.6, 0.9, 0.7] and numbers["validation_loss"] == 0.4
    adapter = {name: array for name, array in arrays.items() if ".lora_" in name}
    assert len(seen) == 5 and all(np.array_equal(seen[1][name], array) for name, array in adapter.items())
    assert all(np.array_equal(seen[4][name], array) for name, array in adapter.items())  # which is what is tested
    assert not any(np.array_equal(seen[2][name], array) for name, array in adapter.items())


def recorded(monkeypatch):
    """A list that every training batch's token ids are noted in from now on."""
    seen, honest = [], classify.model_objective

    def recording(*arguments):
        objective = honest(*arguments)

        def noted(trainable, batch, rng):
            seen.append((batch.ids.tobytes(), batch.targets.tobytes()))
            return objective(trainable, batch, rng)

        return noted

    monkeypatch.setattr(classify, "model_objective", recording)
    return seen


def test_every_method_sees_the_same_batches(small, monkeypatch):
    """And starts from the same head; another seed, from another, with other batches."""
    seen, batches, heads = recorded(monkeypatch), {}, {}
    for method, adapter in ADAPTERS.items():
        for seed in (0, 1):
            seen.clear()
            run = small_run(adapter, seed, epochs=2)
            classify_run(run)
            batches[method, seed] = list(seen)
            heads[method, seed] = starting_point(run)[0]["head.weight"]
    for seed in (0, 1):
        assert all(batches[method, seed] == batches["full", seed] for method in ADAPTERS)
        assert all(np.array_equal(heads[method, seed], heads["full", seed]) for method in ADAPTERS)
    assert len(batches["full", 0]) == 6 and batches["full", 0][:3] != batches["full", 0][3:]
    assert batches["full", 0] != batches["full", 1] and not np.array_equal(heads["full", 0], heads["full", 1])


def test_examples_are_drawn_by_the_seed(small, monkeypatch):
    full, head = (small_run(ADAPTERS[method], examples=8) for method in ("full", "head"))
    rows = training_rows(full, LIMIT)
    assert len(set(rows)) == 8 and set(rows) < set(range(LIMIT))
    assert np.array_equal(training_rows(head, LIMIT), rows)
    assert any(set(training_rows(replace(full, seed=seed), LIMIT)) != set(rows) for seed in (1, 2))
    assert np.array_equal(training_rows(small_run(None), LIMIT), np.arange(LIMIT))
    with pytest.raises(ValueError, match="examples: got 25, expected at most 24"):
        classify_run(small_run(None, examples=LIMIT + 1))
    # Those are what is trained on, in every epoch.
    seen = recorded(monkeypatch)
    numbers, _ = classify_run(replace(head, epochs=2, batch_size=1))
    task = load_task(LIMIT)
    expected = Counter((task.train.sequences[row].tolist().__repr__(), int(task.train.labels[row])) for row in rows)
    dtype = task.train.sequences[0].dtype
    found = [(np.frombuffer(ids, np.int64), np.frombuffer(labels, np.int64)) for ids, labels in seen]
    found = [(ids.astype(dtype).tolist().__repr__(), int(label)) for ids, (label,) in found]
    assert Counter(found[:8]) == Counter(found[8:]) == expected and numbers["steps"] == 16


@pytest.mark.parametrize("base", BASES)
def test_a_compressed_base_stays_as_it_was(base, small, monkeypatch):
    """Training neither thaws a quantised layer nor fills a pruned weight, and touches no array of the base."""
    shipped, before = small[0], {name: array.copy() for name, array in small[0].items()}
    starts, honest = [], classify.starting_point

    def noted(run):
        starts.append(honest(run))
        return starts[-1]

    monkeypatch.setattr(classify, "starting_point", noted)
    numbers, arrays = classify_run(small_run(lora(4, "all-linear"), base=base, keep=True))
    (params, _, _), fresh = starts[0], classify.compressed(before, base)
    layers = [f"{module}.weight" for module in linear_layers(shipped)]
    assert len(layers) == 6
    for name in layers:
        assert type(params[name]) is type(fresh[name]) is {"nf4": NF4Weight, "int8": Int8Weight}.get(base, np.ndarray)
        now, then = np.asarray(params[name]), np.asarray(before[name])
        assert np.array_equal(now, np.asarray(fresh[name]))
        if base == "dense":
            assert params[name] is shipped[name]
        if base == "pruned 50 %":
            assert np.mean(now == 0) == 0.5
        if base == "pruned 2:4":
            assert np.array_equal((now.reshape(-1, 4) == 0).sum(axis=1), np.full(now.size // 4, 2))
        if base.startswith("pruned"):
            assert np.array_equal(now[now != 0], then[now != 0])
        if base in ("nf4", "int8"):
            assert len(np.unique(now[0])) < then.shape[1] and not np.array_equal(now, then)
    assert same_arrays(shipped, before)
    assert all(name == "head.weight" or ".lora_" in name for name in arrays)
    dense = held_bytes(starting_point(small_run(lora(4, "all-linear")))[0])
    assert numbers["base_bytes"] == held_bytes(params) and (numbers["base_bytes"] < dense) == (base in ("nf4", "int8"))


def test_an_unknown_base_is_refused():
    with pytest.raises(ValueError, match="base: got 'nf5', expected one of dense, nf4, int8, pruned 50 %, pruned 2:4"):
        ClassifyRun(None, 0, 1e-3, base="nf5")


def test_the_test_split_is_not_read_while_rates_are_chosen(small, monkeypatch):
    task = load_task(LIMIT)
    monkeypatch.setattr(classify, "load_task", lambda limit: task._replace(test=None))
    numbers, _ = classify_run(small_run(ADAPTERS["head"], test=False))
    assert "validation_loss" in numbers and not any(name.startswith("test") for name in numbers)
    with pytest.raises(AttributeError):
        classify_run(small_run(ADAPTERS["head"]))


def test_training_loss_is_noted_in_parts():
    values = np.random.default_rng(0).standard_normal(137)
    found = parts(values)
    assert len(found) == 50 and np.array_equal(np.concatenate(found), values)
    assert {len(part) for part in found} == {2, 3}
    assert [part.tolist() for part in parts(values[:3])] == [[value] for value in values[:3]]


# ---------------------------------------------------------------- runs with a planted rank


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_teacher_differs_by_a_matrix_of_rank_k(k):
    student, teacher = planted.planted_model(k, seed=0)
    change = {name: teacher[name] - student[name] for name in student}
    sigma = np.linalg.svd(change.pop(f"{planted.LAYER}.weight"), compute_uv=False)
    assert np.allclose(sigma[:k], 2.0) and np.all(sigma[k:] < 1e-12)
    assert not any(array.any() for array in change.values())
    assert {array.dtype for array in student.values()} == {np.dtype(np.float64)}
    assert not same_arrays(student, planted.planted_model(k, seed=1)[0])


def test_the_loss_drops_at_the_planted_rank():
    """150 steps are enough to see it at k = 2: r = 1 leaves half of the change, r = 2 nothing."""
    below, at = (carry_out(PlantedRun(2, r, seed=0, steps=150))[0] for r in (1, 2))
    assert below["base_loss"] == at["base_loss"] > 0.01
    assert below["test_loss"] > 0.2 * below["base_loss"]
    assert at["test_loss"] < planted_rank.FOUND_BELOW * at["base_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4])
def test_the_planted_rank_is_found(k):
    losses = {r: carry_out(PlantedRun(k, r, seed=1))[0] for r in (k - 1, k, k + 2) if r}
    for r, numbers in losses.items():
        assert (numbers["test_loss"] < planted_rank.FOUND_BELOW * numbers["base_loss"]) == (r >= k)


def test_gradients_of_the_squared_error():
    """By centred differences along random directions, in float64 and at B ≠ 0."""
    student, teacher = planted.planted_model(2, seed=0)
    rng = np.random.default_rng(0)
    batch = planted.labelled(rng.integers(0, 64, (3, 16)), teacher)
    config = AdapterConfig(r=2, alpha=2.0, targets=(planted.LAYER,), train_head=False)
    _, adapter = start_adapter(student, config, rng)
    weights = {name: rng.standard_normal(array.shape) for name, array in adapter.weights.items()}

    def loss_at(shift, direction):
        moved = {name: array + shift * direction[name] for name, array in weights.items()}
        return planted.squared_error(student, batch, adapter._replace(weights=moved)).loss

    grads = planted.squared_error(student, batch, adapter._replace(weights=weights), tuple(weights)).grads
    assert set(grads) == set(weights)
    for name in weights:
        direction = {other: rng.standard_normal(array.shape) * (other == name) for other, array in weights.items()}
        slope = (loss_at(1e-5, direction) - loss_at(-1e-5, direction)) / 2e-5
        assert np.sum(grads[name] * direction[name]) == pytest.approx(slope, rel=1e-7)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name):
    found = recipe(name)
    title, _, method = found.__doc__.partition("\n\n")
    assert title == headline(name) and title.endswith((".", "?")) and len(title) <= 120
    assert len(method.split()) >= 25  # the method section
    for text in (found.CLAIM, found.CAPTION):
        assert text.endswith(".") and "  " not in text and "|" not in text and len(text.split()) >= 12
    assert all(callable(getattr(found, function)) for function in ("runs", "measure", "draw"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_runs_of_a_recipe(name):
    """Of known kinds, none listed twice, every method from every seed, and shorter for a quick look."""
    found, quick = recipe(name).runs(FIVE, False), recipe(name).runs([0, 1], True)
    assert all(type(run) in RUNNERS for run in found + quick)
    assert len({run_key(run) for run in found}) == len(found)
    json.dumps([run_key(run) for run in found])
    assert bool(found) == bool(quick) == (name != "cost")
    for run in quick:
        assert isinstance(run, PlantedRun) or run.limit is not None
    counts = Counter(run_key(replace(run, seed=-1)) for run in found)
    if not name.startswith("subspace"):  # those compare a seed with the next
        assert set(counts.values()) <= {5} and {run.seed for run in found} <= set(FIVE)
    for run in found:
        assert getattr(run, "limit", None) is None
        assert getattr(run, "test", True) == (name != "learning_rate")


def test_recipes_share_their_runs():
    """Runs with the same settings are the same run for every recipe, and so are carried out once."""
    keys = {name: {run_key(run) for run in recipe(name).runs(FIVE, False)} for name in RECIPES}
    for name in ("matrices", "attention_or_mlp", "amplification", "truncation", "intruders", "compression", "variants"):
        assert keys[name] & keys["rank_sweep"], name
    assert keys["intruders"] == keys["truncation"] < keys["rank_sweep"]
    of_all = {run_key(run) for (n, _, _), run in low_data.grid(FIVE, False).items() if n == low_data.ALL}
    assert len(of_all) == 15 and of_all < keys["rank_sweep"]
    assert low_data.ALL == 6528 and sum(map(len, keys.values())) - len(set().union(*keys.values())) >= 100


def test_every_method_has_a_learning_rate():
    """Chosen on validation, or taken over from a method whose own was."""
    settings = read_json(tuned.SETTINGS)
    for key, method in METHODS.items():
        if isinstance(method.guess, str):
            assert not isinstance(METHODS[method.guess].guess, str), key
            assert tuned.learning_rate(key) == settings["chosen"][method.guess]
        else:
            assert tuned.learning_rate(key) == settings["chosen"][key] > 0
    assert set(settings["chosen"]) == {key for key, method in METHODS.items() if not isinstance(method.guess, str)}
    for key, losses in settings["tried"].items():
        tried = {float(rate): loss for rate, loss in losses.items()}
        if METHODS[key].guess in tried and len(tried) >= 3:
            assert settings["chosen"][key] == min(sorted(tried), key=tried.get), key


def test_a_methods_run_is_at_its_rate():
    run = tuned.tuned_run("all_r16_batch128", 3, keep=True)
    assert run == ClassifyRun(
        lora(16, "all-linear"), 3, tuned.learning_rate("all_r16_batch128"), epochs=1, batch_size=128, keep=True
    )
    grid = tuned.tuned_runs(("qv_r2", "full"), [0, 5], base="nf4")
    assert list(grid) == [("qv_r2", 0), ("qv_r2", 5), ("full", 0), ("full", 5)]
    assert grid["qv_r2", 5] == ClassifyRun(lora(2, *QV), 5, tuned.learning_rate("qv_r1"), base="nf4", keep=True)
    assert lora(6, "q_proj").alpha == 12.0


def test_rates_are_tuned_at_a_seed_and_a_split_apart(tmp_path, monkeypatch):
    asked = {}

    def choose(guesses, run_of, out, command, executor, report):
        asked.update({key: run_of(key, guess) for key, guess in guesses.items()})
        return dict(guesses)

    monkeypatch.setattr(tuned, "choose_rates", choose)
    tuned.tune(out=tmp_path / "rates.json")
    assert len(asked) == len([key for key, method in METHODS.items() if not isinstance(method.guess, str)])
    for key, run in asked.items():
        method = METHODS[key]
        assert run.seed == 100 and not run.test and not run.keep and run.limit is None
        assert run == ClassifyRun(method.adapter, 100, method.guess, **method.more, test=False)


def trained_by(key):
    """How many parameters a method trains in the shipped base's blocks."""
    params, _ = load_base()
    config = METHODS[key].adapter
    _, start = start_adapter(params, replace(config, train_head=False), np.random.default_rng(0))
    return trainable_report(params, trainable_arrays(params, start)).trainable


def test_the_budgets_are_equal():
    """As the recipes' method sections say, for the shipped base of two blocks."""
    assert {trained_by(key) for key in recipe("matrices").KEYS} == {2 * 8 * (256 + 256)}
    large, small = ("attention_r45", "mlp_r36", "all_r20"), ("attention_r5", "mlp_r4")
    assert {trained_by(key) for key in large} == {2 * 92_160}
    assert {trained_by(key) for key in small} == {2 * 10_240}
    assert trained_by("lora-fa") == trained_by("qv_r8")


@pytest.mark.parametrize("best", [2.3e-4, 1e-3, 3.9e-3])
def test_best_rate_is_where_the_parabola_is_lowest(best):
    rates = list(learning_rate.LORA_RATES)
    losses = [0.5 + 0.02 * np.log(rate / best) ** 2 for rate in rates]
    expected = best if best > rates[0] else rates[0]  # at an end, that end
    assert learning_rate.best_rate(rates, losses) == pytest.approx(expected, rel=1e-6)
    assert learning_rate.best_rate(rates[::-1], losses[::-1]) == pytest.approx(expected, rel=1e-6)
    assert learning_rate.best_rate(rates, [0.5] * 6) == rates[0]
    assert rates[3] < learning_rate.best_rate(rates, [5, 4, 3, 1, 0.9, 2]) < rates[5]


# ---------------------------------------------------------------- measures and figures of every recipe


def made_up(run):
    """A run's numbers without the run."""
    rng = np.random.default_rng(list(run_key(run).encode()))
    if isinstance(run, PlantedRun):
        return {"base_loss": 0.1, "test_loss": 0.1 * (1e-5 if run.r >= run.k else 0.5), "seconds": 0.0}
    numbers = {
        "trainable": 100, "percent": 1.0, "steps": 3, "base_bytes": 1000, "validation_loss": 0.5 + 0.1 * rng.random(),
        "loss": rng.random(3).tolist(), "grad_norm": rng.random(3).tolist(), "seconds": 0.0,
        "evaluations": {"step": [1], "loss": [0.5], "accuracy": [0.7]},
    }  # fmt: skip
    return numbers | ({"test_accuracy": 0.7 + 0.1 * rng.random(), "test_loss": 0.5} if run.test else {})


class MadeUpResults:
    """Made-up numbers of any run, and arrays near its start of one that keeps them."""

    def __init__(self, runs):
        self.listed = {run_key(run) for run in runs}

    def __getitem__(self, run):
        assert run_key(run) in self.listed, "measured, but not among the recipe's runs"
        return made_up(run)

    def arrays(self, run):
        assert self[run] and run.keep, "asks for the arrays of a run that does not keep them"
        params, _, start = starting_point(run)
        rng = np.random.default_rng(run.seed)
        near = trainable_arrays(params, start).items()
        return {name: array + 0.1 * rng.standard_normal(array.shape).astype(array.dtype) for name, array in near}


def test_made_up_numbers_are_those_of_a_run(small):
    for run in (small_run(None), small_run(None, test=False), PlantedRun(1, 1, 0, steps=2)):
        assert set(made_up(run)) == set(carry_out(run)[0])


def contents(figure):
    """What a figure shows, as text: labels, and the coordinates and colours of what is drawn."""
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()]
        found += [text.get_text() for text in axes.texts]
        found += [(line.get_label(), line.get_color(), line.get_xydata().tolist()) for line in axes.lines]
        found += [[part.tolist() for part in c.get_segments()] for c in axes.collections if hasattr(c, "get_segments")]
        found += [(patch.get_facecolor(), patch.get_extents().get_points().tolist()) for patch in axes.patches]
        found += [image.get_array().tolist() for image in axes.images]
        found += [(axis.get_majorticklocs().tolist()) for axis in (axes.xaxis, axes.yaxis)]
    return repr(found)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", TABLED)
def test_measured_and_drawn(name, seeds, small, tmp_path):
    """From made-up results of its own runs: checks that the gallery shows, and a figure that the JSON alone gives.

    Where a run's arrays are read, the run keeps them.
    """
    found, seeds = recipe(name), list(range(seeds))
    measured = found.measure(MadeUpResults(found.runs(seeds, True)), seeds, True)
    assert measured["checks"] and len({json.dumps(part) for part in measured["checks"]}) == len(measured["checks"])
    for part in measured["checks"]:
        assert np.all(np.isfinite(part["values"])) and part["verdict"] in (HOLDS, FAILS, UNKNOWN)
    assert len(seeds) > 1 or {part["verdict"] for part in measured["checks"] if not part["every"]} <= {UNKNOWN}
    outcome = {"title": headline(name), "seeds": seeds, "verdict": verdict(measured["checks"]), **measured}
    read = json.loads(json.dumps(outcome))
    assert read == outcome
    shown = contents(found.draw(read))
    assert shown == contents(found.draw(outcome))
    assert len(shown) > 500 and ("one seed)" in shown or "(one pair" in shown) == (len(seeds) == 1)
    outcome |= {"claim": "", "caption": "", "command": "", "quick": True, "seconds": 0.0, "reused": 0, "runs": []}
    outcome["versions"] = {"lora_np": "", "numpy": "", "python": "", "machine": ""}
    rows = [line for line in gallery.section(1, name, outcome) if line.startswith("|")]
    assert len(rows) == 2 + len(measured["checks"]) and {line.count("|") for line in rows} == {5}


def test_costs_measured_and_drawn(small, monkeypatch):
    """Bytes and FLOPs are counted; of the times, which are made up, the ratios to full fine-tuning's are right."""
    monkeypatch.setattr(cost, "load_task", lambda: load_task(64))
    monkeypatch.setattr(cost, "peak_of_step", lambda turn, batch: 10**6)

    def turns(turns, batch, rounds):
        assert batch.ids.shape[0] == 32
        return {name: {"step": [2.0 + i, 9.0, 1.0], "passes": [1.0 + i] * 3} for i, name in enumerate(turns)}

    monkeypatch.setattr(cost, "take_turns", turns)
    measured = cost.measure(None, [0, 1], True)
    of = measured["measured"]
    names = ["full", "q,v r=8", "q,v r=8, NF4", *(f"all r={r}" for r in cost.QUICK_RANKS)]
    assert list(of) == names
    for i, name in enumerate(names):
        assert of[name]["step_ratio"] == [(2.0 + i) / 2.0] * 2 and of[name]["passes_ratio"] == [1.0 + i] * 2
    assert of["all r=1"]["flops"][0] < of["all r=16"]["flops"][0] < of["full"]["flops"][0]
    assert of["all r=1"]["bytes"][0] < of["all r=16"]["bytes"][0] < of["full"]["bytes"][0]
    assert of["q,v r=8, NF4"]["bytes"][0] < of["q,v r=8"]["bytes"][0]
    assert of["q,v r=8, NF4"]["flops"] == of["q,v r=8"]["flops"]
    outcome = {"seeds": [0, 1], **measured}
    assert contents(cost.draw(json.loads(json.dumps(outcome)))) == contents(cost.draw(outcome))


@pytest.mark.slow
def test_costs_are_really_measured(small, monkeypatch):
    monkeypatch.setattr(cost, "load_task", lambda: load_task(64))
    of = cost.measure(None, [0], True)["measured"]
    for found in of.values():
        assert 0 < found["passes"][0] < found["step"][0]
        assert 0.3 < found["peak"][0] / found["bytes"][0] < 3.0
    assert of["q,v r=8"]["peak"][0] < of["full"]["peak"][0]


def test_a_truncated_update_of_full_rank_is_the_whole(small, monkeypatch):
    """The measure of truncation reads what full fine-tuning trained: cut to rank 128 of 128, nothing is lost."""
    runs = truncation.runs([0], True)
    full = next(run for run in runs if run.adapter is None)
    numbers, arrays = classify_run(full)

    class Results(MadeUpResults):
        def __getitem__(self, run):
            return numbers if run == full else super().__getitem__(run)

        def arrays(self, run):
            return arrays if run == full else super().arrays(run)

    monkeypatch.setattr(truncation, "RANKS", (1, 4, 16, 128))
    monkeypatch.setattr(truncation, "KEYS", ("full", "all_r1", "all_r4", "all_r16"))
    measured = truncation.measure(Results(runs), [0], True)
    assert set(measured["cut"]) == {"0", "1", "4", "16", "128"}
    assert measured["cut"]["128"] == measured["accuracy"]["full"]
    for key, r in {"all_r1": 1, "all_r4": 4, "all_r16": 16}.items():
        assert measured["energy"][key][0][r - 1] == pytest.approx(1.0, abs=1e-4)
        assert measured["rank_90"][key][0] <= r < measured["rank_90"]["full"][0] + r


def test_intruders_are_counted_a_matrix():
    """Those below ε, strictly, as a mean over the matrices."""
    count = recipe("intruders").intruders_a_matrix
    assert count([[0.4, 0.9, 0.1], [0.5, 0.6, 0.7]], 0.5) == 1.0
    assert count([[0.4, 0.9, 0.1], [0.5, 0.6, 0.7]], 0.55) == 1.5


def test_planted_ranks_that_are_found():
    """The smallest rank whose loss is below a thousandth; none where there is none."""
    runs = planted_rank.runs([0, 1], True)
    measured = planted_rank.measure(MadeUpResults(runs), [0, 1], True)
    assert measured["found"] == {"1": [1, 1], "2": [2, 2]} and verdict(measured["checks"]) == HOLDS

    class Missed(MadeUpResults):
        def __getitem__(self, run):
            return super().__getitem__(run) | ({"test_loss": 0.09} if run.k == 2 else {})

    measured = planted_rank.measure(Missed(runs), [0, 1], True)
    assert measured["found"] == {"1": [1, 1], "2": [None, None]}
    assert [part["verdict"] for part in measured["checks"]] == [HOLDS, FAILS]


def test_two_quick_experiments_from_end_to_end(small, tmp_path):
    """The real runs, on a small base: their arrays go through the store, and the second takes the first one's runs."""
    asked = []

    def noted(results, run):
        asked.append(run)
        return laboratory.kept_arrays(results._store, run)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as executor:
        patch.setattr(laboratory.Results, "arrays", noted)
        first, second = (
            laboratory.experiment(name, 1, True, tmp_path, tmp_path / "store", executor, lambda line: None)
            for name in ("amplification", "subspace_ranks")
        )
    assert asked and all(run.keep for run in asked)
    assert {run_key(run) for run in asked} == {
        run_key(run) for name in ("amplification", "subspace_ranks") for run in recipe(name).runs([0, 1], True)
    }
    assert first["reused"] == 0 and len(first["runs"]) == 4
    assert second["reused"] == 1 and len(second["runs"]) == 4  # r = 64 of seed 1 was there; r = 8 and seed 2 were not
    assert {path.name for path in tmp_path.glob("*.*")} == {
        f"{name}.{end}" for name in ("amplification", "subspace_ranks") for end in ("json", "png")
    } | {"README.md"}


def test_rows_of_a_grid():
    """`by_method` and `differences` pair the seeds."""
    grid = tuned.tuned_runs(("qv_r1", "full"), [0, 1, 2], True)
    rows = tuned.by_method(MadeUpResults(grid.values()), grid, "test_accuracy", 100)
    assert rows["full"] == [100 * made_up(grid["full", seed])["test_accuracy"] for seed in (0, 1, 2)]
    assert tuned.differences([3.0, 5.0], [1.0, 7.0]) == [2.0, -2.0]
    assert rank_sweep.KEYS[-2:] == ("full", "head") and compression.LOFTQ in METHODS
