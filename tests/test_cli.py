"""The command line: what it does with a user's own file, and what it says when something is wrong."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig
from lora_np.formats import PRETRAINED, load_adapter, load_model, read_json, read_tensors, save_model
from lora_np.tasks import classifier as user_task
from lora_np.tasks import start

from .tiny import edit_fields

ROOT = Path(__file__).resolve().parents[1]
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
        columns = ["--text", "body", "--label", "topic", "--epochs", "6", "--lr", "0.01"]
        return ["finetune", "--data", data, *columns, "--out", out, "--base", base, *more]

    return make


def about(folder):
    return read_json(folder / "task.json")


# ---------------------------------------------------------------- what works


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
    monkeypatch.setattr("lora_np.training.classify.evaluate", lambda *_: next(scores, {"loss": 0.7, "accuracy": 0.1}))
    run(*words("--epochs", "1"))
    assert about(tmp_path / "out")["validation_accuracy"] == 0.8


# ---------------------------------------------------------------- what is refused
#
# tests/test_cli_adapters.py has a table of single options.


def test_an_unusable_folder_is_refused_before_the_training(words, fails, tickets, monkeypatch):
    monkeypatch.setattr(start, "train", None)
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
    save_model(broken, {**params, "ln_f.weight": params["ln_f.weight"] * np.float32(1e38)}, config)
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
