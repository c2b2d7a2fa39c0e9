"""The recipes of the experiments and their training runs."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, linear_layers, start_adapter, trainable_report
from lora_np.cli import main
from lora_np.compress import Int8Weight, NF4Weight, weight_bytes
from lora_np.data import class_batches
from lora_np.experiments import gallery, laboratory, methods, step_time, store
from lora_np.experiments.design import design_of, judged, right_answers
from lora_np.experiments.drawing import as_png, colour
from lora_np.experiments.evidence import UNKNOWN, interval
from lora_np.experiments.laboratory import runs_of
from lora_np.experiments.methods import METHODS, ON_BASE, QUICK, QV, lora
from lora_np.experiments.recipes import RECIPES, module, recipe
from lora_np.experiments.runs import BASES, classify, load_base, planted, preferences
from lora_np.experiments.runs.classify import FOLDS, WEIGHTS, ClassifyRun, load_snippets, starting_point
from lora_np.experiments.runs.dialect import DialectRun, Splits
from lora_np.experiments.runs.planted import PlantedRun
from lora_np.experiments.runs.preferences import PreferenceRun
from lora_np.experiments.runs.rewards import RewardRun
from lora_np.experiments.store import DivergedError, Results, run_key
from lora_np.formats import packaged
from lora_np.model import BertConfig, GPT2Config, LlamaConfig, initial_params, predict_logits
from lora_np.model.initial import parameter_shapes
from lora_np.ops import cross_entropy_forward
from lora_np.ops.numerical_gradient import numerical_gradient, relative_error
from lora_np.training import attach, sweep, trainable_arrays
from lora_np.training import fine_tune as training

from .tiny import copies, random_adapter, same_bits

compression, cost, dialect, learning_rate = map(module, ("compression", "cost", "dialect", "learning_rate"))
low_data, main_job, subspaces = map(module, ("low_data", "main_job", "subspaces"))
LIMIT = 24  # snippets of each split
classify_run = ClassifyRun.carry_out
FIVE = [0, 1, 2, 3, 4]
SHORT = (PreferenceRun, RewardRun)  # quick by their number of steps, not by a limit
CASES = [(name, base) for name in RECIPES for base in recipe(name).bases]
SLOW = [(name, "smollm2") for name in ("main_job", "truncation", "intruders", "amplification")]  # 21 blocks of SVDs
SLOW += [("cost", "pretrained"), ("rank_sweep", "smollm2"), ("subspaces", "smollm2")]


@pytest.fixture(scope="module")
def small_bases():
    """Random bases, wide enough for r = 64, with the shipped tokenizer; the Llama has blocks 0 to 20."""
    sizes = {"vocab_size": 8000, "n_positions": 128, "d_model": 128, "n_heads": 4, "d_ff": 128}
    configs = {
        "pretrained": GPT2Config(**sizes, n_layers=1),
        "minilm": BertConfig(**sizes, n_layers=1),
        "smollm2": LlamaConfig(**sizes, n_layers=21, n_kv_heads=2, head_size=32),
    }
    shipped, rng = load_base(), np.random.default_rng(0)
    return {base: shipped._replace(params=initial_params(of, rng), config=of) for base, of in configs.items()}


@pytest.fixture
def small(small_bases, monkeypatch):
    """Runs on small bases in the place of the real ones, and few snippets for a quick look; the small GPT."""
    for place in (classify, compression, subspaces):
        monkeypatch.setattr(place, "load_base", lambda name="pretrained": small_bases[name])
    monkeypatch.setitem(QUICK, "limit", LIMIT)
    for base in main_job.QUICK_LIMIT:
        monkeypatch.setitem(main_job.QUICK_LIMIT, base, LIMIT)
    return small_bases["pretrained"]


def small_run(adapter, seed=0, **more):
    few = {"learning_rate": 3e-3, "epochs": 1, "batch_size": 8, "evaluations": 2, "limit": LIMIT}
    return ClassifyRun(adapter, seed, **few | more)


# ---------------------------------------------------------------- runs of the classifier

ADAPTERS = {"full": None, "head": AdapterConfig(targets=()), "lora": lora(4, *QV)}
ADAPTERS |= {kind: methods.variant(kind) for kind in ("lora+", "lora-fa", "dora", "adalora")}


@pytest.mark.parametrize("method, rate", [pytest.param("full", 0.03, marks=pytest.mark.slow), ("lora", 0.01)])
def test_what_a_run_keeps_is_what_it_measured(method, rate, small):
    """The arrays are those of the best evaluation, and answers in the split's order; keeping changes no number."""
    run = small_run(ADAPTERS[method], keep=True, epochs=2, evaluations=3, learning_rate=rate)
    numbers, arrays = classify_run(run)
    assert classify_run(replace(run, keep=False)) == (numbers, {})
    params, config, start = starting_point(run)
    assert set(arrays) == set(trainable_arrays(params, start))
    assert sum(array.size for array in arrays.values()) == numbers["trainable"]
    assert len(numbers["loss"]) == len(numbers["grad_norm"]) == numbers["steps"]  # at most 50 parts
    model, attached = attach(params, start, arrays)
    for split, expected in zip(load_snippets(LIMIT)[1:3], (numbers["validation_loss"], numbers["test_loss"])):
        alone = [class_batches([ids], np.array([label]), 1, 0) for ids, label in zip(*split)]
        logits = np.concatenate([next(iter(predict_logits(model, one, config, attached)))[0] for one in alone])
        assert cross_entropy_forward(logits, split.labels, wanted=())[0] == pytest.approx(expected, rel=1e-5)
    tables = {"accuracy": {"it": [100 * numbers["test_accuracy"]]}, "right": {"it": [numbers["test_right"]]}}
    (right,) = right_answers(tables, "it")  # on the test split, which came last
    assert np.array_equal(right, logits.argmax(axis=1) == split.labels) and right.mean() == numbers["test_accuracy"]
    assert method == "full" or 0 < right.sum() < LIMIT
    evaluations = numbers["evaluations"]
    assert min(evaluations["loss"]) == pytest.approx(numbers["validation_loss"], abs=1e-6)
    assert len(evaluations["step"]) == 3 and evaluations["step"][-1] == numbers["steps"] == 2 * LIMIT // 8


def test_the_best_evaluation_is_that_of_the_least_loss(small, monkeypatch):
    """There are two evaluations an epoch, unless a run says otherwise; the test is of the arrays that are kept."""
    pairs = [(0.1, 0.9), (0.6, 0.8), (0.7, 0.6), (0.5, 0.7)]  # the first is of a model above its budget
    scores, seen = iter(pairs), []

    def evaluate(params, batches, config, adapter, *more):
        seen.append(copies(adapter.weights))
        return dict(zip(("loss", "accuracy"), next(scores)))

    def score(params, adapter, *more):
        seen.append(copies(adapter.weights))
        return {"loss": 0.0, "accuracy": 1.0, "right": np.ones(8, dtype=bool)}

    monkeypatch.setattr(training, "evaluate", evaluate)
    monkeypatch.setattr(classify, "score", score)
    numbers, arrays = classify_run(small_run(ADAPTERS["adalora"], keep=True, epochs=2, batch_size=6, evaluations=None))
    evaluations = numbers["evaluations"]
    assert list(zip(evaluations["loss"], evaluations["accuracy"])) == pairs and numbers["validation_loss"] == 0.5
    kept = {name: arrays[name] for name in seen[0]}
    assert [same_bits(judged, kept) for judged in seen] == [False, False, False, True, True]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("method", ["full", "lora", "adalora"])
def test_a_run_that_diverges_is_a_result(method, small):
    """With no loss and nothing that was trained."""
    run = small_run(ADAPTERS[method], learning_rate=1e30, keep=True)
    made, numbers, arrays = store.carry_out_here(run)
    assert made == store.made_with(run.__module__) and arrays == {}
    assert set(numbers) == {"validation_loss", "diverged", "seconds"} and numbers["seconds"] > 0
    assert numbers["validation_loss"] is None and "became NaN" in numbers["diverged"]


def recorded(monkeypatch):
    """A list that every training batch's token ids are noted in from now on."""
    seen, honest = [], {name: getattr(training, name) for name in ("model_objective", "head_objective")}

    def recording(name, *arguments):
        objective = honest[name](*arguments)

        def noted(trainable, batch, rng):
            seen.append((batch.ids.tolist(), batch.targets.tolist()))
            return objective(trainable, batch, rng)

        return noted

    for name in honest:
        monkeypatch.setattr(training, name, partial(recording, name))
    return seen


def test_a_run_is_a_function_of_its_settings_and_every_method_sees_the_same_batches(small, monkeypatch):
    """And starts from the same head; another seed, from another, with other batches."""
    seen, starts, results = recorded(monkeypatch), {}, []
    for seed in (0, 1):
        for adapter in ADAPTERS.values():
            seen.clear()
            run = small_run(adapter, seed, epochs=2, keep=True)
            results.append((run, *classify_run(run)))
            batches, head = starts.setdefault(seed, (list(seen), starting_point(run)[0]["head.weight"]))
            assert seen == batches and np.array_equal(starting_point(run)[0]["head.weight"], head)
    (batches, head), (others, another) = starts.values()
    assert len(batches) == 6 and batches[:3] != batches[3:]
    assert batches != others and not np.array_equal(head, another)
    for run, numbers, arrays in results[: len(ADAPTERS)]:
        again, arrays_again = classify_run(run)
        assert json.loads(json.dumps(numbers)) == numbers == again and same_bits(arrays, arrays_again)


def test_examples_are_drawn_by_the_seed(small, monkeypatch):
    head, draw = small_run(ADAPTERS["head"], examples=8, epochs=2, batch_size=1), classify.training_rows
    rows = draw(head, LIMIT)
    assert len(set(rows)) == 8 and set(rows) < set(range(LIMIT))
    assert np.array_equal(draw(replace(head, adapter=None), LIMIT), rows)
    assert any(set(draw(replace(head, seed=seed), LIMIT)) != set(rows) for seed in (1, 2))
    assert np.array_equal(draw(small_run(None), LIMIT), np.arange(LIMIT))
    with pytest.raises(ValueError, match="examples: got 25, expected at most 24"):
        classify_run(small_run(None, examples=LIMIT + 1))
    # Those are what is trained on, in every epoch.
    seen, task = recorded(monkeypatch), load_snippets(LIMIT).train
    assert classify_run(head)[0]["steps"] == 16
    expected = sorted(([task.sequences[row].tolist()], [int(task.labels[row])]) for row in rows)
    assert sorted(seen[:8]) == sorted(seen[8:]) == expected


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_compressed_base_stays_as_it_was(weights, small, monkeypatch):
    """Training neither thaws a quantised layer nor fills a pruned weight, and touches no array of the base."""
    shipped, before = small[0], copies(small[0])
    run = small_run(lora(4, "all-linear"), weights=weights, keep=True)
    (params, *_), fresh = start = starting_point(run), classify.compressed(before, weights)
    monkeypatch.setattr(classify, "starting_point", lambda run: start[0])
    numbers, arrays = classify_run(run)
    kind = {"nf4": NF4Weight, "int8": Int8Weight}.get(weights, np.ndarray)
    for name in (f"{layer}.weight" for layer in linear_layers(shipped)):
        now = np.asarray(params[name])
        assert type(params[name]) is kind and np.array_equal(now, np.asarray(fresh[name]))
        if weights == "pruned 50 %":
            assert np.mean(now == 0) == 0.5
        if weights == "pruned 2:4":
            assert np.array_equal((now.reshape(-1, 4) == 0).sum(axis=1), np.full(now.size // 4, 2))
    assert same_bits(shipped, before)
    assert weights != "dense" or all(params[name] is array for name, array in shipped.items())
    assert all(name == "head.weight" or ".lora_" in name for name in arrays)
    dense = weight_bytes(starting_point(small_run(lora(4, "all-linear")))[0])
    assert numbers["base_bytes"] == weight_bytes(params) and (weight_bytes(params) < dense) == (kind is not np.ndarray)


def test_an_unknown_base_is_refused():
    for field, value, names in (("weights", "nf5", ", ".join(WEIGHTS)), ("base", "gpt5", ", ".join(BASES))):
        with pytest.raises(ValueError, match=f"{field}: got '{value}', expected one of {names}"):
            ClassifyRun(None, 0, 1e-3, **{field: value})


@pytest.mark.slow
def test_the_snippets_are_what_the_splits_hold():
    snippets = load_snippets()
    assert [len(split.labels) for split in snippets[:3]] == [6528, 1000, 1000]
    assert max(len(sequence) for sequence in snippets.train.sequences) <= classify.MAX_LENGTH


def test_every_snippet_is_tested_in_one_fold():
    """And trained on in the seven others; the validation snippets are never trained or tested on."""
    whole, folds = classify.split_reviews(), [classify.split_reviews(fold) for fold in range(FOLDS)]
    tested = [text for split in folds for text in split.test.texts]
    pool = {*whole.train.texts, *whole.test.texts}
    assert len(tested) == len(pool) == 7528 and set(tested) == pool
    labels = dict(zip(whole.train.texts + whole.test.texts, [*whole.train.labels, *whole.test.labels]))
    for train, validation, test in folds:
        assert {*train.texts} == pool - {*test.texts} and len(test.texts) == 941
        assert validation.texts == whole.validation.texts and not pool & {*validation.texts}
        assert all(labels[text] == label for part in (train, test) for text, label in zip(*part))


def test_a_seed_has_its_fold(small):
    for seed in (3, FOLDS + 3):
        run = small_run(ADAPTERS["head"], seed, base="minilm", folds=True)
        assert run.snippets() is load_snippets(LIMIT, "minilm", 3)
    assert small_run(ADAPTERS["head"], 3).snippets() is load_snippets(LIMIT, "pretrained", None)


def test_the_test_split_is_not_read_while_rates_are_chosen(small, monkeypatch):
    snippets = load_snippets(LIMIT)
    monkeypatch.setattr(classify, "load_snippets", lambda *_: snippets._replace(test=None))
    numbers, _ = classify_run(small_run(ADAPTERS["head"], test=False))
    assert "validation_loss" in numbers and not any(name.startswith("test") for name in numbers)
    with pytest.raises(TypeError):
        classify_run(small_run(ADAPTERS["head"]))


# ---------------------------------------------------------------- runs with a planted rank


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_teacher_differs_by_a_matrix_of_rank_k(k):
    student, teacher = planted.planted_model(k, seed=0)
    change = {name: teacher[name] - student[name] for name in student}
    sigma = np.linalg.svd(change.pop(f"{planted.LAYER}.weight"), compute_uv=False)
    assert np.allclose(sigma[:k], 2.0) and np.all(sigma[k:] < 1e-12)
    assert not any(array.any() for array in change.values())
    assert {array.dtype for array in student.values()} == {np.dtype(np.float64)}
    assert not same_bits(student, planted.planted_model(k, seed=1)[0])


def test_the_loss_drops_at_the_planted_rank():
    """120 steps are enough to see it at k = 2: r = 1 leaves half of the change, r = 2 nothing."""
    below, at = (PlantedRun(2, r, seed=0, steps=120).carry_out()[0] for r in (1, 2))
    assert below["base_loss"] == at["base_loss"] > 0.01
    assert below["test_loss"] > 0.2 * below["base_loss"]
    assert at["test_loss"] < module("planted_rank").FOUND_BELOW * at["base_loss"]


def test_gradients_of_the_squared_error():
    """By central differences, in float64 and at B ≠ 0."""
    student, teacher = planted.planted_model(2, seed=0)
    rng = np.random.default_rng(0)
    batch = planted.labelled(rng.integers(0, 64, (3, 16)), teacher)
    adapter = random_adapter(student, r=2, alpha=2.0, targets=(planted.LAYER,), train_head=False)

    def error(wanted=(), **changed):
        return planted.squared_error(student, batch, adapter._replace(weights=adapter.weights | changed), wanted)

    grads = error(tuple(adapter.weights)).grads
    assert set(grads) == set(adapter.weights)
    for name, array in adapter.weights.items():
        measured = numerical_gradient(lambda moved, name=name: error(**{name: moved}).loss, array)
        assert relative_error(grads[name], measured) < 1e-7


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name, base", CASES)
def test_the_runs_of_a_recipe(name, base):
    """Of known kinds, none listed twice, every method from every seed, and shorter for a quick look."""
    whole, quick = (list(runs_of(name, *of, base).values()) for of in ((FIVE, False), ([0, 1], True)))
    assert {type(run) for run in whole + quick} <= {ClassifyRun, DialectRun, PlantedRun, PreferenceRun, RewardRun}
    assert len({run_key(run) for run in whole}) == len(whole)
    json.dumps([run_key(run) for run in whole])
    assert bool(whole) == bool(quick) == (name != "cost")
    assert all(getattr(run, "limit", 0) is not None for run in quick)
    assert all(run.steps < type(run)("full", 0, 0, 0).steps for run in quick if isinstance(run, SHORT))
    tuned = name == "learning_rate" and base == "smollm2"  # made of the runs that chose the rates
    for run in whole:
        if isinstance(run, ClassifyRun):
            assert ON_BASE[run.base].items() <= vars(run).items()
        if isinstance(run, ClassifyRun) and run.examples is None:
            assert run.epochs == (main_job.PASSES[run.base] if name == "main_job" else 1) and run.evaluations is None
        assert getattr(run, "base", base) == base
        assert tuned or run.seed in FIVE or name == "subspaces"
        assert getattr(run, "limit", None) is None or isinstance(run, DialectRun)
        assert getattr(run, "test", True) == (name != "learning_rate")


def test_recipes_share_their_runs():
    """Runs with the same settings are the same run for every recipe, and so are carried out once."""
    kept = {}  # run -> whether the first recipe that has it keeps its arrays: then nothing is run again for them
    for name, base in CASES:
        for run in runs_of(name, FIVE, False, base).values():
            keeps = getattr(run, "keep", False)
            assert kept.setdefault((base, run_key(run)), keeps) >= keeps, (name, base)


def test_a_methods_run_is_at_its_rate():
    rate = methods.learning_rate
    some = methods.tuned_runs(["all_r8"], [3], base="minilm", **methods.FEW[100])["all_r8", 3]
    fields = {"base": "minilm", "batch_size": 16, "folds": True, "examples": 100, "epochs": 12, "evaluations": 2}
    expected = ClassifyRun(lora(8, "all-linear"), 3, rate("all_r8", base="minilm", examples=100), keep=True, **fields)
    assert some == expected != methods.tuned_runs(["all_r8"], [3], base="minilm")["all_r8", 3]
    other = methods.tuned_runs(["qv_r8"], [0], base="smollm2", tuned_on=2000)["qv_r8", 0]
    assert other.learning_rate == rate("qv_r8", base="smollm2", examples=2000) and other.examples is None
    grid = methods.tuned_runs(("qv_r1", "lora"), [0, 5], weights="nf4")
    assert list(grid) == [("qv_r1", 0), ("qv_r1", 5), ("lora", 0), ("lora", 5)]
    assert grid["qv_r1", 5] == ClassifyRun(lora(1, *QV), 5, rate("qv_r1"), weights="nf4", keep=True)
    assert lora(6, "q_proj").alpha == 12.0


def test_the_budgets_are_equal():
    """As the recipe's method says, for shapes as of MiniLM's six blocks and SmolLM2's thirty."""
    sizes = {"vocab_size": 1, "n_positions": 1, "n_heads": 9, "d_ff": 1536}
    configs = {
        "minilm": BertConfig(**sizes | {"n_heads": 12}, d_model=384, n_layers=6),
        "smollm2": LlamaConfig(**sizes, d_model=576, n_layers=30, n_kv_heads=3, head_size=64),
    }

    def trained(base):
        """How many parameters each method trains in a base's blocks."""
        zeros = {name: np.broadcast_to(np.float32(0), of) for name, of in parameter_shapes(configs[base]).items()}
        for key in recipe("matrices").keys[base]:
            if key != "full":
                adapter = replace(METHODS[key].adapter, train_head=False)
                _, start = start_adapter(zeros, adapter, np.random.default_rng(0))
                yield trainable_report(zeros, trainable_arrays(zeros, start)).trainable

    *attention, mlp = trained("minilm")
    assert set(attention) == {6 * 16 * 768} and mlp == 6 * 3 * 2 * (384 + 1536)
    *attention, mlp = trained("smollm2")
    assert set(attention) == {30 * 23_040} and mlp == 30 * 23_232


@pytest.mark.parametrize("best", [6e-4, 1e-3, 3.9e-3])
def test_best_rate_is_where_the_parabola_is_lowest(best):
    tried = [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3]
    losses = [0.5 + 0.02 * np.log(rate / best) ** 2 for rate in tried]
    assert learning_rate.best_rate(tried, losses) == (pytest.approx(best, rel=1e-6), False)
    # A rate that diverged is worse than any: the best is no end, and what is far from it does not count.
    assert learning_rate.best_rate(tried, [*losses, None]) == learning_rate.best_rate(tried, [*losses, 9.0])


AT_AN_END = [([1, 2, 3, 4, 5, 6], 0), ([6, 5, 4, 3, 2, 1], 5), ([0.5] * 6, 0), ([None] * 6, 0)]
NEXT_TO_NONE = [([5, 4, 3, 2, None, None], 3), ([5, 4, 3, 2, 1, None], 4), ([None, 1, 2, 3, 4, 5], 1)]


@pytest.mark.parametrize("losses, place", AT_AN_END + NEXT_TO_NONE)
def test_best_rate_without_a_parabola_is_one_that_was_tried(losses, place):
    """At an end, or because no parabola goes through a rate that diverged."""
    tried = [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3]
    assert learning_rate.best_rate(tried, losses) == (tried[place], (losses, place) in AT_AN_END)


# ---------------------------------------------------------------- measures and figures of every recipe


def made_up(run):
    """A run's numbers without the run; full fine-tuning on a dialect learns more, and high ranks forget more."""
    rng = np.random.default_rng(list(run_key(run).encode()))
    if isinstance(run, PlantedRun):
        return {"base_loss": 0.1, "test_loss": 0.1 * (1e-5 if run.r >= run.k else 0.5), "seconds": 0.0}
    numbers = {"trainable": 100, "validation_loss": 0.5 + 0.1 * rng.random(), "seconds": 0.0}
    if isinstance(run, RewardRun):
        paths = {name: rng.random(4).tolist() for name in ("reward", "judge", "distinct")}
        return numbers | paths | {"divergence": [0.0, 0.4, 0.8, 1.2]}
    if isinstance(run, PreferenceRun):
        names = "last_validation_loss", "test_loss", "in_order", "preferred", "rejected"
        return numbers | dict(zip(names, rng.random(5).tolist()))
    numbers["percent"] = 1.0
    if isinstance(run, DialectRun):
        far = np.log(201 if run.method == "full" else 1 + int(run.method.split("_")[1].removeprefix("r")))
        test = {"new": 4.5 - 0.1 * far + 0.01 * rng.random(), "old": 4.3 + 0.05 * far + 0.01 * rng.random()}
        test["removed_bit_for_bit"] = None if run.method == "full" else True
        return numbers | {"steps": 3, "base_untouched": True, "moved": run.learning_rate} | test
    numbers |= {
        "steps": 3, "base_bytes": 1000, "loss": rng.random(3).tolist(), "grad_norm": rng.random(3).tolist(),
        "evaluations": {"step": [1], "loss": [0.5], "accuracy": [0.7]},
    }  # fmt: skip
    if run.test:
        right = rng.random(LIMIT) < 0.7
        numbers |= {"test_accuracy": float(right.mean()), "test_loss": 0.5 + 0.1 * rng.random()}
        numbers["test_right"] = np.packbits(right).tobytes().hex()
    return numbers


class MadeUpResults(Results):
    """Made-up numbers of the runs, and arrays near its start of one that keeps them.

    `other` is a function of a run: a dict of the numbers that are other than made up, those of a run that diverged in
    place of all; `change` is a function of a run and its arrays, which gives others.
    """

    def __init__(self, runs, other=lambda run: {}, change=lambda run, arrays: arrays):
        self.change = change
        self.runs = {run_key(run): run for run in runs.values()}
        others = {key: other(run) for key, run in self.runs.items()}
        super().__init__(None, {k: o if "diverged" in o else made_up(self.runs[k]) | o for k, o in others.items()})

    def arrays(self, run):
        assert self[run] and self.runs[run_key(run)].keep, "asks for the arrays of a run that does not keep them"
        params, _, start = starting_point(run)
        rng = np.random.default_rng(run.seed)
        near = trainable_arrays(params, start).items()
        arrays = {name: array + 0.1 * rng.standard_normal(array.shape).astype(array.dtype) for name, array in near}
        return self.change(run, arrays)

    def file_bytes(self, run):
        return 4 * self[run]["trainable"]


def outcome_of(name, seeds, quick, *other, base=None, **change):
    """What an experiment's JSON contains for made-up results of its own runs, as far as it depends on the runs."""
    base = base or recipe(name).bases[0]
    runs = runs_of(name, seeds, quick, base)
    results = MadeUpResults(runs, *other, **change)
    design = design_of(recipe(name), base)._asdict()
    outcome = {
        "base": base,
        "seeds": seeds,
        "design": design,
        "runs": json.loads(json.dumps(results.listed(runs.values()))),
    }
    outcome |= recipe(name).measure(results, runs, seeds, quick)
    return outcome | {"comparisons": judged(recipe(name), outcome)}


@pytest.fixture
def without_clock(small, monkeypatch):
    """What the main job, the dialect and the costs measure besides runs is made up too; runs are in a thread."""
    several = {"prompts": ["a", "b"], "texts": {name: ["a " + name, "b and " * 40] for name in "cdef"}}
    made_up = {
        (main_job, "tfidf_baseline"): lambda limit, fold: np.arange(LIMIT) % 4 > 0,
        (main_job, "compare_step_times"): lambda repeats, keys, base: {key: {"seconds": 0.1} for key in keys},
        (dialect, "base_loss"): lambda *_: 4.6,
        (dialect, "load_domain"): lambda *_: Splits(*np.zeros((3, 9), dtype=np.int64)),
        (dialect, "licences_digest"): lambda: "0",
        (dialect, "samples"): lambda: several,
        (sweep, "open_executor"): lambda *_: ThreadPoolExecutor(1),
        (cost, "load_snippets"): lambda: load_snippets(64),
        (cost, "peak_of_step"): lambda start, batch: 10**6,
        (step_time, "alternating_times"): alternating,
    }
    for place, function in made_up.items():
        monkeypatch.setattr(*place, function)


def alternating(starts, batch, rounds):
    assert batch.ids.shape[0] == 32
    return {name: ([2.0 + i, 9.0, 1.0], [1.0 + i] * 3) for i, name in enumerate(starts)}


@pytest.mark.slow
def test_made_up_numbers_are_those_of_a_run(small, monkeypatch):
    monkeypatch.setattr(preferences, "OTHERS", 8)
    runs = [DialectRun("critics", "lora_r4", 0, 1e-3, 1, limit=300), small_run(None), small_run(None, test=False)]
    runs += [
        PlantedRun(1, 1, 0, steps=2),
        RewardRun("full", 0, 1e-3, steps=4),
        PreferenceRun("full", 16, 0, 1e-3, steps=5),
    ]
    for run in runs:
        assert set(made_up(run)) == set(run.carry_out()[0]) | {"seconds"}


@pytest.mark.parametrize("seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name, base", [pytest.param(*case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES]
)
def test_measured_and_drawn(name, base, seeds, without_clock, tmp_path):
    """From made-up results of its own runs: checks that the gallery shows, and a figure that the JSON alone gives."""
    of, seeds = recipe(name), list(range(seeds))
    outcome = outcome_of(name, seeds, True, base=base)
    parts = outcome["comparisons"]
    assert len({part["statement"] for part in parts}) == len(parts)
    tested = any(getattr(run, "test", False) for run in runs_of(name, seeds, True, base).values())
    for part in parts:
        assert np.all(np.isfinite(part["values"])) and (part["margin"] is None) == (part["unit"] == "times")
        assert len(seeds) > 1 or part["verdict"] == UNKNOWN
        if part["unit"] == "points" and base == "minilm" and tested:
            assert part["margin"] == 1.0 and (part["low"] is not None or len(seeds) == 1)
    assert parts[0]["statement"] == outcome["design"]["statement"]
    read = json.loads(json.dumps(outcome))
    assert read == json.loads(json.dumps(outcome)) and judged(of, read) == parts
    for draw in of.draw.values():
        figure = draw(read)
        assert any(axes.has_data() or axes.texts for axes in figure.axes)
        assert all(axes.has_data() or axes.texts for axes in figure.axes if axes.get_title())
        assert len(seeds) == 1 or as_png(draw, read) == as_png(draw, outcome)
        # For a projector: at most four legend entries in a panel or below the panels.
        legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
        assert all(len(legend.get_texts()) <= 4 for legend in legends)
        shown = " ".join([figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)])
        if "(mean over" not in shown:
            one = ("one seed)", "one seed; ", "(one pair")
            assert any(text in shown for text in one) == (len(seeds) == 1)
    outcome |= {"command": "", "quick": True, "seconds": 0.0, "reused": 0}
    outcome["versions"] = {"lora_np": "", "numpy": "", "python": "", "machine": ""}
    outcome["made_with"] = store.made_with(*{run.__module__ for run in runs_of(name, seeds, True, base).values()})
    lines = gallery.section(name, base, outcome)
    rows = [line for line in lines if line.startswith("|")]
    tables = [len(rows_of(outcome)) + 1 for rows_of in (of.table, of.details) if rows_of is not None]
    assert len(rows) == 2 + len(parts) + sum(tables) and f"**{of.finding(outcome)}**" in lines
    assert "nan" not in of.finding(outcome)


@pytest.mark.parametrize("name", ["matrices", "rank_sweep"])
def test_a_figure_has_its_methods_numbers(name, small):
    """In a row each, or along a line."""
    measured = outcome_of(name, [0, 1], True)
    axes = recipe(name).draw[name](measured).axes[0]
    if name == "matrices":
        labels = [label.get_text() for label in axes.get_yticklabels()]
        points = [line.get_data() for line in axes.lines if line.get_marker() == "o"]
        expected = {METHODS[key].label: of_key for key, of_key in measured["accuracy"].items()}
        assert {labels[y[0]]: list(x) for x, y in points} == {label: expected[label] for label in labels}
        return
    lines = {line.get_label(): line.lines[0].get_data() for line in axes.containers}
    for label, placement in (("LoRA on q and v", "qv"), ("LoRA on all linear layers", "all")):
        ranks, means = lines[label]
        expected = [np.mean(measured["accuracy"][f"{placement}_r{r:g}"]) for r in ranks]
        assert means.tolist() == pytest.approx(expected)


LORA_AND_FULL = ("critics", "lora_r16"), ("critics", "full")
SLOW = ", half the rate"
HALF = ("licences", "lora_half"), ("licences", "full_half")
ALL = "LoRA all linear"
WIRING = [  # recipe, how a comparison's statement begins, the two methods whose difference it is, and of what
    ("main_job", "LoRA all linear r=8 − full fine-tuning: test a", "all_r8", "full", "test_accuracy"),
    ("main_job", "LoRA all linear r=8 − full fine-tuning: test l", "all_r8", "full", "test_loss"),
    ("rank_sweep", "LoRA q,v r=64 − LoRA q,v r=1", "qv_r64", "qv_r1", "test_accuracy"),
    ("rank_sweep", "LoRA all linear r=64 − LoRA all linear r=1", "all_r64", "all_r1", "test_accuracy"),
    ("matrices", "LoRA q,v r=8 − LoRA q r=16", "qv_r8", "q_r16", "test_accuracy"),
    ("matrices", "LoRA q,v r=8 − LoRA k r=16", "qv_r8", "k_r16", "test_accuracy"),
    ("matrices", "LoRA up,down r=3 − LoRA q,v r=8", "mlp_r3", "qv_r8", "test_accuracy"),
    ("dialect", f"critics' snippets: {ALL} r=16 − full fine-tuning: loss on reviews", *LORA_AND_FULL, "old"),
    ("dialect", f"critics' snippets: {ALL} r=16 − full fine-tuning: loss on the new", *LORA_AND_FULL, "new"),
    ("dialect", f"software licences: {ALL} r=16{SLOW} − full fine-tuning{SLOW}: loss on reviews", *HALF, "old"),
    ("low_data", f"100 snippets, {ALL} r=8 − full", ("all_r8", 100), ("full", 100), "test_accuracy"),
    ("low_data", f"1,000 snippets, {ALL} r=8 − full", ("all_r8", 1000), ("full", 1000), "test_accuracy"),
    ("low_data", f"100 snippets, {ALL} r=8 − head", ("all_r8", 100), ("head", 100), "test_accuracy"),
    ("variants", "DoRA − LoRA", "dora", "qv_r8", "test_accuracy"),
    ("compression", "LoRA (base: NF4) − LoRA (base: dense)", "nf4", "dense", "test_accuracy"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name, statement, first, second, field", WIRING)
def test_a_check_is_of_what_it_says(name, statement, first, second, field, without_clock):
    base = {"main_job": "minilm", "dialect": "pretrained"}.get(name, recipe(name).bases[0])
    quick = name != "main_job"  # the quick main job has other methods
    runs, measured = runs_of(name, [0, 1], quick, base), outcome_of(name, [0, 1], quick, base=base)

    def values(key):
        key = (key,) if isinstance(key, str) else key
        numbers = [made_up(runs[(*key, seed)]) for seed in (0, 1)]
        return np.array([n[field] for n in numbers])

    (part,) = (part for part in measured["comparisons"] if part["statement"].startswith(statement))
    factor = 100 if field == "test_accuracy" else 1
    assert part["values"] == pytest.approx(factor * (values(first) - values(second)))
    if name == "low_data":
        figure = low_data.draw(measured)
        x = [bars.lines[0].get_xdata() for bars in figure.axes[0].containers]
        assert x[1].tolist() == [10, 100, 1000, 6587]


def diverged(run):
    return {"validation_loss": None, "diverged": "the loss became NaN at step 7", "seconds": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name, base", [c for c in CASES if c[0] not in ("learning_rate", "planted_rank", "cost")])
def test_a_diverged_run_is_said_by_name(name, base, without_clock):
    runs = runs_of(name, [0, 1], True, base)
    bad = next(run for run in list(runs.values())[::-1] if run.seed % 1000 == 1)
    with pytest.raises(DivergedError, match=f"seed {bad.seed}, .*: the loss became NaN at step 7"):
        outcome_of(name, [0, 1], True, lambda run: diverged(run) if run == bad else {}, base=base)


def test_rates_at_which_training_diverges_are_no_rates(small):
    """They are left out of the figure, and no best rate is there; a best rate at an end is said."""
    seeds = [0, 1, 2]
    lowest = {"full": 1e-4, "all_r8": 1e-3}
    grid = learning_rate.runs(seeds, False)
    keys = {run_key(run): key for (key, _, _), run in grid.items()}

    def measured_with(bottom):
        def loss(run):
            far = np.log2(run.learning_rate / bottom[keys[run_key(run)]])
            return diverged(run) if far > 1.5 else {"validation_loss": 0.5 + 0.01 * far**2 + 1e-5 * run.seed}

        return outcome_of("learning_rate", seeds, False, loss)

    measured = measured_with(lowest)
    assert measured["at_an_end"] == dict.fromkeys(lowest, 0)
    assert all(measured["best"][key] == pytest.approx([rate] * 3) for key, rate in lowest.items())
    assert measured["comparisons"][0]["claim"] == "agrees" and "is 10 times" in recipe("learning_rate").finding(
        measured
    )
    assert measured["losses"]["full"]["0.0004"] == [None] * 3
    figure = learning_rate.draw(json.loads(json.dumps(measured)))
    assert [2.5e-5, 5e-5, 1e-4, 2e-4] in [list(line.get_xdata()) for line in figure.axes[0].lines]
    measured = measured_with(lowest | {"all_r8": 1.1e-4})
    assert measured["at_an_end"] == {"full": 0, "all_r8": 3} and measured["comparisons"][0]["verdict"] == UNKNOWN
    assert "(In 3 cases, it was the lowest or highest rate" in recipe("learning_rate").finding(measured)


@pytest.mark.parametrize(
    "base, seeds", [("minilm", list(range(8))), ("minilm", [0]), ("minilm", FIVE), ("smollm2", FIVE)]
)
def test_pairs_of_seeds_share_no_training(base, seeds):
    """The runs of a pair have different seeds, and no run has two partners in one table."""
    runs = subspaces.runs(seeds, False, base)
    for name, (first, second) in subspaces.PAIRS.items():
        chosen = seeds if name == "ranks" or base == "smollm2" else seeds[: len(seeds) // 2 * 2 or 1 : 2]
        pairs = [(seed, subspaces.partner(seed, seeds, base)) for seed in chosen]
        used = [(f"qv_r{r}", seed) for pair in pairs for r, seed in zip((first, second), pair)]
        assert len(set(used)) == len(used) == 2 * len(pairs) and {*used} <= runs.keys()
        assert all(one != other for one, other in pairs)
    assert all(run.seed == seed and key == f"qv_r{run.adapter.r}" for (key, seed), run in runs.items())


def test_tables_over_pairs(small):
    """The mean of the tables, and of each pair φ(n, n); an adapter with itself has φ(n, n) = 1."""
    rng = np.random.default_rng(0)
    names = [f"blocks.0.attn.{layer}" for layer in (*subspaces.LAYERS, "k_proj")]

    def trained(r):
        shapes = {"lora_A": (r, 40), "lora_B": (40, r)}
        return {f"{name}.{leaf}": rng.standard_normal(shape) for leaf, shape in shapes.items() for name in names}

    first, wide = trained(3), trained(5)
    for what in subspaces.WHAT:
        for layer in subspaces.LAYERS:
            same = subspaces.mean_table(what, layer, (first, first), (3, 3))
            assert np.diagonal(same) == pytest.approx(1.0, abs=1e-4)
            assert subspaces.mean_table(what, layer, (first, wide), (3, 5)).shape == (3, 5)
    outcome = outcome_of("subspaces", [0, 1, 2, 3], True)
    assert np.shape(outcome["tables"]["ranks"]["equal"]["A"]["q_proj"]) == (4, 8)
    assert np.shape(outcome["tables"]["seeds"]["equal"]["ΔW"]["v_proj"]) == (2, 64)
    # The figure's right column is what chance gives on average, max(i, j)/C, the same every time.
    figure = subspaces.draw(outcome)
    chance = [axes.images[0].get_array() for axes in figure.axes if axes.get_title().startswith("random")]
    expected = np.maximum.outer(np.arange(1, 9), np.arange(1, 65)) / outcome["dimension"]
    assert len(chance) == 2 and all(np.allclose(table, expected) for table in chance)
    main = outcome["comparisons"][0]["values"]
    of_a = [outcome["tables"]["ranks"]["equal"]["A"][layer] for layer in subspaces.LAYERS]
    assert main == pytest.approx(np.array(of_a)[:, :, 0].mean(axis=0) - 0.5)


def test_an_update_of_noise_amplifies_nothing(small):
    """Of a Gaussian ΔW the claim does not hold: its directions are random ones, its factor is what chance gives."""

    def noise(run, arrays):
        rng = np.random.default_rng(run.seed)
        return {name: rng.standard_normal(array.shape) for name, array in arrays.items()}

    measured = outcome_of("amplification", FIVE, True, change=noise)
    for r, of_r in measured["measured"].items():
        start = f"r = {r}: ‖W‖ in ΔW's directions / ‖W‖ in random"
        (part,) = (part for part in measured["comparisons"] if part["statement"].startswith(start))
        assert part["low"] < 1.0 < part["high"] and part["claim"] is None
        for name, of in (("factor", "update"), ("chance_factor", "random")):
            assert of_r[name] == [a / b for a, b in zip(of_r["update_norm"], of_r[of])]
        assert abs(np.log(np.divide(of_r["factor"], of_r["chance_factor"])).mean()) < 0.25
        assert min(of_r["factor"]) > 1.0  # which by itself says nothing: a large ΔW of noise has it too
    of_8 = measured["measured"]["8"]
    assert measured["comparisons"][0]["values"] == pytest.approx(np.divide(of_8["update"], of_8["random"]))


def test_compressed_bases_and_what_merging_into_one_loses(small):
    measured = outcome_of("compression", [0, 1], True)
    merged, sizes = measured["merged"], measured["linear_bytes"]
    lost = next(part for part in measured["comparisons"] if part["statement"].startswith("LoRA merged into NF4"))
    assert lost["values"] == pytest.approx(np.subtract(merged["accuracy"], measured["accuracy"]["nf4"]))
    assert all(len(values) == 2 for values in merged.values()) and min(merged["update_lost"]) > 0
    assert sizes["nf4"] < sizes["int8"] < sizes["dense"] == sizes["pruned 50 %"] == sizes["pruned 2:4"]


@pytest.mark.slow
def test_costs_are_counted_and_set_beside_full(without_clock):
    """Bytes and FLOPs are counted; of the times, which are made up, the ratios to full fine-tuning's are right."""
    of = cost.measure(None, {}, [0, 1], True)["measured"]
    names = ["full", "q,v r=8", "q,v r=8, NF4", *(f"all r={r}" for r in cost.QUICK_RANKS)]
    assert list(of) == names
    for i, name in enumerate(names):
        assert of[name]["step_ratio"] == [(2.0 + i) / 2.0] * 2 and of[name]["passes_ratio"] == [1.0 + i] * 2
    for what in ("flops", "bytes"):
        assert of["all r=1"][what][0] < of["all r=16"][what][0] < of["full"][what][0]
    assert of["q,v r=8, NF4"]["bytes"][0] < of["q,v r=8"]["bytes"][0]
    assert of["q,v r=8, NF4"]["flops"] == of["q,v r=8"]["flops"]


@pytest.mark.slow
def test_costs_are_really_measured(small, monkeypatch):
    monkeypatch.setattr(cost, "load_snippets", lambda: load_snippets(64))
    of = cost.measure(None, {}, [0], True)["measured"]
    for method in of.values():
        assert 0 < method["passes"][0] < method["step"][0]
        assert 0.3 < method["peak"][0] / method["bytes"][0] < 3.0
    assert of["q,v r=8"]["peak"][0] < of["full"]["peak"][0]


def test_a_truncated_update_of_full_rank_is_the_whole(small, monkeypatch):
    """The measure of truncation reads what full fine-tuning trained: cut to rank 128 of 128, nothing is lost."""
    narrow = replace(recipe("truncation"), keys={"minilm": ("full", "all_r1", "all_r8")})
    monkeypatch.setattr(module("truncation"), "RECIPE", narrow)
    monkeypatch.setitem(module("truncation").CUTS, "minilm", (0, 1, 8, 128))
    full = runs_of("truncation", [0], False, "minilm")["full", 0]
    full = replace(full, limit=LIMIT)
    numbers, trained = classify_run(full)
    key = run_key(replace(full, limit=None))
    other = [lambda run: numbers if run_key(run) == key else {}]
    change = {"change": lambda run, arrays: trained if run_key(run) == key else arrays}
    monkeypatch.setattr(ClassifyRun, "snippets", lambda run: load_snippets(LIMIT, "minilm", run.seed % FOLDS))
    measured = outcome_of("truncation", [0], False, *other, **change)
    assert set(measured["cut"]) == {"0", "1", "8", "128"}
    assert measured["cut"]["128"]["accuracy"] == measured["accuracy"]["full"] == [100 * numbers["test_accuracy"]]
    assert measured["cut"]["128"]["loss"] == pytest.approx([numbers["test_loss"]], rel=1e-5)
    difference = measured["cut"]["8"]["accuracy"][0] - 100 * numbers["test_accuracy"]
    assert measured["comparisons"][0]["values"] == [difference]
    for key, r in {"all_r1": 1, "all_r8": 8}.items():
        assert measured["energy"][key][0][r - 1] == pytest.approx(1.0, abs=1e-4)
        assert measured["rank_90"][key][0] <= r < measured["rank_90"]["full"][0] + r


def test_planted_ranks_that_are_found_and_intruders_a_matrix():
    """The smallest rank whose loss is below a thousandth, or none; directions below ε, strictly, as a mean."""
    measured = outcome_of("planted_rank", [0, 1], True)
    assert measured["found"] == {"1": [1, 1], "2": [2, 2]} and measured["comparisons"][0]["claim"] == "agrees"
    measured = outcome_of("planted_rank", [0, 1], True, lambda run: {"test_loss": 0.09} if run.k == 2 else {})
    assert measured["found"] == {"1": [1, 1], "2": [None, None]}
    assert measured["comparisons"][0]["claim"] == "contradicts" and "in 2 of 4" in recipe("planted_rank").finding(
        measured
    )
    similarities, count = [[0.4, 0.9, 0.1], [0.5, 0.6, 0.7]], module("intruders").intruders_a_matrix
    assert (count(similarities, 0.5), count(similarities, 0.55)) == (1.0, 1.5)


def test_the_dialects_claim_and_the_traces_of_adapters(without_clock):
    """Made-up runs learn less and forget less with LoRA. Traces of an adapter are said in the finding."""
    measured = outcome_of("dialect", [0, 1, 2], False, base="pretrained")
    assert {part["claim"] for part in measured["comparisons"]} == {"agrees"}
    for of_domain in measured["losses"].values():
        assert list(of_domain) == list(dialect.SERIES)
    assert "in 12 of 12 runs" in recipe("dialect").finding(measured)
    for broken in ("base_untouched", "removed_bit_for_bit"):
        traces = {broken: False}
        more = (lambda run, of=traces: of if run.method != "full" else {},)
        measured = outcome_of("dialect", [0, 1], True, *more, base="pretrained")
        assert "in 0 of 8 runs" in recipe("dialect").finding(measured)


# ---------------------------------------------------------------- the main job, on a small base


@pytest.mark.slow
def test_the_numbers_of_the_main_job(small_bases, without_clock, tmp_path, monkeypatch):
    """Bytes are those of what was trained, and spectra have the adapters' ranks."""
    monkeypatch.setitem(main_job.QUICK_KEYS, "pretrained", main_job.SMALL)
    more = {"quick": True, "out": tmp_path / "out", "store": tmp_path / "store", "base": "pretrained"}
    outcome = laboratory.experiment("main_job", **more)
    _, *table = main_job.table(outcome)
    rows, trainable = outcome["rows"], outcome["trainable"]
    assert list(rows) == list(main_job.SMALL) and outcome["seeds"] == [0, 1]
    for (method, row), cells in zip(rows.items(), table):
        mean, low, high = interval(outcome["accuracy"][method])
        assert cells[0] == METHODS[method].label and f"{trainable[method]:,}" in cells
        assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" == cells[1]
        assert row["optimiser_bytes"] == 2 * 4 * trainable[method]
        assert 4 * trainable[method] < row["saved_bytes"] < 4 * trainable[method] + 8192
    assert table[-1][0].startswith("tf-idf") and len(table) == len(rows) + 1
    C, layers = small_bases["pretrained"][1].d_model, small_bases["pretrained"][1].n_layers
    assert trainable["qv_r8"] == layers * 2 * 8 * (C + C) + 2 * C and rows["qv_r8"]["percent"] < 1.0
    spectra = outcome["spectra"]
    assert list(spectra) == ["full", "all_r8", "qv_r8"] and set(spectra["qv_r8"]) == {"q_proj", "v_proj"}
    for key, n in (("full", C), ("all_r8", 8), ("qv_r8", 8)):
        for of_kind in spectra[key].values():
            assert np.shape(of_kind["sigma"]) == (n, 2) and of_kind["sigma"][0] == [1.0, 1.0]
            assert len(of_kind["ranks"]) == layers
            for stable, effective, rank_90 in of_kind["ranks"]:
                assert 1.0 <= stable <= effective <= n and rank_90 <= n


def test_the_command_of_the_main_job(without_clock, tmp_path, monkeypatch, capsys):
    """It begins with the long runs, and says which one failed; a JSON that is a folder is refused.

    Without MiniLM's package, it uses the small base, and says how to install MiniLM.
    """
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    packaged.packaged_model.cache_clear()
    monkeypatch.setitem(main_job.QUICK_KEYS, "pretrained", ("head", "full"))
    asked = []

    def carry_out(run):
        asked.append(run.adapter is None)
        if run.adapter is None and run.seed == 1:
            raise OSError("no room")
        return made_up(run), {}

    monkeypatch.setattr(ClassifyRun, "carry_out", carry_out)
    command = ["run", "--quick", "--seeds", "2", "--jobs", "1"]
    command += ["--out", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    assert main(command) == 1 and asked == [True, True, False, False] and not (tmp_path / "out").exists()
    said = capsys.readouterr().out
    assert "Using the small base." in said and packaged.PACKAGED["minilm"].command in said
    assert "FAILED: OSError: no room" in said and "1 of 4 runs failed" in said and "test accuracy" in said
    assert main([*command, "--json", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder, expected a file" in capsys.readouterr().err


def test_a_method_has_one_colour_at_every_rank():
    assert colour("qv_r8") == colour("lora_qv_r64") == colour("lora_qv") != colour("all_r8")
    assert len({colour(key) for key in ("full", "qv_r1", "all_r1", "head")}) == 4


def test_methods_are_compared_where_they_have_learned_equally_much():
    """Along lines from the base, at the lowest loss that all methods reach; one that learns no more is cut there."""
    path = {"new": {"1": [4.0], "2": [2.0]}, "old": {"1": [5.0], "2": [7.0]}, "moved": {"1": [1.0], "2": [2.0]}}
    worse = {"new": {"1": [3.0], "2": [3.5]}, "old": {"1": [9.0], "2": [9.0]}, "moved": {"1": [4.0], "2": [5.0]}}
    outcome = {"seeds": [0], "start": {"new": 6.0, "old": 4.0, "moved": 0.0}, "paths": {"a": path, "b": worse}}
    at_equal_loss = module("forgetting").at_equal_loss
    assert at_equal_loss(outcome, "new") == {"a": [3.0], "b": [3.0]}
    assert at_equal_loss(outcome, "old") == {"a": [6.0], "b": [9.0]}
    assert at_equal_loss(outcome, "moved") == {"a": [1.5], "b": [4.0]}


def test_methods_on_one_curve_forget_equally_much():
    """Whatever their rates, if these are close enough together for the interpolation."""

    def on_curve(rates):
        new = [4.8 - 0.7 * (1 - np.exp(-rate)) for rate in rates]
        points = {"new": new, "old": [3.0 + (4.8 - loss) ** 2 for loss in new], "moved": list(rates)}
        return {name: {f"{rate}": [value] for rate, value in zip(rates, of)} for name, of in points.items()}

    paths = {name: on_curve(first * 2.0 ** np.arange(4)) for name, first in (("a", 0.3), ("b", 0.35), ("c", 0.27))}
    outcome = {"seeds": [0], "start": {"new": 4.8, "old": 3.0, "moved": 0.0}, "paths": paths}
    old = module("forgetting").at_equal_loss(outcome, "old")
    assert max(np.ravel(list(old.values()))) - min(np.ravel(list(old.values()))) < 0.01
    paths["a"]["new"] = {rate: [5.0] for rate in paths["a"]["new"]}
    with pytest.raises(ValueError, match="a does not learn the new domain at any rate"):
        module("forgetting").at_equal_loss(outcome, "old")
