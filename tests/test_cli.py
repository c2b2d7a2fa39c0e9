"""The commands, as a user would run them: finetune, predict, generate, mix, merge, export, import, inspect, doctor."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig
from lora_np.classroom.notebooks import write_notebook
from lora_np.classroom.release import notebook_of
from lora_np.classroom.sets import read_sets
from lora_np.cli import main
from lora_np.data import encode, model_files
from lora_np.experiments.recipes import RECIPES
from lora_np.formats import (
    PRETRAINED,
    load_adapter,
    load_hf,
    load_model,
    load_task,
    read_json,
    read_tensors,
    save_model,
    shipped_adapters,
    task_base,
    write_json,
    write_tensors,
)
from lora_np.model import forward
from lora_np.reference import manifest
from lora_np.tasks import classifier as user_task
from lora_np.tasks.adapter_set import load_adapter_set, mixed
from lora_np.tasks.labelling import label_records, text_records
from lora_np.tasks.report import class_report, format_report, wilson_interval
from lora_np.tasks.table import balanced_weights
from lora_np.tasks.writing import pieces, write_text_from

from .tiny import edit_fields, edit_tensors

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = [f"the quick {animal} jumps over the lazy {thing} , said {who}" for animal in ("fox", "cat", "hen", "owl")
             for thing in ("dog", "log", "bog", "fog") for who in ("he", "she", "they")]  # fmt: skip


@pytest.fixture(scope="module")
def taught(tiny_base, tmp_path_factory):
    """What commands made of the tiny base; not to be changed.

    "one" and "two" are adapters of the language model, "classes" is a classifier's, "full" a whole model; "hf",
    "peft", "classes_peft" and "classes_hf" (merged) are exports of "one" and "classes".
    """
    folder = tmp_path_factory.mktemp("taught")
    (folder / "corpus.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    (folder / "model.safetensors.index.json").write_text("{}")
    for name, content in (("blank", b" \n\t\n"), ("latin", b"good\nbad \xff\n"), ("short", b"too short")):
        (folder / f"{name}.txt").write_bytes(content)
    for name, labels in (("rows", "abc"), ("same", "a"), ("unheard", "abcd")):
        rows = [json.dumps({"t": s, "l": labels[i % len(labels)]}) for i, s in enumerate(SENTENCES)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows[: 4 if name == "unheard" else None]), encoding="utf-8")
    text = f"finetune --base {tiny_base} --epochs 2 --text-file {folder}/corpus.txt --out {folder}"
    for command in (
        f"{text}/one --rank 2 --lr 0.03",
        f"{text}/two --rank 3 --lr 0.01 --seed 1",
        f"{text}/full --method full",
        f"finetune --base {tiny_base} --epochs 2 --data {folder}/rows.jsonl --text t --label l --out {folder}/classes",
        f"export {folder}/one --to hf --out {folder}/hf",
        f"export {folder}/one --to peft --out {folder}/peft --base-name some/base",
        f"export {folder}/classes --to peft --out {folder}/classes_peft",
        f"export {folder}/classes --to merged --out {folder}/classes_hf",
    ):
        assert main(command.split()) == 0
    return folder


@pytest.fixture
def own(taught, tmp_path):
    """Function (name) -> a copy of a folder in `taught` that may be changed."""
    return lambda name: shutil.copytree(taught / name, tmp_path / name)


def same_arrays(first, second):
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------- finetune --data, and predict

DELIVERY = ("refund my order please", "where is my parcel", "the parcel never came")
PRAISE = ("thank you so much", "great help today", "what a lovely service")


def write_csv(path, rows, header=("body", "topic")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def tickets(tmp_path):
    rows = [(f"{text}, ticket {i}", "praise") for i in range(15) for text in PRAISE]
    rows += [(f"{text}, ticket {i}", "delivery") for i in range(15) for text in DELIVERY]
    return write_csv(tmp_path / "tickets.csv", rows)


@pytest.fixture
def words(tickets, tmp_path, tiny_base):
    """Function (*more, data, out, base) -> the words of a finetune command."""

    def make(*more, data=tickets, out=tmp_path / "out", base=tiny_base):
        columns = ["--text", "body", "--label", "topic", "--lr", "0.01"]
        epochs = () if "--epochs" in more else ("--epochs", "6")
        return ["finetune", "--data", data, *columns, "--out", out, "--base", base, *epochs, *more]

    return make


def about(folder):
    return read_json(folder / "task.json")


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_finetune_and_predict(method, words, tickets, tmp_path, run):
    out, answers = tmp_path / "out", tmp_path / "answers.jsonl"
    assert "labels: delivery, praise" in run(*words("--method", method))
    task = about(out)
    assert task["rows"] == {"train": 72, "validation": 9, "test": 9, "left_out": 0}
    if method != "head":  # a random base's features tell a linear head little
        assert task["test_accuracy"] > 0.8
    label, probability, text = run("predict", "--model", out, "the parcel never came, ticket 99").strip().split("\t")
    assert label in task["labels"] and 0.5 <= float(probability) <= 1.0 and "never came" in text
    run("predict", "--model", out, "--data", tickets, "--text", "body", "--out", answers)
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 90
    expected = ["praise"] * 45 + ["delivery"] * 45
    share = np.mean([line["label"] == label for line, label in zip(lines, expected)])
    assert share >= (0.5 if method == "head" else 0.8)


@pytest.mark.parametrize("more", [["--rank", "3", "--targets", "q_proj", "--seed", "2"], ["--method", "head"]])
def test_a_run_is_repeated_from_its_settings(more, words, run, tmp_path):
    """Bit for bit, and options change single settings."""
    out, again, other = (tmp_path / name for name in ("out", "again", "other"))
    run(*words("--epochs", "1", *more))
    run("finetune", "--settings", out / "task.json", "--out", again)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}
    run("finetune", "--settings", out / "task.json", "--out", other, "--lr", "0.02", "--class-weights", "balanced")
    changes = {"learning_rate": 0.02, "class_weights": "balanced"}
    assert about(other)["settings"] == about(out)["settings"] | changes


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rank": 3}, "rank: no setting of the task 'classifier', expected one of adapter, base"),
        ({"epochs": "3"}, "epochs: got '3', expected a whole number"),
        ({"adapter": {"rank": 3}}, "adapter: got 'rank', expected one of variant, r, alpha"),
        ({"adapter": {"r": 0}}, "r: got 0, expected a whole number of at least 1"),
        ({"quoting": "no"}, "quoting: got 'no', expected True or False"),
        ({"text_column": 5}, "text_column: got 5, expected a text"),
        ({"task": "poem"}, "task: got 'poem', expected one of classifier, question, text, chat"),
    ],
)
def test_a_wrong_field_of_a_settings_file_is_named(change, message, tickets, tmp_path, fails):
    path = tmp_path / "settings.json"
    values = {"data": str(tickets), "text_column": "body", "label_column": "topic", "method": "lora", **change}
    path.write_text(json.dumps(values))
    fails("finetune", "--settings", path, "--out", tmp_path / "out", says=[f"{path}: {message}"])


def test_an_adapter_is_small_and_has_its_head(words, run, tmp_path, tiny_base):
    out = tmp_path / "out"
    run(*words("--rank", "2", "--targets", "all-linear"))
    tensors, _ = read_tensors(out / "adapter.safetensors")
    assert tensors["head.weight"].shape == (2, 16)
    assert tensors["blocks.0.mlp.up_proj.lora_A"].shape == (2, 16)
    assert not (out / "model.safetensors").exists()
    params, _ = load_model(tiny_base)
    adapter = load_adapter(out, {**params, "head.weight": tensors["head.weight"]})
    assert adapter.config == AdapterConfig(r=2, alpha=4.0, targets=("all-linear",))


def test_predictions_do_not_depend_on_their_neighbours(words, run, tmp_path):
    run(*words())
    classifier = user_task.load_classifier(tmp_path / "out")
    texts = ["the parcel never came", "great help " * 30, "lovely"]
    together = user_task.predict(classifier, texts)
    alone = [user_task.predict(classifier, [text])[0] for text in texts]
    assert [label for label, _ in together] == [label for label, _ in alone]
    assert np.allclose([p for _, p in together], [p for _, p in alone], atol=1e-6)


def test_a_test_file_of_its_own(words, run, fails, tickets, tmp_path):
    """Rows of the table that are in it too, in any case and spacing, are not trained on."""
    unseen = [("my parcel is lost", "delivery"), ("never seen", "praise")]
    known = [("The parcel never came -- ticket 3", "delivery"), ("thank you so much, ticket 0", "praise")]
    run(*words("--test", write_csv(tmp_path / "test.csv", unseen)))
    assert about(tmp_path / "out")["rows"] == {"train": 81, "validation": 9, "test": 2, "left_out": 0}
    assert "2 of" in run(*words("--test", write_csv(tmp_path / "test.csv", known + unseen)))
    rows = about(tmp_path / "out")["rows"]
    assert rows["left_out"] == 2 and rows["train"] + rows["validation"] == 88
    fails(*words("--test", tickets, out=tmp_path / "other"), says=["test_data", "nothing is left"])


def test_texts_beyond_the_position_table_are_counted(words, run, tmp_path):
    rows = [
        (f"{text}, ticket {i} {'and so on ' * 9 * (i < 4)}", text.split()[0]) for i in range(12) for text in DELIVERY
    ]
    assert "12 texts have more than 24 tokens" in run(*words(data=write_csv(tmp_path / "long.csv", rows)))


def test_validation_accuracy_is_that_of_the_saved_weights(words, run, tmp_path, monkeypatch):
    scores = iter([{"loss": 0.5, "accuracy": 0.8}, {"loss": 0.6, "accuracy": 0.9}])
    monkeypatch.setattr("lora_np.training.fine_tune.evaluate", lambda *_: next(scores, {"loss": 0.7, "accuracy": 0.1}))
    run(*words("--epochs", "1"))
    assert about(tmp_path / "out")["validation_accuracy"] == 0.8


def test_an_unusable_folder_is_refused_before_the_training(words, fails, tickets, monkeypatch):
    monkeypatch.setattr("lora_np.tasks.finetune.train", None)
    before = tickets.read_bytes()
    for command in (
        words(out=tickets),
        words(out=tickets / "below"),
        ["run", "--quick", "--out", tickets],
        ["pretrain", "--reviews", "1", "--out", tickets],
    ):
        fails(*command, says=["out: ", "is a file"])
    assert tickets.read_bytes() == before


def test_nan_in_the_loss(words, fails, tiny_base, tmp_path):
    params, config = load_model(tiny_base)
    broken = tmp_path / "broken"
    save_model(broken, {**params, "ln_f.weight": params["ln_f.weight"] * np.float32(3e38)}, config)
    shutil.copy(PRETRAINED / "tokenizer.json", broken)
    with np.errstate(all="ignore"):
        fails(*words(base=broken), says=["the loss became", "step 1", "learning rate"])
    assert not (tmp_path / "out").exists()


DAMAGES = [  # of the task.json that a method wrote: (method, its new text or fields, what the error says)
    ("lora", {"labels": ["a", "b", "c"]}, ["head.weight", "shape"]),
    ("lora", {"base": "/nowhere/at/all"}, ["task.json", "/nowhere/at/all"]),
    ("lora", {"base_sha256": "of another"}, ["trained on another base"]),
    ("lora", "[]", ["task.json"]),
    ("lora", "{}", ["task.json", "labels missing"]),
    ("lora", None, ["no task.json"]),
    *[("full", {"labels": x}, ["task.json", "labels"]) for x in (["delivery"], [*"abc"], 5, [1, 2], "ab", ["a", "a"])],
]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_damaged_results(method, words, run, fails, tmp_path):
    out, good = tmp_path / "out", tmp_path / "good"
    run(*words("--epochs", "1", "--method", method, out=good))
    for _, change, says in [row for row in DAMAGES if row[0] == method]:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(good, out)
        if isinstance(change, dict):
            edit_fields(out / "task.json", **change)
        else:
            (out / "task.json").unlink() if change is None else (out / "task.json").write_text(change)
        fails("predict", "--model", out, "hello", says=says)
    text = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Python hands over a byte that is not UTF-8
    fails("predict", "--model", good, "hello", text, says=["text 1", "not UTF-8"])


def test_as_a_module_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "lora_np", "predict", "--model", str(tmp_path / "none"), "hello"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr and not done.stdout


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
    report = class_report(labels, true, answered, {"other": true})
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
    long = class_report([f"{label} {'very ' * 40} long" for label in labels], true, answered)
    assert max(map(len, lines + format_report(long).splitlines())) <= 100
    assert f'"c{K - 1}" is never predicted; test texts of this class: {np.sum(true == K - 1)} of 200' in lines
    for name, its in report["others"].items():
        for measure, words in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
            overlaps = its[f"{measure}_interval"][0] <= report[f"{measure}_interval"][1]
            overlap = "(the intervals overlap)" if overlaps else "(the intervals do not overlap)"
            said = [line.endswith(overlap) for line in lines if line.startswith(f"{name} wins in {words}: ")]
            assert said == [True] * (its[measure] > report[measure])


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


def test_the_report_of_a_fine_tuning(words, run, tmp_path, tickets):
    printed, task = run(*words()), about(tmp_path / "out")
    report, curve = task["test"], task["validation"]
    assert {*report["others"]} == {"tf-idf", 'always "praise"'} and report["texts"] == 9
    assert task["test_accuracy"] == report["accuracy"] and task["commonest_label_share"] == report["commonest_share"]
    for scores in (report, *report["others"].values()):
        low, high = scores["accuracy_interval"]
        assert f"{100 * scores['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in printed
    assert curve["step"][-1] == 18 and len(curve["step"]) == len(curve["loss"]) == len(curve["accuracy"]) == 18
    assert task["validation_accuracy"] == curve["accuracy"][int(np.argmin(curve["loss"]))]
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert (task["text_column"], task["label_column"], task["class_weights"]) == ("body", "topic", "none")
    run(
        "evaluate",
        "--model",
        tmp_path / "out",
        "--data",
        tickets,
        "--json",
        tmp_path / "a.json",
        "--out",
        tmp_path / "a.png",
    )
    again = read_json(tmp_path / "a.json")
    answers = user_task.predict(
        user_task.load_classifier(tmp_path / "out"), [row["body"] for row in read_rows(tickets)]
    )
    right = [label == row["topic"] for (label, _), row in zip(answers, read_rows(tickets))]
    assert again["accuracy"] == np.mean(right) and again["texts"] == 90 and {*again["others"]} == {'always "delivery"'}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_without_scikit_learn_and_matplotlib(words, run, tmp_path, monkeypatch):
    for package in ("sklearn", "sklearn.feature_extraction.text", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)
    printed = run(*words())
    assert "scikit-learn is not installed" in printed and "matplotlib is not installed" in printed
    assert {*about(tmp_path / "out")["test"]["others"]} == {'always "praise"'}
    assert not (tmp_path / "out" / "confusion.png").exists()


@pytest.mark.slow
def test_balanced_classes(run, words, tmp_path):
    """Where the texts tell nothing, the plain loss gives a rare class its share, and the balanced one nearly half."""
    rows = [(f"{text}, ticket {i}", "rare" if i >= 60 else "common") for i in range(64) for text in PRAISE]
    table, share = write_csv(tmp_path / "rare.csv", rows), {}
    for weights in ("none", "balanced"):
        out = tmp_path / weights
        printed = run(*words("--epochs", "2", "--class-weights", weights, data=table, out=out))
        assert ("--class-weights balanced" in printed) == (weights == "none")  # the advice
        share[weights] = label_records(out, text_records([text for text, _ in rows]), "text")[2][:, 1].mean()
    assert '"rare" is never predicted; test texts of this class: 1 of 19' in run(*words("--epochs", "2", data=table))
    assert share["none"] < 0.25 and share["balanced"] > 0.35


def read_rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file]
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_predictions_keep_all_columns(suffix, taught, run, tmp_path):
    given = [{"id": "007", "t": "the quick fox", "label": "=1+1"}, {"id": "", "t": " she said, 'so' ", "label": "-2"}]
    data, out = tmp_path / "in.csv", tmp_path / f"out{suffix}"
    write_csv(data, [list(row.values()) for row in given], ("id", "t", "label"))
    command = ["predict", "--model", taught / "classes", "--data", data]
    assert "2 texts; saved in" in run(*command, "--out", out)
    rows, plain = (
        read_rows(out),
        user_task.predict(user_task.load_classifier(taught / "classes"), [r["t"] for r in given]),
    )
    for row, before, (label, p) in zip(rows, given, plain):
        assert list(row) == ["id", "t", "label", "predicted_label", "probability"]
        assert {name: row[name] for name in before} == before
        assert row["predicted_label"] == label and float(row["probability"]) == pytest.approx(p, abs=1e-6)
    run(*command, "--out", out, "--proba")
    for row, (label, p) in zip(read_rows(out), plain):
        every = {name.removeprefix("p_"): float(x) for name, x in row.items() if name.startswith("p_")}
        assert list(every) == ["a", "b", "c"] and sum(every.values()) == pytest.approx(1, abs=1e-5)
        assert max(every, key=every.get) == label and every[label] == pytest.approx(p, abs=1e-6)
    label, p, every, _ = run(*command, "--proba").splitlines()[0].split("\t")
    assert label == plain[0][0] and f"{label}={p}" in every.split()


def test_an_empty_cell_is_an_empty_text(taught, tmp_path, capsys):
    data = write_csv(tmp_path / "in.csv", [("1", "the quick fox"), ("2", "")], ("id", "t"))
    assert main(["predict", "--model", str(taught / "classes"), "--data", str(data)]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 2 and "empty texts: 1, the first in row 2, line 3" in said.err


def test_answers_do_not_replace_what_is_read_through_a_link(taught, tmp_path, fails):
    data = tmp_path / "in.jsonl"
    shutil.copy(taught / "rows.jsonl", data)
    os.symlink(data, tmp_path / "soft.jsonl")
    os.link(data, tmp_path / "hard.jsonl")
    for name in ("soft", "hard"):
        out = tmp_path / f"{name}.jsonl"
        fails("predict", "--model", taught / "classes", "--data", data, "--out", out, says=["is also read from"])


# ---------------------------------------------------------------- finetune --text-file


def test_teaching_a_text(taught, tiny_base, tmp_path, run):
    command = ["finetune", "--text-file", taught / "corpus.txt", "--base", tiny_base, "--epochs", 2]
    out = run(*command, "--rank", 2, "--lr", 0.03, "--out", tmp_path / "out")
    assert "training 448 parameters" in out and "test perplexity" in out
    about = read_json(tmp_path / "out" / "task.json")
    assert about["labels"] is None and about["test_perplexity"] < about["test_perplexity_before"]
    assert sum(about["tokens"].values()) == sum(len(ids) for ids in encode(load_task(tiny_base).tokenizer, SENTENCES))
    first, again = (load_task(folder).adapter.weights for folder in (taught / "one", tmp_path / "out"))
    assert same_arrays(first, again)  # a pure function of its settings
    assert load_task(taught / "full").adapter is None


BARE_TEXT = "finetune --text-file {taught}/corpus.txt --out {out}"
BARE_TABLE = "finetune --data {taught}/rows.jsonl --text t --label l --out {out}"
TEXT, TABLE = f"{BARE_TEXT} --base {{base}}", f"{BARE_TABLE} --base {{base}}"
WRITE = "generate --prompt the"
REFUSALS = [
    (f"{TEXT} --text t", "text_column: no setting of the task 'text'"),
    (f"{TEXT} --test x.csv", "test_data: no setting of the task 'text'"),
    (f"{TEXT} --method head", "method: got 'head', expected one of lora, full"),
    (f"{TEXT} --epochs 0", "epochs: got 0, expected a whole number"),
    (f"{TABLE} --targets w_proj", "targets: 'w_proj' fits no layer; expected one of q_proj"),
    (f"{TABLE} --rank 0", "r: got 0, expected a whole number of at least 1"),
    (f"{TABLE} --rank 17", "blocks.0.attn.q_proj: r: got 17, expected at most min(out, in) = 16"),
    (f"{TABLE} --lora-dropout 1.5", "dropout: got 1.5"),
    (f"{TABLE} --dropout 1", "dropout: got 1"),
    (f"{TABLE} --lr 0", "learning_rate: got 0.0"),
    (f"{TABLE} --batch-size 0", "batch_size: got 0"),
    (f"{TABLE} --seed -1", "seed: got -1"),
    (TABLE.replace("--text t", "--text T"), "text_column is 'T', which"),
    (TABLE.replace("rows.jsonl", "none.csv"), "none.csv: there is no such file"),
    (TABLE.replace("rows.jsonl", "same.jsonl"), "labels: got 1 class(es), 'a', expected at least two"),
    (f"{TABLE} --test {{taught}}/unheard.jsonl", "labels: got 'd' in 1 of 4 rows, expected the classes known"),
    ("finetune --data {taught}/rows.jsonl --out {out}", "for texts and labels, name their columns"),
    ("finetune --text-file {taught}/none.txt --base {base} --out {out}", "there is no such file"),
    ("finetune --text-file {taught}/blank.txt --base {base} --out {out}", "holds no text"),
    ("finetune --text-file {taught}/latin.txt --base {base} --out {out}", "line 2: byte 0xff is not UTF-8"),
    ("finetune --text-file {taught}/short.txt --base {base} --out {out}", "has 3 tokens, expected at least 32"),
    (f"{WRITE} --adapter nobody", "nobody: no such folder"),
    (f"{WRITE} --adapter nobody", f"come with the package: {', '.join(shipped_adapters())}"),
    (f"{WRITE} --adapter {{taught}}/classes", "got a classifier"),
    (f"{WRITE} --adapter {{taught}}/full", "got a whole model, expected an adapter"),
    (f"{WRITE} --adapter {{taught}}/one {{taught}}/one", "is repeated"),
    (f"{WRITE} --adapter base {{taught}}/one --weights 1 1", "'base' is not an adapter"),
    (f"{WRITE} --adapter {{taught}}/one {{taught}}/two --weights 1", "weights: got 1, expected one for each of 2"),
    (f"{WRITE} --model {PRETRAINED} --adapter {{taught}}/one", "trained on another base"),
    (
        f"{WRITE} --model {PRETRAINED} --adapter {{taught}}/one",
        "give its base with --base, or for generate with --model",
    ),
    *[
        (
            f"{command} {{taught}}/hf{rest}",
            "hf: this is a Hugging Face model; read it first with: python -m lora_np import",
        )
        for command, rest in (
            (f"{WRITE} --model", ""),
            (f"{WRITE} --adapter {{taught}}/one --model", ""),
            (f"{BARE_TABLE} --base", ""),
            (f"{BARE_TEXT} --base", ""),
            ("predict x --model", ""),
            ("predict x --model {taught}/classes --base", ""),
            ("mix {taught}/one --out {out} --base", ""),
            ("import {taught}/peft --from peft --out {out} --base", ""),
            ("export --to hf --out {out}", ""),
            ("export {taught}/one --to hf --out {out} --base", ""),
        )
    ],
    (f"{WRITE} --model {{taught}}/hf/model.safetensors", "(it is a file), expected a model's folder"),
    (f"{WRITE} --model {{taught}}/model.safetensors.index.json", "this is a Hugging Face model"),
    ("predict x --model {taught}", "no task.json and no config.json (blank.txt, classes, "),
    ("predict x --model {taught}/full --base {base}", "full is a whole model, which needs none"),
    ("predict x --model {taught}/classes --base {taught}/full", "trained on another base than the model in"),
    ("merge {taught}/one --weights 1e39 --out {out}", "weights: blocks.0.attn.q_proj.lora_B becomes nan or infinite"),
    ("mix {taught}/one --weights 1e39 --out {out}", "weights: blocks.0.attn.q_proj.lora_B becomes nan or infinite"),
    ("mix {taught}/one --weights 1e39 --rank 1 --out {out}", "weights: blocks.0.attn.q_proj.lora_B becomes nan"),
    (f"{WRITE} --adapter {{taught}}/one --weights 1e39", "weights: blocks.0.attn.q_proj.lora_B becomes nan"),
    # It would be easy to lose the adapter without a word.
    (f"{WRITE} --model {{taught}}/one", "one is an adapter, expected a model; give it as --adapter"),
    (f"{WRITE} --adapter {{taught}}/peft", "is a PEFT adapter"),
    (f"{WRITE} --top-k 0", "top_k: got 0"),
    (f"{WRITE} --tokens 0", "tokens: got 0"),
    (f"{WRITE} --seed -1", "seed: got -1"),
    ("mix {taught}/classes {taught}/one --out {out}", "has the labels"),
    ("mix {taught}/one {taught}/two --rank 0 --out {out}", "r: got 0"),
    ("merge base --out {out}", "'base' is not an adapter"),
    ("export {taught}/full --to peft --out {out}", "got a whole model"),
    ("export {taught}/one --to hf --base-name x --out {out}", "base-name: needs --to peft"),
    ("import x --from hf --labels a --out {out}", "labels: needs --from peft"),
    ("import x --from peft --tokenizer a --out {out}", "tokenizer: needs --from hf"),
    ("import {taught}/none --from hf --out {out}", "no such file or directory"),
    ("import {taught}/peft --from peft --out {out}", "has lora_A"),  # onto the shipped base
    (
        "import {taught}/peft --from peft --out {out} --base {base} --labels a b",
        "labels: got a, b; expected none, because the adapter has no head",
    ),
    (
        "import {taught}/classes_peft --from peft --out {out} --base {base} --labels a a b",
        "labels: got a, a, b; expected 3 different labels",
    ),
    ("predict --model x", "give either texts to classify or --data"),
    ("predict --model {taught}/classes --data {taught}/rows.jsonl --out x.txt", "out: got 'x.txt', expected a file"),
    ("predict --model {taught}/classes --text t hello", "text: needs --data"),
    ("predict --model {taught}/full --data {taught}/rows.jsonl", "text_column: is missing, and"),
    ("predict --model {taught}/classes --data {taught}/rows.jsonl --out {taught}/rows.jsonl", "is also read from"),
    (
        "predict --model {taught}/classes --data {taught}/rows.jsonl --out {taught}/classes/../rows.jsonl",
        "rows.jsonl is also read from",
    ),
    ("predict --model {taught}/classes hello --out {taught}/classes/answers.csv", "which is also read from"),
    ("predict --model {taught}/classes hello --out {base}/answers.csv", "which is also read from"),
    (
        "evaluate --model {taught}/classes --data {taught}/rows.jsonl --json {taught}/rows.jsonl",
        "json: {taught}/rows.jsonl is also read from",
    ),
    ("evaluate --model {taught}/classes --data {taught}/rows.jsonl --out {taught}/classes/task.json", "also read from"),
    ("evaluate --model {taught}/classes --data {taught}/unheard.jsonl", "labels: got 'd' in 1 of 4 rows, expected"),
    ("evaluate --model {taught}/one --data {taught}/rows.jsonl --text t --label l", "got a language model"),
    (f"{TEXT} --class-weights balanced", "class_weights: no setting of the task 'text'"),
    ("--seeds 0", "seeds: got 0"),
    ("run --quick --jobs 0", "jobs: got 0"),
    ("inspect {taught}/none", "no such folder"),
    ("doctor {taught}/peft", "base: is missing"),
    ("doctor {taught}/one --json {taught}/one/x.json", "json: {taught}/one/x.json is in {taught}/one"),
    ("pretrain --adapters --epochs 1 --out {out}", "epochs: only applies to the base"),
]


@pytest.mark.parametrize("command, message", REFUSALS)
def test_what_is_refused(command, message, taught, tiny_base, tmp_path, fails):
    places = {"taught": taught, "base": tiny_base, "out": tmp_path / "out"}
    fails(*command.format(**places).split(), says=[message.format(**places)])
    assert not (tmp_path / "out").exists()


LOOPS = [
    f"{BARE_TABLE} --base LOOP", TEXT.replace("{out}", "LOOP"), "predict x --model LOOP", "inspect LOOP",
    "doctor LOOP", "doctor {taught}/one --base LOOP",
    "predict x --model {taught}/classes --base LOOP",
    "predict x --model {taught}/classes --out LOOP", "generate --prompt x --model LOOP",
    "inspect {taught}/one --json LOOP", "mix {taught}/one --out LOOP", "merge {taught}/one --base LOOP --out {out}",
    "export {taught}/one --to hf --out LOOP/x", "import LOOP --from hf --out {out}", "run --quick --store LOOP",
    "import {taught}/hf --from hf --out LOOP",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
@pytest.mark.parametrize("command", LOOPS)
def test_a_link_to_itself(command, taught, tiny_base, tmp_path, fails):
    loop = tmp_path / "LOOP"
    loop.symlink_to(loop)
    command = command.format(taught=taught, base=tiny_base, out=tmp_path / "out").replace("LOOP", str(loop))
    fails(*command.split(), says=[str(loop)])
    assert loop.is_symlink() and not (tmp_path / "out").exists()


# ---------------------------------------------------------------- models that are damaged, huge or elsewhere


def test_a_base_that_has_moved(words, tiny_base, tmp_path, run, fails):
    shutil.copytree(tiny_base, tmp_path / "base")
    run(*words("--epochs", "1", base=tmp_path / "base"))
    command = ["predict", "--model", tmp_path / "out", "thank you"]
    answer = run(*command)
    (tmp_path / "base").rename(tmp_path / "moved")
    for again in (command, ["export", tmp_path / "out", "--to", "hf", "--out", tmp_path / "hf"]):
        fails(
            *again, says=["task.json: its base cannot be read, ", "no such folder; if it has moved, give its base with"]
        )
        assert run(*again, "--base", tmp_path / "moved") in (
            answer,
            f"a classifier of 2 classes; saved in {tmp_path}/hf\n",
        )


@pytest.mark.parametrize(
    "command, says, factor",
    [
        ("predict x --model {broken}", "the logits became nan or infinite", 3e38),
        ("generate --prompt x --model {broken}", "the logits of the next token are not finite", 3e38),
        ("generate --prompt x --temperature 0 --model {broken}", "the logits of the next token are not finite", 3e38),
        (f"{BARE_TEXT} --base {{broken}}", "the logits became nan or infinite", 3e38),
        (f"{BARE_TEXT} --base {{broken}}", "the perplexity, e to the", 1e5),
    ],
)
def test_answers_that_are_not_finite(command, says, factor, taught, tiny_base, tmp_path, fails):
    params, config = load_model(tiny_base)
    params = {**params, "ln_f.weight": params["ln_f.weight"] * np.float32(factor)}
    if "predict" in command:
        params, config = {**params, "head.weight": np.ones((2, 16), np.float32)}, replace(config, n_classes=2)
    save_model(tmp_path / "broken", params, config)
    shutil.copy(PRETRAINED / "tokenizer.json", tmp_path / "broken")
    places = {"taught": taught, "base": tiny_base, "broken": tmp_path / "broken", "out": tmp_path / "out"}
    fails(*command.format(**places).split(), says=[f"broken: {says}"])
    assert not (tmp_path / "out").exists()


SPARSE = {  # what a file that has no bytes on the disk promises, and what is said
    "20 GB": ({"tok_emb.weight": ("F32", [320_000_000, 16])}, 0, "there is not enough memory for its 20.5 GB"),
    "20 GB in bfloat16": ({"tok_emb.weight": ("BF16", [640_000_000, 16])}, 0, "there is not enough memory"),
    "a header of terabytes": ({"a": ("F32", [4])}, 2**43, "not a complete safetensors file"),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are POSIX's")
@pytest.mark.parametrize("command", ["generate --prompt x --model", "inspect"])
@pytest.mark.parametrize("name", SPARSE)
def test_files_that_no_memory_holds(command, name, tiny_base, tmp_path):
    tensors, length, says = SPARSE[name]
    (key, (dtype, shape)), *_ = tensors.items()
    size = shape[0] * (shape[1] if shape[1:] else 1) * (4 if dtype == "F32" else 2)
    header = json.dumps({key: {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    shutil.copytree(tiny_base, tmp_path / "m")
    with open(tmp_path / "m" / "model.safetensors", "wb") as file:
        file.write((length or len(header)).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); import sys;"
    limited += "from lora_np.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", limited, *command.split(), str(tmp_path / "m")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and says in done.stderr


HOSTILE = "\x1b[2J\r\n\u202e" + "a" * 10_000


def hostile_names(folder):
    """{place: (function that plants HOSTILE there, command)}."""
    model, adapter, hf, peft, classes = (folder / name for name in ("full", "one", "hf", "peft", "classes"))
    tensor = lambda tensors: tensors | {HOSTILE: np.ones((2, 2), np.float32)}  # noqa: E731
    prompt = ["generate", "--prompt", "x", "--tokens", "1"]
    return {
        "tensor": (lambda: edit_tensors(model / "model.safetensors", tensor), [*prompt, "--model", model]),
        "adapter's tensor": (
            lambda: edit_tensors(adapter / "adapter.safetensors", tensor),
            [*prompt, "--adapter", adapter],
        ),
        "GPT-2's tensor": (lambda: edit_tensors(hf / "model.safetensors", tensor), ["import", hf, "--from", "hf"]),
        "PEFT's tensor": (
            lambda: edit_tensors(peft / "adapter_model.safetensors", tensor),
            ["import", peft, "--from", "peft"],
        ),
        "inspected tensor": (lambda: edit_tensors(model / "model.safetensors", tensor), ["inspect", model]),
        "metadata": (
            lambda: write_tensors(model / "model.safetensors", {"a": np.ones(1)}, {HOSTILE: HOSTILE}),
            ["inspect", model],
        ),
        "field": (lambda: edit_fields(hf / "config.json", **{HOSTILE: 1}), ["import", hf, "--from", "hf"]),
        "value": (lambda: edit_fields(hf / "config.json", model_type=HOSTILE), ["import", hf, "--from", "hf"]),
        "value of ours": (lambda: edit_fields(model / "config.json", d_model=HOSTILE), [*prompt, "--model", model]),
        "kind": (lambda: edit_fields(adapter / "adapter.json", kind=HOSTILE), [*prompt, "--adapter", adapter]),
        "target": (lambda: edit_fields(adapter / "adapter.json", targets=[HOSTILE]), [*prompt, "--adapter", adapter]),
        "pattern": (
            lambda: edit_fields(peft / "adapter_config.json", rank_pattern={"(" + HOSTILE: 1}),
            ["import", peft, "--from", "peft"],
        ),
        "index": (
            lambda: write_json(hf / "model.safetensors.index.json", {"weight_map": {HOSTILE: HOSTILE}}),
            ["import", hf / "model.safetensors.index.json", "--from", "hf"],
        ),
        "labels": (
            lambda: edit_fields(classes / "task.json", labels=[HOSTILE, HOSTILE]),
            ["predict", "x", "--model", classes],
        ),
        "label": (
            lambda: edit_fields(classes / "task.json", labels=[HOSTILE, "\x1b[2J", "\r"]),
            ["predict", "x", "--model", classes],
        ),
        "text": (lambda: None, ["predict", HOSTILE, "--model", classes]),
        "imported label": (
            lambda: edit_fields(
                folder / "classes_hf" / "config.json", id2label=dict(zip("012", [HOSTILE, "b", "c"])), label2id={}
            ),
            ["import", folder / "classes_hf", "--from", "hf"],
        ),
        "label of a table": (
            lambda: (folder / "h.jsonl").write_text(
                "".join(json.dumps({"t": s, "l": [HOSTILE, "b"][i % 2]}) + "\n" for i, s in enumerate(SENTENCES))
            ),
            ["finetune", "--data", folder / "h.jsonl", "--text", "t", "--label", "l", "--epochs", "1"],
        ),
        "path": (lambda: None, ["predict", "x", "--model", folder / HOSTILE[:40]]),
        "name of an adapter": (lambda: adapter.rename(folder / HOSTILE[:40]), ["mix", folder / HOSTILE[:40]]),
        "repeated name": (
            lambda: (model / "config.json").write_text(f"{{{json.dumps(HOSTILE)}: 1, {json.dumps(HOSTILE)}: 2}}"),
            [*prompt, "--model", model],
        ),
    }


@pytest.mark.parametrize("place", hostile_names(Path()))
def test_names_from_files_are_printed_with_escapes(place, taught, tiny_base, tmp_path, capsys):
    shutil.copytree(taught, tmp_path / "t")
    (tmp_path / tiny_base.name).symlink_to(tiny_base)  # where the copies look for their base
    plant, command = hostile_names(tmp_path / "t")[place]
    plant()
    command += ["--base", tiny_base] if "peft" in command or "--data" in command else []
    command += ["--out", tmp_path / "out"] if command[0] in ("import", "mix", "finetune") else []
    main([str(word) for word in command])
    said = capsys.readouterr()
    for line in [*said.out.split("\n"), *said.err.split("\n")]:
        assert line.isprintable() or line.replace("\t", " ").isprintable(), line
        assert "a" * 220 not in line and len(line) < 3000
    assert "\\x1b[2J" in said.out + said.err and said.err.count("\n") <= 1


# ---------------------------------------------------------------- generate


def test_one_text_for_each_adapter(taught, run):
    """With base for none; and each is what it is alone."""
    one, two = taught / "one", taught / "two"
    settings = ["--prompt", "the quick", "--tokens", 8, "--seed", 3, "--ignore-end"]
    together = run("generate", *settings, "--adapter", one, "base", two)
    model = task_base(one)
    ways = ("--adapter", one), ("--model", model), ("--adapter", two)
    alone = [run("generate", *settings, *way) for way in ways]
    assert together == "".join(f"[{name}]\n{text}" for name, text in zip((one, "base", two), alone))
    assert len(set(alone)) == 3 and all(text.startswith("the quick") for text in alone)
    assert run("generate", *settings, "--adapter", one, two, "--weights", 1, 0) == alone[0]


def test_a_full_model_and_a_long_prompt(taught, run):
    prompt = " ".join(SENTENCES[:4])  # more than 24 tokens
    text = run("generate", "--model", taught / "full", "--prompt", prompt, "--temperature", 0, "--tokens", 40)
    assert text.startswith(prompt)


def test_prompts_and_tokenizers_that_cannot_be_used(tiny_base, tmp_path, fails):
    fails("generate", "--prompt", " \n", says=["prompt: is empty"])
    params, config = load_model(tiny_base)
    save_model(tmp_path, params | {"tok_emb.weight": params["tok_emb.weight"][:50]}, replace(config, vocab_size=50))
    shutil.copy(PRETRAINED / "tokenizer.json", tmp_path)
    message = "tokenizer.json: has a token with id 7999, expected ids below the model's vocab_size = 50"
    fails("generate", "--prompt", "the", "--model", tmp_path, says=[message])


def test_half_a_character_waits(taught):
    """The bytes of a cup are several tokens: nothing is shown of the first until the last comes."""
    tokenizer = load_task(taught / "full").tokenizer
    ids = encode(tokenizer, ["a ☕ ok"])[0].tolist()
    shown = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:]]))
    assert "".join(shown) == "a ☕ ok" and "\ufffd" not in "".join(shown) and "" not in shown[1:]
    whole = next(n for n in range(2, len(ids)) if "☕" in "".join(pieces(tokenizer, ids[:n], [])))
    for n in range(2, whole):  # a text that ends within the character shows what there is of it, at its end
        cut = list(pieces(tokenizer, ids[:1], [np.array([i]) for i in ids[1:n]]))
        assert "".join(cut).rstrip("\ufffd").strip() == "a" and "\ufffd" not in "".join(cut[:-1])


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
def test_a_text_ends_where_the_model_says(generation, extra, ends, taught):
    task = load_task(taught / "full")
    files = {} if generation is None else {"generation_config.json": json.dumps(generation).encode()}
    task = task._replace(config=replace(task.config, extra=extra), files=files)
    head = np.zeros_like(task.params["tok_emb.weight"])
    head[0] = 1.0  # with ln_f's bias of ones, the end of a text is the likeliest token
    task = task._replace(params=task.params | {"tok_emb.weight": head, "ln_f.bias": np.ones(16, np.float32)})
    assert len(list(write_text_from(task, "the end", 9))) == (2 if ends else 10)
    assert len(list(write_text_from(task, "the end", 9, ignore_end=True))) == 10


def test_rows_of_the_table_without_a_token_are_never_drawn(taught, tmp_path, run):
    """Some models round their vocabulary up, and a vocabulary may have gaps."""
    task = load_task(taught / "full")
    fields = read_json(PRETRAINED / "tokenizer.json")
    vocab = fields["model"]["vocab"]
    table = np.concatenate([task.params["tok_emb.weight"], np.full((64, 16), 10, np.float32)])
    table[[vocab["Ġfilm"], 8063]] = [[11], [9]]
    vocab["Ġfilm"] = 8063
    bias = {"ln_f.bias": np.ones(16, np.float32)}  # the rows without a token are the likeliest, and "film" is next
    params, config = task.params | bias | {"tok_emb.weight": table}, replace(task.config, vocab_size=8064)
    save_model(tmp_path, params, config, beside={"tokenizer.json": fields})
    settings = ["generate", "--model", tmp_path, "--prompt", "the", "--tokens", 3]
    assert run(*settings) == run(*settings, "--temperature", 0) == "the film film film\n"


# ---------------------------------------------------------------- mix and merge


def test_mix(taught, tmp_path, run):
    pair = [taught / "one", taught / "two"]
    assert "rank 5, exact" in run("mix", *pair, "--weights", 0.5, -1, "--out", tmp_path / "mix")
    expected, error = mixed(load_adapter_set(pair), [0.5, -1.0])
    assert error == 0.0 and same_arrays(load_task(tmp_path / "mix").adapter.weights, expected.weights)
    assert "rank 2, relative error of ΔW" in run("mix", *pair, "--rank", 2, "--out", tmp_path / "cut")
    assert load_task(tmp_path / "cut").adapter.config.r == 2


def test_merge(taught, tiny_base, tmp_path, run):
    """The merged model is the adapted one, and needs no adapter; a trained head alone is merged too."""
    run("merge", taught / "one", "--out", tmp_path / "merged")
    task, merged = load_task(taught / "one"), load_task(tmp_path / "merged")
    ids = np.array([[0, 5, 7, 11]])
    expected, _ = forward(task.params, ids, task.config, adapter=task.adapter)
    logits, _ = forward(merged.params, ids, merged.config)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    table = ["finetune", "--data", taught / "rows.jsonl", "--text", "t", "--label", "l", "--base", tiny_base]
    run(*table, "--method", "head", "--epochs", 1, "--out", tmp_path / "head")
    for folder in (taught / "classes", tmp_path / "head"):
        out = run("merge", folder, "--out", tmp_path / "merged", "--time")
        assert len(re.findall(r"(?:base|attached|merged) +[0-9.]+ ms   [0-9.]+ of the base's", out)) == 3
        answers = [run("predict", "--model", f, "the quick fox", "said she") for f in (folder, tmp_path / "merged")]
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "command, out",
    [
        ("merge {one}", "base"),
        ("finetune --data {rows} --text t --label l --method full --base {base}", "base"),
        ("merge {one}", "one"),
        ("mix {one} {two}", "two"),
        ("mix {one} {two}", "base"),
        ("export {one} --to hf", "base"),
        ("export {one} --to merged", "one"),
        ("export {one} --to peft", "one"),
        ("import {hf} --from hf", "hf"),
        ("import {peft} --from peft --base {base}", "peft"),
        ("import {peft} --from peft --base {base}", "base"),
    ],
)
def test_nothing_is_written_over_what_is_read(command, out, taught, tiny_base, fails):
    places = {"base": tiny_base, "rows": taught / "rows.jsonl"} | {
        name: taught / name for name in ("one", "two", "hf", "peft")
    }
    before = {path.name: path.read_bytes() for path in places[out].iterdir()}
    fails(*command.format(**places).split(), "--out", places[out], says=["is also read from; expected another folder"])
    assert {path.name: path.read_bytes() for path in places[out].iterdir()} == before


def test_a_task_written_over_another_is_the_new_one(taught, tmp_path, run):
    """A whole model in the folder of an adapter, and the other way round."""
    run("mix", taught / "one", taught / "two", "--out", tmp_path / "out")
    run("import", taught / "classes_hf", "--from", "hf", "--out", tmp_path / "out")
    assert load_task(tmp_path / "out").adapter is None
    run("mix", taught / "one", "--out", tmp_path / "out")
    assert load_task(tmp_path / "out").adapter is not None


def test_vera_is_exported_as_its_message_says(words, tmp_path, run, fails):
    run(*words("--epochs", "1", "--variant", "vera"))
    command = ["export", tmp_path / "out", "--out", tmp_path / "hf", "--to"]
    fails(*command, "peft", says=["got kind 'vera', expected 'lora' or 'dora'; export it with --to merged"])
    run(*command, "merged")
    run("import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "back")
    answers = [run("predict", "--model", tmp_path / name, "thank you") for name in ("out", "back")]
    assert answers[0] == answers[1]


def test_half_of_a_classifier_is_half_of_its_head(taught, tmp_path, run):
    """The base has no head: none is made up for it."""
    run("mix", taught / "classes", "--weights", 0.5, "--out", tmp_path / "half")
    folders = taught / "classes", tmp_path / "half"
    whole, half = (load_task(folder).adapter.weights["head.weight"] for folder in folders)
    assert np.array_equal(half, 0.5 * whole)


# ---------------------------------------------------------------- export and import


@pytest.mark.parametrize("name, peft", [("one", "peft"), ("classes", "classes_peft")])
def test_there_and_back(name, peft, taught, tmp_path, run):
    """Base and adapter out, base and adapter in: every tensor's bytes, and the same answers."""
    task, base = load_task(taught / name), task_base(taught / name)
    assert read_json(taught / "peft" / "adapter_config.json")["base_model_name_or_path"] == "some/base"
    run("export", taught / name, "--to", "hf", "--out", tmp_path / "base")
    out = run("import", tmp_path / "base", "--from", "hf", "--out", tmp_path / "ours")
    assert "d_model 16, 1 layers, 2 heads, 8000 tokens" in out
    labels = ["--labels", *task.labels] if task.labels else []
    command = ["import", taught / peft, "--from", "peft", "--base"]
    out = run(*command, base, "--out", tmp_path / "back", *labels)
    back = load_task(tmp_path / "back")
    assert back.labels == task.labels and same_arrays(back.adapter.weights, task.adapter.weights)
    if task.labels is None:  # the imported base serves as well as the first one
        run(*command, tmp_path / "ours", "--out", tmp_path / "b2")
        prompt = ["generate", "--prompt", "the quick", "--tokens", 8]
        assert run(*prompt, "--adapter", tmp_path / "b2") == run(*prompt, "--adapter", taught / name)
    else:
        assert "labels: a, b, c" in out
        texts = ["the quick fox", "said she"]
        answers = [run("predict", "--model", f, *texts) for f in (tmp_path / "back", taught / name)]
        assert answers[0] == answers[1]


def test_a_classifier_through_hugging_face(taught, own, tmp_path, run):
    """An imported merged model needs nothing else; without a tokenizer, its labels wait for one."""
    assert load_hf(taught / "classes_hf").labels == ["a", "b", "c"]
    bare = own("classes_hf")
    (bare / "tokenizer.json").unlink()
    for source, out in ((taught / "classes_hf", tmp_path / "ours"), (bare, tmp_path / "bare")):
        run("import", source, "--from", "hf", "--out", out)
    shutil.copy(PRETRAINED / "tokenizer.json", tmp_path / "bare")
    folders = (taught / "classes", tmp_path / "ours", tmp_path / "bare")
    assert len({run("predict", "--model", folder, "the quick fox") for folder in folders}) == 1


def test_an_adapter_without_a_head_on_a_classifier(taught, own, tmp_path, run):
    """As PEFT makes it if no task is named: the base keeps its classes and their labels."""
    run("import", taught / "classes_hf", "--from", "hf", "--out", tmp_path / "ours")
    path = own("classes_peft") / "adapter_model.safetensors"
    edit_tensors(path, lambda t: {n: 9 * a for n, a in t.items() if "score" not in n})
    run("import", path.parent, "--from", "peft", "--base", tmp_path / "ours", "--out", tmp_path / "back")
    assert load_task(tmp_path / "back").labels == ["a", "b", "c"]
    answers = [run("predict", "--model", tmp_path / f, "the quick fox", "said she") for f in ("back", "ours")]
    assert answers[0] != answers[1]


def test_a_base_without_a_tokenizer(own, tmp_path, run, fails):
    (own("hf") / "tokenizer.json").unlink()
    command = ["import", tmp_path / "hf", "--from", "hf", "--out", tmp_path / "ours"]
    assert "no tokenizer" in run(*command)
    fails("generate", "--prompt", "the", "--model", tmp_path / "ours", says=["tokenizer.json"])
    run(*command, "--tokenizer", PRETRAINED / "tokenizer.json")
    run("generate", "--prompt", "the", "--model", tmp_path / "ours", "--tokens", 2)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json"])
def test_a_tokenizer_without_special_tokens(form, taught, own, tmp_path, run, fails):
    """It is used wherever ours is, nothing is put in front of a text, and its files stay as they came."""
    hf = own("hf")
    fields = read_json(hf / "tokenizer.json")
    for name in model_files(hf):
        (hf / name).unlink()
    model = fields["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i > 1}  # without <|endoftext|> and <|pad|>
    if form == "vocab.json":
        write_json(hf / form, model["vocab"])
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (hf / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    else:
        kept_fields = {"post_processor": None, "added_tokens": [], "normalizer": None}
        (hf / form).write_text(json.dumps(fields | kept_fields), encoding="utf-8")
    ours, task, text, full = (tmp_path / name for name in ("ours", "task", "text", "full"))
    run("import", hf, "--from", "hf", "--out", ours)
    assert [ids.tolist() for ids in encode(load_task(ours).tokenizer, ["the<|endoftext|>", ""])][1] == []
    common = ["--base", ours, "--epochs", 1]
    table = ["finetune", "--data", taught / "rows.jsonl", "--text", "t", "--label", "l", *common]
    run(*table, "--out", task)
    run(*table, "--out", full, "--method", "full")
    run("finetune", "--text-file", taught / "corpus.txt", *common, "--out", text)
    assert run("generate", "--adapter", text, "--prompt", "the", "--tokens", 3).startswith("the")
    assert run("predict", "--model", task, "the quick fox") != ""
    fails("predict", "--model", task, "fox", "", says=["text 1: got '', which has no tokens", "puts none around"])
    assert run("predict", "--model", taught / "classes", "fox", "").count("\n") == 2, "ours has an initial token"
    run("export", task, "--to", "merged", "--out", tmp_path / "merged")
    run("export", full, "--to", "hf", "--out", tmp_path / "back")
    run("merge", task, "--out", tmp_path / "whole")
    for folder in (ours, full, tmp_path / "merged", tmp_path / "back", tmp_path / "whole"):
        assert model_files(folder) == model_files(hf) != {}
    ids = [encode(load_task(folder).tokenizer, ["Naïve <b>films"])[0].tolist() for folder in (ours, full, task)]
    assert ids[0] == ids[1] == ids[2]


def test_an_imported_tokenizer_keeps_its_files(own, tmp_path, run):
    """Byte for byte, however they are written; with a tokenizer from elsewhere, a model keeps its own end of a text."""
    hf, out = own("hf"), [tmp_path / "ours", tmp_path / "back"]
    for path in hf.glob("*.json"):
        if path.name != "config.json":
            path.write_bytes(b"\n" + path.read_bytes() + b" \n")
    (hf / "chat_template.jinja").write_bytes(b"{{ messages }}\r\n")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (hf / name).write_text("{}")
    for more in ([], ["--tokenizer", PRETRAINED]):
        run("import", hf, "--from", "hf", "--out", out[0], *more)
        run("export", out[0], "--to", "hf", "--out", out[1])
        expected = {
            **model_files(more[-1] if more else hf),
            "generation_config.json": model_files(hf)["generation_config.json"],
        }
        assert model_files(out[0]) == model_files(out[1]) == expected and len(expected) > 2
        shutil.rmtree(out[0])
        shutil.rmtree(out[1])


def test_a_warning_is_one_line(own, tiny_base, tmp_path, run, capsys):
    path = own("peft") / "adapter_config.json"
    edit_fields(path, colour="red")
    code = main(f"import {path.parent} --from peft --base {tiny_base} --out {tmp_path}/ours".split())
    said = capsys.readouterr()
    assert code == 0 and said.err == f"warning: {path}: unknown fields colour are ignored, but saved again\n"
    run("export", tmp_path / "ours", "--to", "peft", "--out", tmp_path / "again")
    assert read_json(tmp_path / "again" / "adapter_config.json")["colour"] == "red"


# ---------------------------------------------------------------- inspect


def test_inspect(taught, tmp_path, run):
    out = run("inspect", taught / "one", "--json", tmp_path / "one.json")
    assert "blocks.0.mlp.up_proj.lora_A" in out and "effective rank" in out
    row = {row["layer"]: row for row in read_json(tmp_path / "one.json")["adapters"]}["blocks.0.mlp.up_proj"]
    weights = load_task(taught / "one").adapter.weights
    A, B = (weights[f"blocks.0.mlp.up_proj.lora_{x}"].astype(float) for x in "AB")
    sigma = np.linalg.svd(2.0 * B @ A, compute_uv=False)
    assert row["rank"] == 2 and row["scale"] == 2.0
    assert row["norm_update"] == pytest.approx(np.linalg.norm(sigma))
    assert row["stable_rank"] == pytest.approx(np.sum(sigma**2) / sigma[0] ** 2)
    p = sigma[sigma > 1e-9 * sigma[0]] / sigma.sum()
    assert row["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    out = run("inspect", taught / "peft")
    assert "transformer.h.0.attn.c_attn.lora_A.weight" in out and "format=pt" in out


def test_inspect_takes_any_model_file(taught, tmp_path, run):
    tensors, _ = read_tensors(taught / "full" / "model.safetensors")
    write_tensors(tmp_path / "a.safetensors", tensors)
    index = tmp_path / "model.safetensors.index.json"
    write_json(index, {"weight_map": dict.fromkeys(tensors, "a.safetensors")})
    for path in (taught / "full" / "model.safetensors", tmp_path, index):
        assert "tok_emb.weight" in run("inspect", path)


def test_inspect_takes_any_adapter(tmp_path, run):
    """Of a model that is none of ours, without a configuration; broken numbers are shown as such."""
    name, path = "base_model.model.model.layers.0.self_attn.q_proj", tmp_path / "any.safetensors"
    tensors = {f"{name}.lora_A.weight": np.ones((2, 30), np.float16), f"{name}.lora_B.weight": np.eye(40, 2)}
    write_tensors(path, tensors)
    out = run("inspect", path)
    assert f"{name} " in out and "40×30" in out and "No configuration gives s" in out
    write_tensors(path, tensors | {f"{name}.lora_B.weight": np.full((40, 2), np.nan)})
    assert "not finite" in run("inspect", path, "--json", tmp_path / "any.json")
    assert read_json(tmp_path / "any.json")["adapters"] == []


def test_inspect_beside_a_configuration_of_no_use(own, run):
    folder = own("peft")
    for fields in ("[]", '{"rank_pattern": [1]}', '{"rank_pattern": "ab"}', '{"r": "x"}', "{", "{}"):
        (folder / "adapter_config.json").write_text(fields)
        assert "No configuration gives s" in run("inspect", folder), fields


def test_experiment_list(run, fails):
    assert [line.split()[1] for line in run("experiment", "list").splitlines()] == list(RECIPES)
    message = fails("experiment", "nothing")
    assert message == f"error: experiment: got 'nothing', expected one of {', '.join(RECIPES)}\n"


# ---------------------------------------------------------------- slips


@pytest.mark.slow
def test_words_that_are_slips(taught, tiny_base, tmp_path, fails, monkeypatch):
    """One line, exit code 2, and nothing is written, for each command and each of its words."""
    monkeypatch.chdir(tmp_path)
    bases = {
        "finetune": TABLE,
        "finetune ": TEXT,
        "predict": "predict --model {taught}/classes --data {taught}/rows.jsonl --text t --out {out}",
        "generate": "generate --prompt the --model {base} --adapter {taught}/one",
        "mix": "mix {taught}/one --out {out}",
        "merge": "merge {taught}/one --base {base} --out {out}",
        "export": "export {taught}/one --to peft --out {out} --base-name x",
        "import": "import {taught}/hf --from hf --out {out} --tokenizer {taught}/hf/tokenizer.json",
        "inspect": "inspect {taught}/one --json {out}",
        "doctor": "doctor {taught}/one --base {base} --prompt x --json {out}",
        "run": "run --seeds 1 --out {out} --store {out} --json {out}",
        "experiment": "experiment main_job --out {out} --store {out}",
        "tune": "tune --out {out} --store {out}",
        "pretrain": "pretrain --out {out}",
        "gradcheck": "gradcheck --json {out}",
        "bench": "bench --json {out}",
        "reference": "reference check {taught} --vectors {taught} --json {out}",
        "reference ": "reference export {out}",
        "classroom": "classroom grade {out} --out {out} --json {out} --words {taught} --moodle {taught}",
        "classroom ": "classroom release {out}",
        "classroom  ": "classroom execute {out}",
    }
    places = {"taught": taught, "base": tiny_base, "out": "out"}
    for base in bases.values():
        words = base.format(**places).split()
        for place, word in enumerate(words):
            if word == "out" or Path(word).is_absolute():
                for slip in ("", " ", "x\0y", os.fsdecode(b"caf\xe9")):
                    fails(*words[:place], slip, *words[place + 1 :], says=["expected"])
            if word.startswith("--") and word != "--adapter":
                fails(*words, *words[place : place + 2], says=[f"{word}: is given twice"])
        fails(*words, "--no-such-option", says=["unrecognized arguments: --no-such-option"])
    assert not list(tmp_path.iterdir())


LONG = "x" * 5000
SLIPS = [
    ("fintune --out x", "invalid choice: 'fintune' (choose from"),
    ("classroom", "required: ACTION"),
    ("predict", "required: --model"),
    (f"inspect {LONG}", "ile name too long"),
    (f"predict --model {LONG} the", "ile name too long"),
    (f"finetune --data {LONG}.csv --text t --label l --out {{out}}", "ile name too long"),
    (f"finetune --data {{rows}} --text t --label l --out {LONG}", "ile name too long"),
    (f"finetune --data {{rows}} --text t --label l --out {{out}} --base {LONG}", "ile name too long"),
    (f"gradcheck --json {LONG}", "ile name too long"),
    (f"run --quick --store {LONG}", "ile name too long"),
    ("generate --prompt the --seed -1", "seed: got -1"),
    ("pretrain --out {out} --seed -1", "seed: got -1"),
    ("bench --peers none --seed -1", "seed: got -1"),
    ("classroom execute x.ipynb --jobs 0", "jobs: got 0"),
    ("classroom grade x.ipynb --jobs 0", "jobs: got 0"),
    ("experiment main_job --jobs 0 --out {out}", "jobs: got 0"),
    ("tune --jobs 0 --out {out}", "jobs: got 0"),
    (f"run --seeds {'9' * 5000}", "invalid int value"),
    ("pretrain --out {out} --epochs 0", "epochs: got 0"),
    ("pretrain --out {out} --threads 0", "threads: got 0"),
    ("pretrain --out {out} --reviews 0", "max_reviews: got 0"),
    ("pretrain --out {out} --adapters --threads 2", "threads: only applies to the base"),
    ("pretrain --out {out} --adapters --seed -1", "seed: got -1"),
]


@pytest.mark.parametrize("command, message", SLIPS, ids=lambda text: text[:40])
def test_a_slip_is_one_line(command, message, taught, tmp_path, fails, monkeypatch):
    monkeypatch.setattr("lora_np.experiments.pretrain.load_reviews", None)  # none are read
    monkeypatch.setattr("lora_np.experiments.pretrain.load_base", None)
    words = command.format(out=tmp_path / "out", rows=taught / "rows.jsonl").split()
    assert len(fails(*words, says=[message])) < 1100
    assert not (tmp_path / "out").exists()


EARLY = [
    ("--alpha 0", "alpha: got 0, with which LoRA's update is zero; expected a number such as 16, twice the rank"),
    ("--alpha 1e-320", "alpha: got 9.99989e-321, with which LoRA's update is zero"),
    ("--alpha nan", "alpha: got nan"),
    ("--lr 1e-320", "learning_rate: got 1e-320, expected a number of at least 1.17549e-38"),
    ("--lr nan", "learning_rate: got nan"),
    ("--lr inf", "learning_rate: got inf"),
    ("--rank 17", "r: got 17, expected at most min(out, in) = 16"),
    ("--targets w_proj", "targets: 'w_proj' fits no layer"),
    ("--dropout 1", "dropout: got 1"),
    ("--dropout nan", "dropout: got nan"),
    ("--lora-dropout 1", "dropout: got 1"),
    ("--epochs 1000000000", "epochs: got 1000000000, expected a whole number from 1 to 100000"),
    ("--batch-size 0", "batch_size: got 0"),
    ("--seed -1", "seed: got -1"),
    ("--seed 9223372036854775808", "seed: got 9223372036854775808"),
    ("--variant loftq", "variant: got 'loftq', expected one of lora, rslora"),
]


@pytest.mark.parametrize("options, message", EARLY)
@pytest.mark.parametrize("data", ["--data {out}.csv --text t --label l", "--text-file {out}.txt"])
def test_a_useless_number_is_refused_before_the_data_is_read(data, options, message, tiny_base, tmp_path, fails):
    command = f"finetune {data} --base {{base}} --out {{out}} {options}".format(base=tiny_base, out=tmp_path / "out")
    fails(*command.split(), says=[message])


# ---------------------------------------------------------------- what is at a path


def test_what_is_no_file_is_called_what_it_is(taught, tiny_base, tmp_path, fails):
    """A pipe would be waited for, without an end."""
    folder, pipe, loop, nowhere = (tmp_path / name for name in ("folder.csv", "pipe.csv", "loop", "nowhere"))
    (folder / "linear.float64.safetensors").mkdir(parents=True)
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    nowhere.symlink_to(tmp_path / "none")
    places = {"taught": taught, "base": tiny_base, "out": tmp_path / "out"}
    reading = [
        TABLE.replace("{taught}/rows.jsonl", "{it}"),
        f"{TABLE} --test {{it}}",
        TEXT.replace("{taught}/corpus.txt", "{it}"),
        "import {taught}/hf --from hf --out {out} --tokenizer {it}",
        "predict --model {taught}/classes --text t --data {it}",
    ]
    for it, kind in ((folder, "a folder"), (pipe, "a pipe"), (Path("/dev/zero"), "")):
        for command in reading:
            fails(*command.format(it=it, **places).split(), says=[str(it), "" if "--tokenizer" in command else kind])
    for command in ("inspect {it}", "reference check {it}"):
        fails(*command.format(it=pipe, **places).split(), says=[f"{pipe} is a pipe"])
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        model = shutil.copytree(tiny_base, tmp_path / name)
        (model / name).unlink()
        os.mkfifo(model / name)
        fails("generate", "--prompt", "the", "--model", model, says=[f"{model / name} is a pipe"])
    writing = ["run --quick --out {it}", "run --quick --store {it}", "gradcheck --json {it}", "pretrain --out {it}"]
    writing += ["tune --out {it}", TABLE.replace("{out}", "{it}"), "classroom release {it}", "reference export {it}"]
    for it in (loop, nowhere):
        for command in writing:
            fails(*command.format(it=it, **places).split(), says=[f"{it} is a link that leads nowhere"])
        fails("predict", "--model", it, "the", says=[str(it)])
        fails(*TABLE.replace("{base}", "{it}").format(it=it, **places).split(), says=[str(it)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error, line",
    [
        (PermissionError(13, "Permission denied", "a/b.csv"), "error: a/b.csv: permission denied\n"),
        (OSError(28, "No space left on device", Path("a/b.csv")), "error: a/b.csv: no space left on device\n"),
        (OSError(28, "No space left on device"), "error: standard output: no space left on device\n"),
        (OSError(5, "Input/output error"), "error: input/output error\n"),
        (ValueError("a\n\x1b[2J\u202eb"), "error: a\\n\\x1b[2J\\u202eb\n"),
        (ValueError("x" * 5000), f"error: {'x' * 493} … {'x' * 500}\n"),
        (
            MemoryError(),
            "error: not enough memory; close other programs, or use a smaller model, file or --batch-size\n",
        ),
        (RecursionError("maximum"), "error: a value in one of the files is nested too deeply\n"),
        (MemoryError("Unable to allocate 8 GiB"), "error: not enough memory (Unable to allocate 8 GiB); close other "),
    ],
    ids=repr,
)
def test_an_error_in_words(error, line, fails, monkeypatch):
    def fail(path):
        raise error

    monkeypatch.setattr("lora_np.cli.tasks.inspect_file", fail)
    assert fails("inspect", "critics").startswith(line)


# ---------------------------------------------------------------- what is read is not written over


@pytest.mark.parametrize("alias", ["itself", "link", "hard link", "spelling"])
def test_no_file_that_is_read_is_written_over(alias, taught, tiny_base, tmp_path, fails, monkeypatch):
    """By whatever name."""
    own = {name: shutil.copytree(taught / name, tmp_path / name) for name in ("one", "two", "hf", "classes")}
    shutil.copytree(tiny_base, tmp_path / "base")
    sources = tmp_path / "d" / "student"
    sources.mkdir(parents=True)
    write_notebook(sources / "05.ipynb", notebook_of(read_sets()["07_lora_layer"], "solutions"))
    shutil.copy(taught / "rows.jsonl", tmp_path / "rows.jsonl")
    shutil.copy(taught / "corpus.txt", own["two"] / "task.txt")
    shutil.copy(sources / "05.ipynb", tmp_path / "x.txt")
    monkeypatch.setattr("lora_np.experiments.tuning.carry_out_all", None)
    monkeypatch.setattr("lora_np.experiments.laboratory.carry_out_all", None)

    def other(path):
        """Another name of a path."""
        path, name = tmp_path / path, tmp_path / f"alias{len(list(tmp_path.iterdir()))}"
        if alias == "link" or (alias == "hard link" and not path.is_file()):
            name.symlink_to(path)
        elif alias == "hard link":
            os.link(path, name)
        else:
            name = path if alias == "itself" else path.parent / ".." / path.parent.name / path.name
        return name

    commands = [
        f"inspect one --json {other('one/adapter.safetensors')}",
        f"inspect one --json {other('one')}/new.json",
        f"inspect one/adapter.safetensors --json {other('one/adapter.json')}",
        f"reference check {other('one')} --json one/new.json",
        f"run --quick --out figures --store {other('one')} --json one/new.json",
        f"experiment main_job --out {other('one')} --store one",
        f"tune --out {other('one')}/new.json --store one",
        f"tune --out {other('rows.jsonl')}",
        f"bench --rungs 64 --peers old={ROOT} --json {ROOT}/lora_np/{'../lora_np/' * (alias == 'spelling')}cli/x.json",
        f"classroom grade x.txt --json {other('x.txt')}",
        f"classroom grade x.txt --out {other('.')}",
        f"classroom grade d/student --json {other('d/student/05.ipynb')}",
        f"reference export {other('one')}",
        f"import hf --from hf --out {other('one')} --tokenizer one/adapter.json",
        f"finetune --base base --text-file {other('two/task.txt')} --out two",
        f"finetune --base base --data rows.jsonl --text t --label l --out {other('.')}",
        f"finetune --base {other('base')} --data rows.jsonl --text t --label l --out base --method full",
    ]
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for command in commands:
        fails(*command.split())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_export_of_the_vectors_takes_its_own_place_again(tmp_path, monkeypatch, run):
    """After one that was interrupted, too."""
    monkeypatch.setattr("lora_np.reference.manifest.reference_cases", dict)
    monkeypatch.setattr("lora_np.reference.manifest.commit", lambda: None)
    for _ in range(2):
        manifest.export(tmp_path / "out")
        (tmp_path / "out" / "manifest.json").unlink()


def test_the_shipped_base_is_replaced_by_force_alone(tmp_path, fails, monkeypatch):
    class Begun(Exception):
        pass

    def begin(*_):
        raise Begun

    shipped = tmp_path / "pretrained"
    (shipped / "adapters").mkdir(parents=True)
    (tmp_path / "link").symlink_to(shipped)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_np.experiments.pretrain.PRETRAINED", shipped)
    for name in ("load_reviews", "load_base"):
        monkeypatch.setattr(f"lora_np.experiments.pretrain.{name}", begin)
    for words in ([], ["--out", "link"], ["--adapters", "--out", "link/adapters"]):
        fails("pretrain", *words, says=["comes with the package", "--force"])
        with pytest.raises(Begun):
            main(["pretrain", *words, "--force"])
    with pytest.raises(Begun):
        main(["pretrain", "--out", "other"])
    (tmp_path / "mine" / "critics").mkdir(parents=True)
    (tmp_path / "mine" / "critics" / "notes.txt").touch()  # found before the training, and not after it
    fails("pretrain", "--adapters", "--out", "mine", says=["has other files, such as 'notes.txt'"])


# ---------------------------------------------------------------- streams that are closed or full, and little memory

FULL = "error: standard output: no space left on device\n"
STREAMS = [  # redirections (gone: stdout's reader has left), command, exit code, stderr
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


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="of shells")
@pytest.mark.parametrize("streams, command, code, error", STREAMS)
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
    assert done.returncode == code and done.stderr.startswith(error) and done.stderr.count("\n") == bool(error)
    if command == "inspect critics":  # the work is done all the same
        assert len(read_json(said)["tensors"]) == 24


def test_too_little_memory_is_one_line(taught, tmp_path):
    """For a table of 3 GB, which takes no place on the disk."""
    resource = pytest.importorskip("resource")
    with open(tmp_path / "sparse.csv", "wb") as file:
        file.truncate(3 * 2**30)
    done = subprocess.run(
        [sys.executable, "-m", "lora_np", "predict", "--model", taught / "classes", "--text", "t", "--data", file.name],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: not enough memory") and done.stderr.count("\n") == 1
