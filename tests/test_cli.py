"""The commands, as a user would run them: finetune, predict, generate, mix, merge, export, import, inspect, doctor.

`test_hostile.py` gives every command every kind of bad word and damaged file; here is what words mean together.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from lora_np import formats
from lora_np.adapters import AdapterConfig
from lora_np.cli import main
from lora_np.cli.writing import next_line
from lora_np.data import decode, encode, label_names, model_files, read_records
from lora_np.formats import PRETRAINED, load_task, read_json, read_tensors, save_model, task_base
from lora_np.reference import manifest
from lora_np.tasks import classifier as user_task
from lora_np.tasks.adapter_set import load_adapter_set, mixed
from lora_np.tasks.labelling import label_texts
from lora_np.tasks.report import MEASURES, class_report, format_report, lead, text_keys, wilson_interval
from lora_np.tasks.table import balanced_weights
from lora_np.tasks.writing import pieces, write_text_from

from . import test_fuzz_formats as fuzz
from .tiny import edit_fields, edit_tensors, same_bits
from .world import TEXTS, make_world

ROOT = Path(__file__).resolve().parents[1]
TABLE = "finetune --data {w}/data/rows.jsonl --text t --label l --out {out} --base {w}/base"
TEXT = "finetune --text-file {w}/data/corpus.txt --out {out} --base {w}/base"
WRITE = "generate --prompt the"
WRITE_ONE, WRITE_FULL = f"{WRITE} --adapter {{w}}/one", f"{WRITE} --model {{w}}/full"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What commands read and made, see `make_world`, and a few more files. Not to be changed."""
    world = make_world(tmp_path_factory.mktemp("world"))
    for name, content in (("blank", b" \n\t\n"), ("latin", b"good\nbad \xff\n"), ("short", b"fox")):
        (world / "data" / f"{name}.txt").write_bytes(content)
    for name, labels in (("same", "a" * 48), ("unheard", "abcd")):
        rows = [json.dumps({"t": text, "l": label}) for text, label in zip(TEXTS, labels)]
        (world / "data" / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (world / "model.safetensors.index.json").write_text("{}")
    for name, source in (("rows.jsonl", "data/rows.jsonl"), ("two/task.txt", "data/corpus.txt"),
                         ("x.txt", "exercises/07_lora_layer.ipynb")):  # fmt: skip
        shutil.copy(world / source, world / name)  # where commands in OVER look for them
    formats.write_json(world / "settings.json", {"data": "x.csv", "text_column": "t", "label_column": "l"})
    assert main(["merge", f"{world}/classes", "--out", f"{world}/merged"]) == 0
    return world


@pytest.fixture
def own(world, tmp_path):
    """Function (name) -> a copy of a folder in `world` that may be changed."""
    return lambda name: shutil.copytree(world / name, tmp_path / name)


def changed(world, folder, name, change):
    """A copy of the world in which a file has another text or other fields, or what a function does with its path."""
    path = shutil.copytree(world, folder) / name
    if isinstance(change, dict):
        edit_fields(path, **change)
    else:
        path.write_text(change) if isinstance(change, str) else change(path)
    return folder


# ---------------------------------------------------------------- finetune --data, and predict


def write_csv(path, rows, header=("t", "l")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def words(world, tmp_path):
    """Function (*more, data, out, lr) -> the words of a finetune command."""

    def make(*more, data=world / "data" / "rows.csv", out=tmp_path / "out", lr=0.01):
        columns = ["--text", "t", "--label", "l", "--lr", lr]
        return ["finetune", "--data", data, *columns, "--out", out, "--base", world / "base", *more]

    return make


def about(folder):
    return read_json(folder / "task.json")


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_finetune_and_predict(method, words, world, tmp_path, run):
    """The report, in print and in task.json, is of the answers of what is saved."""
    out, answers, data = tmp_path / "out", tmp_path / "answers.jsonl", world / "data" / "rows.csv"
    printed, task = run(*words("--method", method, "--epochs", 9, lr=0.03)), about(out)
    report, curve = task["test"], task["validation"]
    assert "18 steps on 38 rows with 3 labels\n" in printed and "labels: a, b, c" in printed
    assert printed.endswith(f'next: python -m lora_np predict --model {out} "TEXT"\n')
    assert task["rows"] == {"train": 38, "validation": 5, "test": 5, "left_out": 0}
    assert task["test_accuracy"] == report["accuracy"] and report["texts"] == 5
    assert task["commonest_label_share"] == report["commonest_share"]
    assert {*report["others"]} == {"tf-idf", 'always "b"'}
    for scores in (report, *report["others"].values()):
        low, high = scores["accuracy_interval"]
        assert f"{100 * scores['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in printed
    assert curve["step"][-1] == 18 and len(curve["step"]) == len(curve["loss"]) == len(curve["accuracy"])
    assert task["validation_accuracy"] == curve["accuracy"][int(np.argmin(curve["loss"]))]
    assert (task["text_column"], task["label_column"], task["class_weights"]) == ("t", "l", "none")
    if method == "lora":  # which is small, and has its head
        assert load_task(out).adapter.config == AdapterConfig(r=8, alpha=16.0, targets=("all-linear",))
        assert load_task(out).adapter.weights["head.weight"].shape == (3, 16)
        assert not (out / "model.safetensors").exists()
    run("predict", "--model", out, "--data", data, "--out", answers)
    rows = read_records(answers).rows
    label, probability, text = run("predict", "--model", out, TEXTS[2]).strip().split("\t")  # alone: the same answer
    assert (label, text) == (rows[2]["label"], TEXTS[2])
    assert float(rows[2]["probability"]) == pytest.approx(float(probability), abs=1e-3)
    right = [row["label"] == row["l"] for row in rows]
    run("evaluate", "--model", out, "--data", data, "--json", tmp_path / "a.json", "--out", tmp_path / "a.png")
    again = read_json(tmp_path / "a.json")
    assert again["accuracy"] == np.mean(right) and again["texts"] == 48 and {*again["others"]} == {'always "a"'}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (out / "confusion.png", tmp_path / "a.png"))
    assert np.mean(right) > (0.3 if method == "head" else 0.8)  # a random base's features tell a linear head little


@pytest.mark.parametrize("more", [["--rank", "3", "--targets", "q_proj", "--seed", "2"], ["--method", "head"]])
def test_a_run_is_repeated_from_its_settings(more, words, run, tmp_path):
    """Bit for bit, and options change single settings."""
    out, again, other = (tmp_path / name for name in ("out", "again", "other"))
    run(*words("--epochs", 1, *more))
    run("finetune", "--settings", out / "task.json", "--out", again)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}
    run("finetune", "--settings", out / "task.json", "--out", other, "--lr", 0.02, "--class-weights", "balanced")
    changes = {"learning_rate": 0.02, "class_weights": "balanced"}
    assert about(other)["settings"] == about(out)["settings"] | changes


def test_a_test_file_of_its_own(words, world, run, fails, tmp_path):
    """Rows of the table that are in it too, in any case and spacing, are not trained on; long texts are counted."""
    unseen = [("the slow fox", "a"), ("she said so", "b")]
    known = [(TEXTS[0].upper().replace(" ", "  "), "a"), (TEXTS[4], "b")]
    long = [(f"{text} {'and so on ' * 9}", label) for text, label in known]
    run(*words("--epochs", 1, "--test", write_csv(tmp_path / "test.csv", unseen)))
    assert about(tmp_path / "out")["rows"] == {"train": 43, "validation": 5, "test": 2, "left_out": 0}
    printed = run(*words("--epochs", 1, "--test", write_csv(tmp_path / "test.csv", known + unseen + long)))
    assert "2 left out" in printed and "2 texts have more than 24 tokens" in printed
    rows = about(tmp_path / "out")["rows"]
    assert rows["left_out"] == 2 and rows["train"] + rows["validation"] == 46
    fails(*words("--test", world / "data" / "rows.tsv", out=tmp_path / "x"), says=["test_data", "nothing is left"])


def test_validation_accuracy_is_that_of_the_saved_weights(words, run, tmp_path, monkeypatch):
    scores = iter([{"loss": 0.5, "accuracy": 0.8}, {"loss": 0.6, "accuracy": 0.9}])
    monkeypatch.setattr("lora_np.training.fine_tune.evaluate", lambda *_: next(scores, {"loss": 0.7, "accuracy": 0.1}))
    run(*words("--epochs", 1))
    assert about(tmp_path / "out")["validation_accuracy"] == 0.8


def louder(factor):
    """A change of a model: what its head reads becomes this many times larger."""
    return lambda path: edit_tensors(path, lambda t: t | {"ln_f.weight": t["ln_f.weight"] * np.float32(factor)})


TEACH, LABEL = (command.replace("{w}/base", "{w}/full") for command in (TEXT, TABLE))
MODEL, NOT_FINITE = "full/model.safetensors", "full: the logits became NaN or infinite"
NO_LABELS, SHIPPED = (["a"], [*"abcd"], 5, [1, 2, 3], "abc", [*"aab"]), PRETRAINED / "tokenizer.json"
NO_NEXT = "full: the logits of the next token are not finite"
SET, ASK = "finetune --settings {w}/settings.json --out {out}", "predict hello --model {w}/"
DAMAGES = [  # a file of the world, its new text or fields, a command, and what it says
    ("settings.json", {"rank": 3}, SET, "settings.json: rank: not a setting of the task 'classifier', expected one of"),
    ("settings.json", {"epochs": "3"}, SET, "settings.json: epochs: got '3', expected an integer"),
    ("settings.json", {"adapter": {"rank": 3}}, SET, "adapter: got 'rank', expected one of variant, r, alpha"),
    ("settings.json", {"adapter": {"r": 0}}, SET, "settings.json: r: got 0, expected an integer of at least 1"),
    ("settings.json", {"quoting": "no"}, SET, "settings.json: quoting: got 'no', expected True or False"),
    ("settings.json", {"text_column": 5}, SET, "settings.json: text_column: got 5, expected a string"),
    ("settings.json", {"task": "poem"}, SET, "task: got 'poem', expected one of classifier, question, text, chat"),
    ("classes/task.json", {"labels": ["a", "b"]}, f"{ASK}classes", "head.weight has shape"),
    ("classes/task.json", {"base_sha256": "of another"}, f"{ASK}classes", "trained on a base other"),
    ("classes/task.json", "[]", f"{ASK}classes", "task.json: got a JSON list"),
    ("classes/task.json", "{}", f"{ASK}classes", "task.json: missing labels; expected a file that finetune wrote"),
    ("classes/task.json", Path.unlink, f"{ASK}classes", "no task.json"),
    *[("merged/task.json", {"labels": labels}, f"{ASK}merged", "task.json: ") for labels in NO_LABELS],
    ("merged/model.safetensors", louder(3e38), f"{ASK}merged", "merged: the logits became NaN or infinite"),
    (MODEL, louder(3e38), WRITE_FULL, NO_NEXT),
    (MODEL, louder(3e38), f"{WRITE} --temperature 0 --model {{w}}/full", NO_NEXT),
    (MODEL, louder(3e38), TEACH, NOT_FINITE),
    (MODEL, louder(1e5), TEACH, "full: the perplexity exp("),
    (MODEL, louder(3e38), LABEL, "the loss became nan … learning rate"),
    ("full/tokenizer.json", partial(shutil.copy, SHIPPED), WRITE_FULL, "a token with id 7999, expected ids below the"),
]


@pytest.mark.parametrize("file, change, command, message", DAMAGES)
def test_damaged_results_and_settings(file, change, command, message, world, tmp_path, fails):
    copy = changed(world, tmp_path / "w", file, change)
    fails(*command.format(w=copy, out=tmp_path / "out").split(), says=message.split(" … "))
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- reports, and answers as files


@pytest.mark.slow
@pytest.mark.parametrize("seed, K", [(0, 2), (2, 7), (3, 40)])
def test_a_report_has_scikit_learns_numbers(seed, K):
    """Of classes that are never predicted, classes without texts, and classes with neither."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    true, answered = rng.integers(0, K, (2, 200))
    true[true == K // 2], answered[answered == K - 1] = K - 1, 0
    answered = np.where(rng.random(200) < 0.4, np.where(true == K - 1, 0, true), answered)
    labels = [f"c{k}" for k in range(K)]
    probabilities = 0.6 * np.eye(K)[answered] + 0.4 / K
    report = class_report(labels, true, probabilities, {"other": true})
    assert report["confusion"] == metrics.confusion_matrix(true, answered, labels=range(K)).tolist()
    assert report["accuracy"] == pytest.approx(metrics.accuracy_score(true, answered), abs=1e-12)
    f1 = metrics.f1_score(true, answered, average="macro")
    assert report["macro_f1"] == pytest.approx(f1, abs=1e-12)
    low, high = report["macro_f1_interval"]
    draws = [rng.integers(0, 200, 200) for _ in range(200)]
    drawn = [metrics.f1_score(true[rows], answered[rows], average="macro") for rows in draws]
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=0.03)
    expected = metrics.precision_recall_fscore_support(true, answered, labels=range(K), zero_division=np.nan)
    got = [[its[name] for its in report["classes"].values()] for name in ("precision", "recall", "texts")]
    for ours, theirs in zip(got, (expected[0], expected[1], expected[3])):
        np.testing.assert_allclose(np.array(ours, dtype=float), theirs, atol=1e-12)
    assert report["others"]["other"]["accuracy"] == 1.0
    commonest = report["others"][f'always "c{np.bincount(true).argmax()}"']
    assert commonest["accuracy"] == report["commonest_share"] == np.bincount(true).max() / 200
    lines = format_report(report).splitlines()
    long = class_report([f"{label} {'very ' * 40} long" for label in labels], true, probabilities)
    assert max(map(len, lines + format_report(long).splitlines())) <= 100
    assert f'"c{K - 1}" is never predicted; test texts of this class: {np.sum(true == K - 1)} of 200' in lines
    stated = 0.6 + 0.4 / K
    assert report["calibration_error"] == pytest.approx(abs(stated - report["accuracy"]), abs=1e-12)
    by_chance = [  # all probabilities are equal, so they are in one bin
        abs(np.mean(rng.random(200) < stated) - stated) for rng in map(np.random.default_rng, range(2000))
    ]
    assert report["calibration_noise"] == pytest.approx(np.mean(by_chance), rel=0.05)
    for name, its in report["others"].items():
        other = true if name == "other" else np.full(200, np.bincount(true).argmax())
        drawn = [
            [score(true[rows], answered[rows]) - score(true[rows], other[rows]) for rows in draws]
            for score in (metrics.accuracy_score, partial(metrics.f1_score, average="macro"))
        ]
        for measure, of_measure in zip(MEASURES, drawn):
            ahead, low, high = its["ahead"][measure]
            assert ahead == pytest.approx(report[measure] - its[measure], abs=1e-12)
            wider = 0.04 if measure == "accuracy" else 0.12  # the text that `lead` adds may be the only one of a class
            assert np.quantile(of_measure, [0.025, 0.975]) == pytest.approx([low, high], abs=wider)
            verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
            said = [line for line in lines if line.startswith(f"Compared with {name}, this model: ")]
            assert len(said) == (name == "other" or any(low <= 0 for _, low, _ in its["ahead"].values()))
            assert not said or MEASURES[measure] in said[0].partition(f"{verdict} in ")[2].partition("; ")[0]


def test_the_intervals_of_a_share():
    """Wilson's, by solving (p − right/n)² = z² p (1 − p) / n, which defines them."""
    for right, n in [(0, 9), (3, 9), (9, 9), (81, 263)]:
        quadratic = [1 + 1.959964**2 / n, -2 * right / n - 1.959964**2 / n, (right / n) ** 2]
        assert wilson_interval(right, n) == pytest.approx(sorted(np.roots(quadratic)), abs=1e-6)


def test_balanced_weights_are_scikit_learns():
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    classes = np.array([0] * 7 + [1] * 2 + [2] * 40)
    expected = compute("balanced", classes=np.arange(3), y=classes)
    np.testing.assert_allclose(balanced_weights(classes), expected, rtol=1e-12)


def test_without_scikit_learn_and_matplotlib(words, run, tmp_path, monkeypatch):
    for package in ("sklearn", "sklearn.feature_extraction.text", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)
    printed = run(*words("--epochs", 1))
    assert "scikit-learn is not installed" in printed and "matplotlib is not installed" in printed
    assert {*about(tmp_path / "out")["test"]["others"]} == {'always "b"'}
    assert not (tmp_path / "out" / "confusion.png").exists()


@pytest.mark.slow
def test_balanced_classes(run, words, tmp_path):
    """Where the texts tell nothing, the plain loss gives a rare class its share, and the balanced one nearly half."""
    rows = [(f"{text} {i}", "rare" if i >= 60 else "common") for i in range(64) for text in TEXTS[:3]]
    table, share = write_csv(tmp_path / "rare.csv", rows), {}
    for weights in ("none", "balanced"):
        out = tmp_path / weights
        printed = run(*words("--epochs", 2, "--class-weights", weights, data=table, out=out))
        assert ("--class-weights balanced" in printed) == (weights == "none")  # the advice
        share[weights] = label_texts(out, [text for text, _ in rows])[1][:, 1].mean()
    assert '"rare" is never predicted; test texts of this class: 1 of 19' in run(*words("--epochs", 2, data=table))
    assert share["none"] < 0.25 and share["balanced"] > 0.35


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_predictions_keep_all_columns(suffix, world, run, tmp_path):
    given = [{"id": "007", "t": "the quick fox", "label": "=1+1"}, {"id": "", "t": " she said, 'so' ", "label": "-2"}]
    data, out = tmp_path / "in.csv", tmp_path / f"out{suffix}"
    write_csv(data, [list(row.values()) for row in given], ("id", "t", "label"))
    command = ["predict", "--model", world / "classes", "--data", data]
    assert "2 texts; saved in" in run(*command, "--out", out)
    assert f"{out} exists, and will be replaced\n" in run(*command, "--out", out)
    plain = user_task.predict(user_task.load_classifier(world / "classes"), [row["t"] for row in given])
    for row, before, (label, p) in zip(read_records(out).rows, given, plain):
        assert list(row) == ["id", "t", "label", "predicted_label", "probability"]
        assert {name: row[name] for name in before} == before
        assert row["predicted_label"] == label and float(row["probability"]) == pytest.approx(p, abs=1e-6)
    run(*command, "--out", out, "--proba")
    for row, (label, p) in zip(read_records(out).rows, plain):
        every = {name.removeprefix("p_"): float(x) for name, x in row.items() if name.startswith("p_")}
        assert list(every) == ["a", "b", "c"] and sum(every.values()) == pytest.approx(1, abs=1e-5)
        assert max(every, key=every.get) == label and every[label] == pytest.approx(p, abs=1e-6)
    label, p, every, _ = run(*command, "--proba").splitlines()[0].split("\t")
    assert label == plain[0][0] and f"{label}={p}" in every.split()


def test_an_empty_cell_is_an_empty_text(world, tmp_path, capsys):
    data = write_csv(tmp_path / "in.csv", [("1", "the quick fox"), ("2", "")], ("id", "t"))
    assert main(["predict", "--model", str(world / "classes"), "--data", str(data)]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 2 and said.err.startswith("warning: ") and said.err.count("\n") == 1
    assert "empty texts: 1, the first in row 2, line 3" in said.err


def test_truncated_texts_and_prompts_are_reported(world, tmp_path, capsys):
    long, model = " ".join(TEXTS[:3]), str(world / "classes")
    data = write_csv(tmp_path / "in.csv", [("a", long), ("b", "the fox"), ("c", long)], ("l", "t"))
    says = "warning: texts: {} have more than 24 tokens and are truncated"
    for words, said in (
        (["predict", "--model", model, "--data", str(data)], says.format("2 of 3")),
        (["predict", "--model", model, long], says.format("1 of 1")),
        (["predict", "--model", model, "the fox"], ""),
        (["evaluate", "--model", model, "--data", str(data)], says.format("2 of 3")),
        (["generate", "--model", str(world / "full"), "--prompt", long, "--tokens", "1"], "only the last 24"),
        (["generate", "--model", str(world / "full"), "--prompt", "the fox", "--tokens", "1"], ""),
    ):
        assert main(words) == 0
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == bool(said), error


@pytest.mark.parametrize(
    "names, said",
    [
        (["NEG", "Neg", "neg", "pos"], "'NEG', 'Neg', 'neg' look alike"),
        (["caf\u00e9", "cafe\u0301", "cafe"], r"'cafe\\u0301', 'caf\\xe9' look alike"),
        (["a\u200b", "a", "b"], r"'a', 'a\\u200b' look alike"),
        (['"a"', "a", "b"], "look alike, but are different classes; if quotes enclose its cells, use --quoting"),
        (["a", "b", "A-", "1", "11"], None),
        ([f"{n / 7}" for n in range(30)], "30 different numbers in 30 rows; is this a rating?"),
        ([str(n % 5) for n in range(30)], None),
    ],
)
def test_labels_that_look_alike(names, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert label_names(names) == sorted(set(names))
    assert [re.search(said, str(one.message)) is not None for one in caught] == [True] * (said is not None)


def test_columns_of_the_wrong_kind_are_named(words, fails, tmp_path, capsys):
    """Text and label columns that are exchanged, and a class with a single text."""
    rows = [(f"ticket no. {i}", "abc"[i % 3]) for i in range(40)]
    data = write_csv(tmp_path / "rows.csv", rows, header=("l", "t"))
    says = ["'t' has 3 different texts, and 'l' 40 different labels; swap the two columns"]
    fails(*words(data=data, out=tmp_path / "x"), says=says)
    write_csv(data, [*rows, ("a ticket", "rare")])
    assert main([str(word) for word in words("--epochs", 1, data=data)]) == 0
    assert "labels with only one training text: 'rare'" in capsys.readouterr().err


@pytest.mark.parametrize("n, only_first, only_second", [(40, 4, 0), (40, 6, 0), (40, 5, 1), (400, 40, 20), (100, 0, 3)])
def test_a_difference_is_decided_as_by_mcnemars_exact_test(n, only_first, only_second):
    """Of two classifiers of the same texts, also if one is right wherever they differ."""
    binomtest = pytest.importorskip("scipy.stats").binomtest
    true = np.arange(n) % 2
    first, second = true.copy(), true.copy()
    second[:only_first] ^= 1
    first[only_first : only_first + only_second] ^= 1
    for ahead, low, high in lead(true, first, second).values():
        decided = low > 0 or high < 0
        assert decided == (binomtest(only_first, only_first + only_second).pvalue < 0.05) and low <= ahead <= high
    assert lead(true, first, first) == {name: [0.0, 0.0, 0.0] for name in MEASURES}


def test_repeated_texts_are_counted_once():
    """Texts that all occur three times have the scores and intervals of the same texts once."""
    rng = np.random.default_rng(0)
    true, probabilities, keys = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), 60), text_keys(map(str, range(60)))
    once = class_report(["a", "b", "c"], true, probabilities)
    thrice = class_report(["a", "b", "c"], np.tile(true, 3), np.tile(probabilities, (3, 1)), keys=np.tile(keys, 3))
    assert thrice == once | {"repeated": 120} and class_report(["a", "b", "c"], true, probabilities, keys=keys) == once
    assert "120 rows with a text that occurs earlier" in format_report(thrice) and "earlier" not in format_report(once)


# ---------------------------------------------------------------- finetune --text-file


def test_teaching_a_text(world, tmp_path, run):
    out = run(*TEXT.format(w=world, out=tmp_path / "out").split(), "--epochs", 2, "--rank", 2, "--lr", 0.03)
    assert "training 448 parameters" in out and "test perplexity" in out
    about = read_json(tmp_path / "out" / "task.json")
    assert about["labels"] is None and about["test_perplexity"] < about["test_perplexity_before"]
    tokenizer = load_task(world / "base").tokenizer
    assert sum(about["tokens"].values()) == sum(len(ids) for ids in encode(tokenizer, TEXTS))
    first, again = (load_task(folder).adapter.weights for folder in (world / "one", tmp_path / "out"))
    assert same_bits(first, again)  # a pure function of its settings
    assert load_task(world / "full").adapter is None


WEIGHTED = ("merge {w}/one --out {out}", "mix {w}/one --out {out}", "mix {w}/one --rank 1 --out {out}", WRITE_ONE)
REFUSALS = [
    ("fintune --out x", "invalid choice: 'fintune' (choose from"),
    ("classroom", "required: ACTION"),
    (f"{TABLE} --learning-rate 1", "--learning-rate 1; did you mean --lr?; see python -m lora_np finetune --help"),
    ("--seeds 0", "seeds: got 0"),  # of run, the command without a name
    (f"{TEXT} --text t", "text_column: not a setting of the task 'text'"),
    (f"{TEXT} --test x.csv", "test_data: not a setting of the task 'text'"),
    (f"{TEXT} --method head", "method: got 'head', expected one of lora, full"),
    (f"{TEXT} --class-weights balanced", "class_weights: not a setting of the task 'text'"),
    (f"{TABLE} --rank 17", "blocks.0.attn.q_proj: r: got 17, expected at most min(out, in) = 16"),
    (TABLE.replace("rows.jsonl", "same.jsonl"), "labels: got 1 class(es), 'a', expected at least two"),
    (f"{TABLE} --test {{w}}/data/unheard.jsonl", "labels: got 'd' in 1 of 4 rows, expected the classes known"),
    ("finetune --data {w}/data/rows.jsonl --out {out}", "for labelled texts, name the columns (--text, --label)"),
    (TEXT.replace("corpus", "blank"), "has no text"),
    (TEXT.replace("corpus", "latin"), "line 2: byte 0xff is not UTF-8"),
    (TEXT.replace("corpus", "short"), "tokens, expected at least 32"),
    *[  # before the data is read
        (f"{command.replace('/data/', '/none/')} {options}", f"{message}, expected ")
        for command in (TABLE, TEXT)
        for options, message in (
            ("--rank 17", "r: got 17"),
            ("--epochs 1000000000", "epochs: got 1000000000"),
            ("--seed 9223372036854775808", "seed: got 9223372036854775808"),
            ("--variant loftq", "variant: got 'loftq'"),
        )
    ],
    (f"{WRITE} --adapter nobody", f"the included adapters are {', '.join(formats.shipped_adapters())}"),
    (f"{WRITE} --adapter {{w}}/classes", "got a classifier"),
    (f"{WRITE} --adapter {{w}}/full", "got a full model, expected an adapter"),
    (f"{WRITE} --adapter {{w}}/one {{w}}/one", "is repeated"),
    (f"{WRITE} --adapter base {{w}}/one --weights 1 1", "got 'base', expected only adapters"),
    (f"{WRITE} --adapter {{w}}/one {{w}}/two --weights 1", "weights: got 1, expected one for each of 2"),
    (f"{WRITE_ONE} --model {PRETRAINED}", "a base other … give its base with --base (for generate: --model)"),
    (f"{WRITE} --model {{w}}/hf/model.safetensors", "(it is a file), expected a model"),
    (f"{WRITE} --model {{w}}/model.safetensors.index.json", "this is a Hugging Face model"),
    ("predict x --model {w}", "no task.json and no config.json (base, "),
    ("predict x --model {w}/full --base {w}/base", "full is a full model"),
    ("predict x --model {w}/classes --base {w}/full", "trained on a base other than the model in"),
    *[(f"{command} --weights 1e39", "weights: blocks.0.attn.q_proj.lora_B becomes NaN") for command in WEIGHTED],
    # It would be easy to lose the adapter without a word.
    (f"{WRITE} --model {{w}}/one", "one is an adapter, expected a model; give it as --adapter"),
    (f"{WRITE} --adapter {{w}}/peft", "is a PEFT adapter"),
    ("mix {w}/classes {w}/one --out {out}", "has the labels"),
    ("merge base --out {out}", "got 'base', expected only adapters"),
    ("export {w}/full --to peft --out {out}", "got a full model"),
    ("export {w}/one --to hf --base-name x --out {out}", "base-name: needs --to peft"),
    ("import x --from hf --labels a --out {out}", "labels: needs the source to be an adapter"),
    ("import x --from peft --tokenizer a --out {out}", "tokenizer: needs --from hf"),
    ("import {w}/peft --from peft --out {out}", "c_attn: lora_A"),  # onto the shipped base
    ("import {w}/peft --from peft --out {out} --base {w}/base --labels a b", "labels: got a, b; expected none"),
    ("import {w}/classes_peft --from peft --out {out} --base {w}/base --labels a a b", "expected 3 different labels"),
    ("predict --model x", "give either texts to classify or --data"),
    ("predict hello caf\udce9 --model {w}/classes", "expected UTF-8"),  # as Python hands over a byte that is not UTF-8
    ("predict --model {w}/classes --data {w}/data/rows.jsonl --out x.txt", "out: got 'x.txt', expected a file"),
    ("predict --model {w}/classes --text t hello", "text: needs --data"),
    ("predict --model {w}/full --data {w}/data/rows.jsonl", "text_column: is missing, and"),
    ("evaluate --model {w}/classes --data {w}/data/unheard.jsonl", "labels: got 'd' in 1 of 4 rows, expected"),
    ("evaluate --model {w}/one --data {w}/data/rows.jsonl --text t --label l", "got a language model"),
    ("pretrain --adapters --epochs 1 --out {out}", "epochs: applies only to the base"),
    ("pretrain --adapters --threads 2 --out {out}", "threads: applies only to the base"),
    ("pretrain --adapters --seed -1 --out {out}", "seed: got -1"),
]


@pytest.mark.parametrize("command, message", REFUSALS)
def test_what_is_refused(command, message, world, tmp_path, fails, monkeypatch):
    monkeypatch.setattr("lora_np.experiments.pretrain.load_base", None)  # none is read
    places = {"w": world, "out": tmp_path / "out"}
    fails(*command.format(**places).split(), says=message.format(**places).split(" … "))
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- models that are damaged, huge or elsewhere


def test_a_base_that_has_moved(world, tmp_path, run, fails):
    for name in ("base", "classes"):
        shutil.copytree(world / name, tmp_path / name)
    command = ["predict", "--model", tmp_path / "classes", "the quick fox"]
    answer = run(*command)
    (tmp_path / "base").rename(tmp_path / "moved")
    exporting = ["export", tmp_path / "classes", "--to", "hf", "--out", tmp_path / "hf"]
    says = ["task.json: cannot read its base: ", "no such folder; if it has moved, give its base with"]
    for again, expected in ((command, answer), (exporting, f"a classifier of 3 classes; saved in {tmp_path}/hf\n")):
        fails(*again, says=says)
        assert run(*again, "--base", tmp_path / "moved") == expected


def test_a_hugging_face_directory_is_read_in_place(world, tmp_path, run):
    """As a model, as a base, and as a classifier, it does what the imported model does."""
    for command in (f"{WRITE} --model {{w}}/{{}}", "predict the the --model {w}/classes_{}"):
        ours = "base" if "generate" in command else "classes"
        names = command.format("hf", w=world), command.replace("classes_", "").format(ours, w=world)
        assert run(*names[0].split()) == run(*names[1].split())
    for name in ("hf", "base"):
        run(*TABLE.format(w=world, out=tmp_path / name).split()[:-1], world / name, "--epochs", 1)
    params = [formats.load_task(tmp_path / name).adapter.weights for name in ("hf", "base")]
    assert same_bits(*params)


SPARSE = {  # what the header of a file that has no bytes on the disk promises, and what is said; None: a table
    "20 GB": ({"dtype": "F32", "shape": [320_000_000, 16]}, 0, "not enough memory for 20.5 GB"),
    "20 GB in bfloat16": ({"dtype": "BF16", "shape": [640_000_000, 16]}, 0, "not enough memory"),
    "a header of terabytes": ({"dtype": "F32", "shape": [4]}, 2**43, "not a complete safetensors file"),
    "a table": (None, 0, "has null bytes"),  # which is found without holding the file in memory
}
OF_MODELS = ("generate --prompt x --model {file.parent}", "inspect {file.parent}")
OF_TABLES = ("predict --model {w}/classes --text t --data {file}",)


@pytest.mark.slow
@pytest.mark.skipif(fuzz.memory("VmSize") is None, reason="needs a limit of memory")
@pytest.mark.parametrize("name, command", [(n, c) for n in SPARSE for c in (OF_TABLES if "table" in n else OF_MODELS)])
def test_files_that_no_memory_holds(name, command, own, world, fails):
    entry, length, says = SPARSE[name]
    path, header, size = own("base") / ("model.safetensors" if entry else "sparse.csv"), b"", 5 * 2**30
    if entry:
        size = int(np.prod(entry["shape"])) * fuzz.BYTES[entry["dtype"]]
        header = fuzz.with_header(json.dumps({"tok_emb.weight": {**entry, "data_offsets": [0, size]}}), b"")
        header = length.to_bytes(8, "little") + header[8:] if length else header
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    with fuzz.little_memory():
        fails(*command.format(file=path, w=world).split(), says=[says])


HOSTILE, INDEX = "\x1b[2J\r\n\u202e" + "a" * 10_000, "model.safetensors.index.json"
TWICE = f"{{{json.dumps(HOSTILE)}: 1, {json.dumps(HOSTILE)}: 2}}"
ROWS = [{"t": text, "l": [HOSTILE, "b"][i % 2]} for i, text in enumerate(TEXTS)]
IMPORT_HF = "import {w}/hf --from hf --out {out}"
IMPORT_INDEX, IMPORT_CLASSES = (IMPORT_HF.replace("hf", name, 1) for name in (f"hf/{INDEX}", "classes_hf"))
IMPORT_PEFT = "import {w}/peft --from peft --base {w}/base --out {out}"
DOCTOR = "doctor {w}/peft --base {w}/full"


def add_tensor(path):
    edit_tensors(path, lambda tensors: tensors | {HOSTILE: np.ones((2, 2), np.float32)})


def add_metadata(path):
    formats.write_tensors(path, {"a": np.ones(1)}, {HOSTILE: HOSTILE})


PLACES = {  # what is planted: (file, its change; command)
    "tensor": ("full/model.safetensors", add_tensor, WRITE_FULL),
    "adapter's tensor": ("one/adapter.safetensors", add_tensor, WRITE_ONE),
    "GPT-2's tensor": ("hf/model.safetensors", add_tensor, IMPORT_HF),
    "PEFT's tensor": ("peft/adapter_model.safetensors", add_tensor, IMPORT_PEFT),
    "inspected tensor": ("full/model.safetensors", add_tensor, "inspect {w}/full"),
    "metadata": ("full/model.safetensors", add_metadata, "inspect {w}/full"),
    "field": ("hf/config.json", {HOSTILE: 1}, IMPORT_HF),
    "value": ("hf/config.json", {"model_type": HOSTILE}, IMPORT_HF),
    "value of ours": ("full/config.json", {"d_model": HOSTILE}, WRITE_FULL),
    "kind": ("one/adapter.json", {"kind": HOSTILE}, WRITE_ONE),
    "target": ("one/adapter.json", {"targets": [HOSTILE]}, WRITE_ONE),
    "pattern": ("peft/adapter_config.json", {"rank_pattern": {"(" + HOSTILE: 1}}, IMPORT_PEFT),
    "index": (f"hf/{INDEX}", json.dumps({"weight_map": {HOSTILE: HOSTILE}}), IMPORT_INDEX),
    "labels": ("classes/task.json", {"labels": [HOSTILE, HOSTILE]}, "predict x --model {w}/classes"),
    "label": ("classes/task.json", {"labels": [HOSTILE, "\x1b[2J", "\r"]}, "predict x --proba --model {w}/classes"),
    "text": ("text", "", "predict HOSTILE --model {w}/classes"),
    "imported label": ("classes_hf/config.json", {"id2label": {"0": HOSTILE, "1": "b", "2": "c"}}, IMPORT_CLASSES),
    "label of a table": ("data/rows.jsonl", "\n".join(map(json.dumps, ROWS)), f"{TABLE} --epochs 1"),
    "path": ("text", "", "predict x --model {w}/HOSTILE"),
    "name of an adapter": (
        "one",
        lambda path: path.rename(path.with_name(HOSTILE[:40])),
        "mix {w}/HOSTILE --out {out}",
    ),
    "repeated name": ("full/config.json", TWICE, WRITE_FULL),
    "doctor's tensor": ("peft/adapter_model.safetensors", add_tensor, DOCTOR),
    "name of a base": ("peft/adapter_config.json", {"base_model_name_or_path": HOSTILE}, DOCTOR),
}


@pytest.mark.parametrize("place", PLACES)
def test_names_from_files_are_printed_with_escapes(place, world, tmp_path, capsys):
    *change, command = PLACES[place]
    copy, hostile = changed(world, tmp_path / "w", *change), HOSTILE if place == "text" else HOSTILE[:40]
    main([word.format(w=copy, out=tmp_path / "out").replace("HOSTILE", hostile) for word in command.split()])
    said = capsys.readouterr()
    for line in [*said.out.split("\n"), *said.err.split("\n")]:
        assert line.isprintable() or line.replace("\t", " ").isprintable(), line
        assert "a" * 220 not in line and len(line) < 3000
    assert "\\x1b[2J" in said.out + said.err and said.err.count("\n") <= 1


# ---------------------------------------------------------------- generate


def test_one_text_for_each_adapter(world, run, fails):
    """With base for none; and each is what it is alone. The text has more tokens than there are positions."""
    one, two, prompt = world / "one", world / "two", TEXTS[0]
    settings = ["--prompt", prompt, "--tokens", 30, "--seed", 3, "--ignore-end"]
    together = run("generate", *settings, "--adapter", one, "base", two)
    model = task_base(one)
    ways = ("--adapter", one), ("--model", model), ("--adapter", two)
    alone = [run("generate", *settings, *way) for way in ways]
    assert together == "".join(f"[{name}]\n{text}" for name, text in zip((one, "base", two), alone))
    assert len(set(alone)) == 3 and all(text.startswith(prompt) for text in alone)
    assert run("generate", *settings, "--adapter", one, two, "--weights", 1, 0) == alone[0]
    fails("generate", "--prompt", " \n", says=["prompt: is empty"])


def test_half_a_character_waits():
    """The bytes of a cup are several tokens: nothing is shown of the first until the last comes."""
    tokenizer = load_task(PRETRAINED).tokenizer
    ids = encode(tokenizer, ["a ☕ ok"])[0].tolist()
    shown = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:]]))
    assert "".join(shown) == "a ☕ ok" and "\ufffd" not in "".join(shown) and "" not in shown[1:]
    whole = next(n for n in range(2, len(ids)) if "☕" in "".join(pieces(tokenizer, ids[:n], [])))
    for n in range(2, whole):  # a text that ends within the character shows what there is of it, at its end
        cut = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:n]]))
        assert "".join(cut).rstrip("\ufffd").strip() == "a" and "\ufffd" not in "".join(cut[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_the_pieces_of_a_text_are_the_text(seed):
    """A byte after those of a character makes all of them invalid, where bytes are tokens beside letters."""
    order = ["<unk>", "▁", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(order)}, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    rng, bytes_of = np.random.default_rng(seed), [order.index(f"<0x{byte:02X}>") for byte in "é\n".encode()]
    for _ in range(200):
        ids = rng.choice([1, 2, *bytes_of], rng.integers(2, 12)).tolist()
        shown = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:]]))
        assert "".join(shown) == decode(tokenizer, np.array(ids))


END_IS_0 = {"model_type": "gpt2", "eos_token_id": 0}
ENDS = [  # generation_config.json, the fields that came with the model, whether token 0 ends a text
    ({"eos_token_id": 0}, {}, True),
    ({"eos_token_id": [5, 0]}, {}, True),
    ({"bos_token_id": 0}, END_IS_0, False),
    (None, END_IS_0, True),
    (None, END_IS_0 | {"eos_token_id": 50256}, False),
    (None, {"model_type": "gpt2"}, False),
    (None, {}, True),  # a model that was saved before it had the file ends at <|endoftext|>
]


@pytest.mark.parametrize("generation, extra, ends", ENDS)
def test_a_text_ends_where_the_model_says(generation, extra, ends, world):
    task = load_task(world / "full")
    files = {} if generation is None else {"generation_config.json": json.dumps(generation).encode()}
    task = task._replace(config=replace(task.config, extra=extra), files=files)
    head = np.zeros_like(task.params["tok_emb.weight"])
    head[0] = 1.0  # with ln_f's bias of ones, the end of a text is the likeliest token
    task = task._replace(params=task.params | {"tok_emb.weight": head, "ln_f.bias": np.ones(16, np.float32)})
    assert len(list(write_text_from(task, "the end", 9))) == (2 if ends else 10)
    assert len(list(write_text_from(task, "the end", 9, ignore_end=True))) == 10


def test_rows_of_the_table_without_a_token_are_never_drawn(world, tmp_path, run):
    """Some models round their vocabulary up, and a vocabulary may have gaps."""
    task = load_task(world / "full")
    fields, n = read_json(world / "base" / "tokenizer.json"), task.config.vocab_size
    vocab = fields["model"]["vocab"]
    table = np.concatenate([task.params["tok_emb.weight"], np.full((64, 16), 10, np.float32)])
    table[[vocab["Ġfox"], n + 63]] = [[11], [9]]
    vocab["Ġfox"] = n + 63
    bias = {"ln_f.bias": np.ones(16, np.float32)}  # the rows without a token are the likeliest, and "fox" is next
    params, config = task.params | bias | {"tok_emb.weight": table}, replace(task.config, vocab_size=n + 64)
    save_model(tmp_path, params, config, beside={"tokenizer.json": fields})
    settings = ["generate", "--model", tmp_path, "--prompt", "the", "--tokens", 3]
    assert run(*settings) == run(*settings, "--temperature", 0) == "the fox fox fox\n"


# ---------------------------------------------------------------- mix and merge


def test_mix(world, tmp_path, run):
    pair = [world / "one", world / "two"]
    assert "rank 5, exact" in run("mix", *pair, "--weights", 0.5, -1, "--out", tmp_path / "mix")
    expected, error = mixed(load_adapter_set(pair), [0.5, -1.0])
    assert error == 0.0 and same_bits(load_task(tmp_path / "mix").adapter.weights, expected.weights)
    assert "rank 2, relative error of ΔW" in run("mix", *pair, "--rank", 2, "--out", tmp_path / "cut")
    assert load_task(tmp_path / "cut").adapter.config.r == 2
    # The base has no head: half of a classifier is half of its head, and none is made up for the base.
    run("mix", world / "classes", "--weights", 0.5, "--out", tmp_path / "half")
    folders = world / "classes", tmp_path / "half"
    whole, half = (load_task(folder).adapter.weights["head.weight"] for folder in folders)
    assert np.array_equal(half, 0.5 * whole)


def test_merge(world, tmp_path, run):
    """A trained head alone is merged too."""
    run(*TABLE.format(w=world, out=tmp_path / "head").split(), "--method", "head", "--epochs", 1)
    for folder in (world / "classes", tmp_path / "head"):
        out = run("merge", folder, "--out", tmp_path / "merged", "--time")
        assert len(re.findall(r"(?:base|attached|merged) +[0-9.]+ ms   [0-9.]+ × the base's time", out)) == 3
        answers = [run("predict", "--model", f, "the quick fox", "said she") for f in (folder, tmp_path / "merged")]
        assert answers[0] == answers[1]


# ---------------------------------------------------------------- export and import


WRITE_ON, CLASSIFY = ["generate", "--prompt", "the quick", "--tokens", 8], ["predict", "the quick fox", "said she"]


@pytest.mark.parametrize(
    "name, peft, ask", [("one", "peft", [*WRITE_ON, "--adapter"]), ("classes", "classes_peft", [*CLASSIFY, "--model"])]
)
def test_there_and_back(name, peft, ask, world, tmp_path, run):
    """Base and adapter out, base and adapter in: every tensor's bytes, and the same answers."""
    task, bases = load_task(world / name), [task_base(world / name), tmp_path / "ours"]
    assert read_json(world / "peft" / "adapter_config.json")["base_model_name_or_path"] == "some/base"
    run("export", world / name, "--to", "hf", "--out", tmp_path / "base")
    out = run("import", tmp_path / "base", "--from", "hf", "--out", tmp_path / "ours")
    assert f"d_model 16, 1 layers, 2 heads, {task.config.vocab_size} tokens" in out
    labels = ["--labels", *task.labels] if task.labels else []
    for base in bases[:1] if labels else bases:
        out = run("import", world / peft, "--from", "peft", "--base", base, "--out", tmp_path / "back", *labels)
        back = load_task(tmp_path / "back")
        assert back.labels == task.labels and same_bits(back.adapter.weights, task.adapter.weights)
        assert ("labels: a, b, c" in out) == bool(labels) and run(*ask, tmp_path / "back") == run(*ask, world / name)


@pytest.mark.parametrize("name, ask", [("hf", WRITE_ON), ("classes_hf", CLASSIFY)])
def test_an_import_without_its_tokenizer_waits_for_one(name, ask, world, own, tmp_path, run, fails):
    """And one with its tokenizer, or its labels, needs nothing else."""
    assert formats.load_hf(world / "classes_hf").labels == ["a", "b", "c"]
    run("import", world / name, "--from", "hf", "--out", tmp_path / "ours")
    (own(name) / "tokenizer.json").unlink()
    command = ["import", tmp_path / name, "--from", "hf", "--out", tmp_path / "bare"]
    assert "no tokenizer" in run(*command)
    fails(*ask, "--model", tmp_path / "bare", says=["tokenizer.json"])
    run(*command, "--tokenizer", world / "base" / "tokenizer.json")
    answers = {run(*ask, "--model", folder) for folder in (tmp_path / "ours", tmp_path / "bare")}
    assert answers == {run(*ask, "--model", world / {"hf": "base", "classes_hf": "classes"}[name])}


def test_an_adapter_without_a_head_on_a_classifier(world, own, tmp_path, run):
    """As PEFT makes it if no task is named: the base keeps its classes and their labels."""
    run("import", world / "classes_hf", "--from", "hf", "--out", tmp_path / "ours")
    peft = own("classes_peft")
    edit_tensors(peft / "adapter_model.safetensors", lambda t: {n: 9 * a for n, a in t.items() if "score" not in n})
    edit_fields(peft / "adapter_config.json", modules_to_save=None, task_type=None)
    run("import", peft, "--from", "peft", "--base", tmp_path / "ours", "--out", tmp_path / "back")
    assert load_task(tmp_path / "back").labels == ["a", "b", "c"]
    answers = [run("predict", "--model", tmp_path / f, "the quick fox", "said she") for f in ("back", "ours")]
    assert answers[0] != answers[1]


@pytest.mark.slow
def test_a_tokenizer_without_special_tokens(world, own, tmp_path, run, fails):
    """It is used wherever ours is, nothing is put in front of a text, and its files stay as they came.

    `oracles/test_tokenizers_hf.py` has tokenizers of all kinds.
    """
    hf = own("hf")
    fields = read_json(hf / "tokenizer.json")
    for name in model_files(hf):
        (hf / name).unlink()
    vocab = {token: i for token, i in fields["model"]["vocab"].items() if i > 1}  # without <|endoftext|> and <|pad|>
    fields |= {"model": fields["model"] | {"vocab": vocab}}
    formats.write_json(hf / "tokenizer.json", fields | {"post_processor": None, "added_tokens": [], "normalizer": None})
    ours, task, full = (tmp_path / name for name in ("ours", "task", "full"))
    run("import", hf, "--from", "hf", "--out", ours)
    for command, out in ((TABLE, task), (f"{TABLE} --method full", full), (TEXT, tmp_path / "text")):
        run(*command.replace("{w}/base", str(ours)).format(w=world, out=out).split(), "--epochs", 1)
    fails("predict", "--model", task, "fox", "", says=["text 1: got '', which has no tokens", "adds no special tokens"])
    assert run("predict", "--model", world / "classes", "fox", "").count("\n") == 2, "ours has an initial token"
    run("export", task, "--to", "merged", "--out", tmp_path / "merged")
    run("export", full, "--to", "hf", "--out", tmp_path / "back")
    run("merge", task, "--out", tmp_path / "whole")
    for folder in (ours, full, tmp_path / "merged", tmp_path / "back", tmp_path / "whole"):
        assert model_files(folder) == model_files(hf) != {}


def test_an_imported_tokenizer_keeps_its_files(own, world, tmp_path, run):
    """Byte for byte, however they are written; with a tokenizer from elsewhere, a model keeps its own end of a text."""
    hf, out = own("hf"), [tmp_path / "ours", tmp_path / "back"]
    for path in hf.glob("*.json"):
        if path.name != "config.json":
            path.write_bytes(b"\n" + path.read_bytes() + b" \n")
    (hf / "chat_template.jinja").write_bytes(b"{{ messages }}\r\n")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (hf / name).write_text("{}")
    for more in ([], ["--tokenizer", world / "base"]):
        run("import", hf, "--from", "hf", "--out", out[0], *more)
        run("export", out[0], "--to", "hf", "--out", out[1])
        generation = model_files(hf)["generation_config.json"]
        expected = model_files(more[-1] if more else hf) | {"generation_config.json": generation}
        assert model_files(out[0]) == model_files(out[1]) == expected and len(expected) > 2
        shutil.rmtree(out[0])
        shutil.rmtree(out[1])


# ---------------------------------------------------------------- inspect


def test_inspect(world, tmp_path, run):
    out = run("inspect", world / "one", "--json", tmp_path / "one.json")
    assert "blocks.0.mlp.up_proj.lora_A" in out and "effective rank" in out
    row = {row["layer"]: row for row in read_json(tmp_path / "one.json")["adapters"]}["blocks.0.mlp.up_proj"]
    weights = load_task(world / "one").adapter.weights
    A, B = (weights[f"blocks.0.mlp.up_proj.lora_{x}"].astype(float) for x in "AB")
    sigma = np.linalg.svd(2.0 * B @ A, compute_uv=False)
    assert row["rank"] == 2 and row["scale"] == 2.0
    assert row["norm_update"] == pytest.approx(np.linalg.norm(sigma))
    assert row["stable_rank"] == pytest.approx(np.sum(sigma**2) / sigma[0] ** 2)
    p = sigma[sigma > 1e-9 * sigma[0]] / sigma.sum()
    assert row["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    out = run("inspect", world / "peft")
    assert "transformer.h.0.attn.c_attn.lora_A.weight" in out and "format=pt" in out


def test_inspect_takes_any_file(own, world, tmp_path, run):
    """Of any model, in pieces, or of one that is none of ours; broken numbers are shown as such."""
    tensors, _ = read_tensors(world / "full" / "model.safetensors")
    formats.write_tensors(tmp_path / "a.safetensors", tensors)
    index = tmp_path / "model.safetensors.index.json"
    formats.write_json(index, {"weight_map": dict.fromkeys(tensors, "a.safetensors")})
    for path in (world / "full" / "model.safetensors", tmp_path, index):
        assert "tok_emb.weight" in run("inspect", path)
    name, path = "base_model.model.model.layers.0.self_attn.q_proj", tmp_path / "any.safetensors"
    tensors = {f"{name}.lora_A.weight": np.ones((2, 30), np.float16), f"{name}.lora_B.weight": np.eye(40, 2)}
    formats.write_tensors(path, tensors)
    out = run("inspect", path)
    assert f"{name} " in out and "40×30" in out and "No configuration gives s" in out
    formats.write_tensors(path, tensors | {f"{name}.lora_B.weight": np.full((40, 2), np.nan)})
    assert "not finite" in run("inspect", path, "--json", tmp_path / "any.json")
    assert read_json(tmp_path / "any.json")["adapters"] == []
    folder = own("peft")
    for fields in ("[]", '{"rank_pattern": [1]}', '{"rank_pattern": "ab"}', '{"r": "x"}', "{", "{}"):
        (folder / "adapter_config.json").write_text(fields)
        assert "No configuration gives s" in run("inspect", folder), fields


@pytest.mark.parametrize(
    "error, line",
    [
        (PermissionError(13, "Permission denied", "a/b.csv"), "a/b.csv: permission denied\n"),
        (OSError(28, "No space left on device", Path("a/b.csv")), "a/b.csv: no space left on device\n"),
        (OSError(28, "No space left on device"), "standard output: no space left on device\n"),
        (OSError(5, "Input/output error"), "input/output error\n"),
        (ValueError("a\n\x1b[2J\u202eb"), "a\\n\\x1b[2J\\u202eb\n"),
        (ValueError("x" * 5000), f"{'x' * 493} … {'x' * 500}\n"),
        (MemoryError(), "not enough memory; close other programs, or use a smaller model, file or --batch-size\n"),
        (MemoryError("Unable to allocate 8 GiB"), "not enough memory (Unable to allocate 8 GiB); close other "),
        (RecursionError("maximum"), "a value in one of the files is nested too deeply\n"),
    ],
    ids=repr,
)
def test_an_error_in_words(error, line, fails, monkeypatch):
    monkeypatch.setattr("lora_np.cli.tasks.inspect_file", mock.Mock(side_effect=error))
    assert fails("inspect", "critics").startswith(f"error: {line}")


# ---------------------------------------------------------------- what is read is not written over

OVER = """
inspect one --json @one/adapter.safetensors
inspect one --json @one:/new.json
inspect one/adapter.safetensors --json @one/adapter.json
doctor one --json @one:/new.json
explore one --out @one:/page.html
explore one --text-file data/corpus.txt --out @data/corpus.txt
reference check @one --vectors @one --json one/new.json
run --quick --out figures --store @one --json one/new.json
experiment main_job --out @one --store one
tune --out @one:/new.json --store one
tune --out @data/rows.jsonl
bench --rungs 64 --peers old={root} --json {root}/lora_np/{more}cli/x.json
classroom grade x.txt --json @x.txt
classroom grade x.txt --out @.
classroom grade exercises --json @exercises/07_lora_layer.ipynb
reference export @one
import hf --from hf --out @one --tokenizer one/adapter.json
import hf --from hf --out @hf
import peft --from peft --base base --out @peft
import peft --from peft --base base --out @base
finetune --base base --text-file @two/task.txt --out two
finetune --base base --data rows.jsonl --text t --label l --out @.
finetune --base @base --data data/rows.jsonl --text t --label l --out base --method full
merge one --out @base
merge one --out @one
mix one two --out @two
mix one two --out @base
export one --to hf --out @base
export one --to merged --out @one
export one --to peft --out @one
predict --model classes --data data/rows.jsonl --out @data/rows.jsonl
predict --model classes hello --out @classes:/answers.csv
predict --model classes hello --out @base:/answers.csv
evaluate --model classes --data data/rows.jsonl --json @data/rows.jsonl
evaluate --model classes --data data/rows.jsonl --out @classes/task.json
"""


@pytest.mark.parametrize("alias", ["itself", "link", "hard link", "spelling"])
def test_no_file_that_is_read_is_written_over(alias, world, tmp_path, fails, monkeypatch):
    """By whatever name."""
    monkeypatch.setattr("lora_np.experiments.tuning.carry_out_all", None)
    monkeypatch.setattr("lora_np.experiments.laboratory.carry_out_all", None)

    def other(match):
        """Another name of a path."""
        path, name = world / match[1], tmp_path / f"alias{len(list(tmp_path.iterdir()))}{Path(match[1]).suffix}"
        if alias == "link" or (alias == "hard link" and not path.is_file()):
            name.symlink_to(path)
        elif alias == "hard link":
            os.link(path, name)
        else:
            name = path if alias == "itself" else path.parent / ".." / path.parent.name / path.name
        return str(name)

    monkeypatch.chdir(world)
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    for command in OVER.format(root=ROOT, more="../lora_np/" * (alias == "spelling")).strip().splitlines():
        fails(*re.sub("@([^: ]+):?", other, command).split())
    assert {path: path.read_bytes() for path in world.rglob("*") if path.is_file()} == before


def test_an_export_of_the_vectors_takes_its_own_place_again(tmp_path, monkeypatch, run):
    """After one that was interrupted, too."""
    monkeypatch.setattr("lora_np.reference.manifest.reference_cases", dict)
    monkeypatch.setattr("lora_np.reference.manifest.commit", lambda: None)
    for _ in range(2):
        manifest.export(tmp_path / "out")
        (tmp_path / "out" / "manifest.json").unlink()


def test_only_pretrain_replaces_what_comes_with_the_package(tmp_path, fails, monkeypatch):
    shipped = tmp_path / "pretrained"
    (shipped / "adapters").mkdir(parents=True)
    (tmp_path / "link").symlink_to(shipped)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_np.formats.paths.PRETRAINED", shipped)
    for name in ("load_reviews", "load_base"):
        monkeypatch.setattr(f"lora_np.experiments.pretrain.{name}", None)  # a training begins by calling one
    for words in ([], ["--out", "link"], ["--adapters", "--out", "link/adapters"]):
        fails("pretrain", *words, says=["comes with the package", "--force"])
        fails("pretrain", *words, "--force", says=["'NoneType' object is not callable"])
    for command in ("merge critics", "mix critics", "export critics --to hf"):
        fails(*command.split(), "--out", "link/adapters/critics", says=["out: link/adapters", "comes with the package"])
    fails("pretrain", "--out", "other", says=["'NoneType' object is not callable"])
    (tmp_path / "mine" / "critics").mkdir(parents=True)
    (tmp_path / "mine" / "critics" / "notes.txt").touch()  # found before the training, and not after it
    fails("pretrain", "--adapters", "--out", "mine", says=["contains unrelated files, such as 'notes.txt'"])


def test_a_folder_with_the_name_of_an_included_adapter(tmp_path, monkeypatch, capsys):
    """It takes precedence, with one warning where it is read, and one where it is written."""
    monkeypatch.chdir(tmp_path)
    write = "generate --prompt the --tokens 1 --adapter".split()
    for words, says in (
        ([*write, "critics"], ""),
        (["mix", "licences", "--out", "critics"], "warning: critics: in the current folder, this name now refers to"),
        ([*write, "critics"], "warning: critics: the current folder has a folder with this name"),
        ([*write, "./critics"], ""),
    ):
        assert main(words) == 0
        error = capsys.readouterr().err
        assert error.startswith(says) and error.count("\n") == bool(says), error


# ---------------------------------------------------------------- streams that are closed or full, and little memory

FULL = "error: standard output: no space left on device\n"
STREAMS = [  # redirections (gone: stdout's reader has left), command, exit code, stderr
    ("", "inspect none", 2, "error: none: no such folder"),
    ("gone", "inspect critics", 141, ""),
    ("gone", "--help", 141, ""),
    ("gone", "inspect none", 2, "error: none: no such folder"),
    (">&-", "inspect critics", 0, ""),
    ("2>&-", "inspect none", 2, ""),
    ("<&- >&- 2>&-", "inspect critics", 0, ""),
    ("2>/dev/full", "inspect none", 2, ""),
    (">/dev/full", "inspect critics", 2, FULL),
    (">/dev/full", "--help", 2, FULL),
]


@pytest.mark.skipif(os.name != "posix", reason="of shells")
@pytest.mark.parametrize(
    "streams, command, code, error", [pytest.param(*row, marks=pytest.mark.slow if row[0] else ()) for row in STREAMS]
)
def test_a_stream_that_nobody_reads(streams, command, code, error, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    said = tmp_path / "said.json"
    words = [*command.split(), *(["--json", str(said)] if command.startswith("inspect") else [])]
    shell = f'exec "$@" {streams.replace("gone", "")}'
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "lora_np", *words],
        cwd=ROOT,
        env=environment,
        stdout=writer if streams == "gone" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert done.returncode == code and not done.stdout
    assert done.stderr.startswith(error) and done.stderr.count("\n") == bool(error)
    if command == "inspect critics":  # the work is done all the same
        assert len(read_json(said)["tensors"]) == 24


def test_two_outputs_of_evaluate_are_two_files_and_a_picture_is_a_png(world, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--model", world / "classes", "--data", world / "data" / "rows.csv"]
    fails(*command, "--out", "x.png", "--json", "./x.png", says=["json: got './x.png', which is also --out"])
    fails(*command, "--out", "x.jpg", says=["out: got 'x.jpg', expected a file that ends in .png"])
    assert not list(tmp_path.iterdir())


def test_files_in_utf_16_and_numbers_of_thousands_of_digits(world, tmp_path, fails):
    (tmp_path / "a.csv").write_bytes("t,l\nthe fox,a\n".encode("utf-16-le"))
    (tmp_path / "a.jsonl").write_text('{"t": "the fox", "l": %s}\n' % ("1" * 5000))
    command = ["finetune", "--text", "t", "--label", "l", "--out", tmp_path / "x", "--base", world / "base", "--data"]
    fails(*command, tmp_path / "a.csv", says=["has null bytes, as UTF-16 files do; save the file as UTF-8"])
    fails(*command, tmp_path / "a.jsonl", says=["row 1, line 1", "got an integer with 5000 digits"])


def test_a_deleted_folder_is_named(tmp_path, fails, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    fails("mix", "critics", "--out", "x", says=["error: the current folder: no such file or directory"])


def test_a_line_that_is_not_utf_8_does_not_end_a_chat(monkeypatch, capsys):
    lines = iter([os.fsdecode(b"caf\xe9"), " ", "hello"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert next_line() == "hello"
    assert capsys.readouterr().err == "warning: the line is not UTF-8 and is ignored; type it again\n"


def test_control_characters_do_not_reach_the_terminal(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "the \x1b[2J fox 👨\u200d👩\n"
    for words in (["generate", "--model", world / "full", "--prompt", text, "--tokens", 1],
                  ["mix", world / "one", "--out", "a\x1b[2J"]):  # fmt: skip
        assert main([str(word) for word in words]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\\x1b[2j" in out.lower() and ("👨\u200d👩" in out) == (words[0] == "generate")


def test_a_bar_is_shown_while_a_file_is_predicted(world, tmp_path, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    bars, bar = [], mock.MagicMock()
    monkeypatch.setattr(tqdm, "tqdm", lambda desc, **settings: bars.append(desc) or bar)
    data = write_csv(tmp_path / "in.csv", [("the quick fox",)] * 40, ("t",))
    assert main(["predict", "--model", str(world / "classes"), "--data", str(data)]) == 0
    assert bars == ["predict"] and capsys.readouterr().err == ""
