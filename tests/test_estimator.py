"""TextClassifier: scikit-learn's conventions, and the same numbers as the command `finetune`."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from lora_np.data import encode, load_reviews, truncate, windows
from lora_np.tasks.classifier import class_probabilities, load_classifier, probabilities_of
from lora_np.tasks.finetuning import prepared
from lora_np.tasks.settings import FinetuneSettings

from .test_cli import write_csv

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402

from lora_np import TextClassifier  # noqa: E402
from lora_np.tasks.estimator import LabelledTexts  # noqa: E402

TEXTS, LABELS = load_reviews("rotten_tomatoes").train
TEXTS, LABELS = [" ".join(text.split()[:6]) for text in TEXTS[-80:]], np.array(LABELS[-80:-20])
TEXTS, NEW = TEXTS[:60], TEXTS[60:]


def lower(texts):
    return [text.lower() for text in texts]


@pytest.fixture
def tiny(tiny_base):
    """An unfitted classifier on a tiny base."""
    return TextClassifier(base=str(tiny_base), epochs=1, rank=2, learning_rate=0.01)


def test_long_texts_are_read_in_windows(tiny, tmp_path, recwarn):
    """A long text's probabilities are the mean of its windows'; `max_tokens` truncates instead, with a warning."""
    long = [" ".join(TEXTS[i : i + 8]) for i in range(0, 56, 8)]
    model = tiny.fit([*TEXTS, *long], [*LABELS, *LABELS[: len(long)]]).model_
    assert (model.max_tokens, model.overlap) == (24, 6) and not len(recwarn)
    ids = encode(model.tokenizer, long)
    pieces, rows = windows(model.tokenizer, ids, 24, 6)
    assert len(pieces) > 2 * len(long)
    of_pieces = probabilities_of(model, pieces)
    expected = [of_pieces[rows == row].mean(axis=0) for row in range(len(long))]
    np.testing.assert_allclose(tiny.predict_proba(long), expected, rtol=0, atol=1e-6)
    tiny.save(tmp_path / "task")
    np.testing.assert_array_equal(TextClassifier.load(tmp_path / "task").predict_proba(long), tiny.predict_proba(long))
    short = truncate(model.tokenizer, ids, 20)
    with pytest.warns(UserWarning, match="more than 20 tokens and are truncated"):
        cut = clone(tiny).set_params(max_tokens=20).fit(TEXTS, LABELS)
        np.testing.assert_array_equal(cut.predict_proba(long), probabilities_of(cut.model_, short))


def test_balanced_classes_have_equal_weight_in_windows(tiny_base):
    """Although all long texts are of one class."""
    texts, labels = [*TEXTS[:20], *[" ".join(TEXTS)] * 4], [*["short"] * 20, *["long"] * 4]
    texts = [f"{i} {text}" for i, text in enumerate(texts)]
    data, settings = LabelledTexts(texts, labels, "balanced", False), FinetuneSettings(base=tiny_base)
    dataset = prepared(data, settings.with_defaults(data.task)).dataset
    targets = np.concatenate([batch.targets for batch in dataset.epoch_batches(np.random.default_rng(0))])
    assert len(targets) > len(texts)
    totals = dataset.class_weights * np.bincount(targets)
    np.testing.assert_allclose(totals, totals.mean(), rtol=1e-12)


def test_it_is_what_the_command_trains(tiny, tiny_base, tmp_path, run):
    """With the same texts, settings and seed, whether the labels are numbers or texts."""
    rows = list(zip(TEXTS, LABELS))
    train, test = (
        write_csv(tmp_path / name, of, ("t", "l")) for name, of in (("a.csv", rows[:50]), ("b.csv", rows[50:]))
    )
    options = ["--epochs", 2, "--rank", 3, "--lr", 0.02, "--seed", 4, "--calibrate", "--base", tiny_base]
    run("finetune", "--data", train, "--test", test, "--text", "t", "--label", "l", "--out", tmp_path / "out", *options)
    command = load_classifier(tmp_path / "out")
    tiny.set_params(epochs=2, rank=3, learning_rate=0.02, random_state=4, calibrate=True)
    expected = class_probabilities(command, TEXTS[50:])
    of_numbers = tiny.fit(TEXTS[:50], LABELS[:50])
    np.testing.assert_array_equal(of_numbers.predict_proba(TEXTS[50:]), expected)
    assert of_numbers.classes_.tolist() == [0, 1] and of_numbers.predict(NEW).dtype == LABELS.dtype
    of_texts = clone(tiny).fit(np.array(TEXTS[:50], dtype=object), np.array(["no", "yes"])[LABELS[:50]])
    np.testing.assert_array_equal(of_texts.predict_proba(TEXTS[50:]), expected)
    assert {*of_texts.predict(NEW)} <= {"no", "yes"}
    loaded = TextClassifier.load(tmp_path / "out")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS[50:]), expected)
    assert (loaded.learning_rate, loaded.epochs) == (0.02, 2)
    assert (loaded.max_tokens, loaded.overlap) == (24, 6)  # so that fitting again reads windows, too


def test_it_is_saved_loaded_and_pickled(tiny, tmp_path, run):
    tiny.set_params(variant="dora").fit(TEXTS, LABELS)
    tiny.save(tmp_path / "task")
    label, probability, _ = run("predict", "--model", tmp_path / "task", NEW[0]).split("\t")
    expected = tiny.predict_proba(NEW)
    assert label == str(tiny.predict(NEW[:1])[0]) and float(probability) == pytest.approx(expected[0].max(), abs=1e-3)
    for other in (TextClassifier.load(tmp_path / "task"), pickle.loads(pickle.dumps(tiny))):
        np.testing.assert_array_equal(other.predict_proba(NEW), expected)
        assert other.get_params() == tiny.get_params() and other.classes_.tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_it_keeps_scikit_learns_conventions(tiny):
    """Every check of `check_estimator` that needs no numbers as input."""
    estimator_checks.check_estimator(tiny)
    for name in (
        "parameters_default_constructible",
        "no_attributes_set_in_init",
        "estimator_repr",
        "estimator_get_tags_default_keys",
    ):
        check = getattr(estimator_checks, f"check_{name}", None)
        if check is not None:
            check("TextClassifier", tiny)
    with pytest.raises(NotFittedError):
        tiny.predict(NEW)
    assert tiny.fit(TEXTS, LABELS) is tiny and 0.0 <= tiny.score(TEXTS, LABELS) <= 1.0
    assert (tiny.predict(np.array(NEW)[:, None]) == tiny.predict(NEW)).all()  # a table with one column
    assert clone(tiny).get_params() == tiny.get_params() and not hasattr(clone(tiny), "classes_")


@pytest.mark.slow
def test_it_works_in_a_search_of_a_pipeline_with_processes(tiny):
    """A search over rank and rate in two processes has the scores of fits in this process."""
    pipeline = make_pipeline(FunctionTransformer(lower), tiny)
    grid = {"textclassifier__rank": [1, 2], "textclassifier__learning_rate": [0.01, 0.03]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(TEXTS, LABELS)
    for params, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
        assert np.mean(cross_val_score(clone(pipeline).set_params(**params), TEXTS, LABELS, cv=2)) == score
    assert search.predict(NEW).shape == (20,)


@pytest.mark.parametrize(
    "X, y, message",
    [
        ("a text", [1], "X: got 'a text', expected a list of texts"),
        (["a", None], [0, 1], "X: entry 1 is None, expected a string"),
        (np.zeros((2, 3)), [0, 1], "X: got shape (2, 3)"),
        (np.zeros((2, 1)), [0, 1], "X: entry 0 is np.float64(0.0), expected a string"),
        ([], [], "X: got no texts"),
        (["a", "b"], [1], "y: got 1 labels for 2 texts"),
        (["a", "b"], [" ", "x"], "y: got the labels"),
        (["a", "b"], [0.5, 1.7], "Unknown label type"),
        (["a", "b"], ["x", "x"], "y: got 1 class"),
    ],
)
def test_what_it_refuses(X, y, message, tiny):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        tiny.fit(X, y)


def test_it_is_offered_without_loading_scikit_learn():
    code = "import sys, lora_np; assert 'TextClassifier' in lora_np.__all__ and 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
