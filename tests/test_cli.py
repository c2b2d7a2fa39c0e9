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
from lora_np.cli import main
from lora_np.formats import PRETRAINED, load_adapter, load_model, read_tensors, save_model
from lora_np.model import ModelConfig, initial_params
from lora_np.tasks import classifier as user_task

ROOT = Path(__file__).resolve().parents[1]
GOOD = ("refund my order please", "where is my parcel", "the parcel never came")
BAD = ("thank you so much", "great help today", "what a lovely service")


@pytest.fixture
def base(tiny_base):
    return tiny_base


def write_csv(path, rows, header=("body", "topic")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def tickets(tmp_path):
    rows = [(f"{text}, ticket {i}", "delivery") for i in range(15) for text in GOOD]
    rows += [(f"{text}, ticket {i}", "praise") for i in range(15) for text in BAD]
    return write_csv(tmp_path / "tickets.csv", rows)


def finetune(data, out, base, *more):
    columns = ["--text", "body", "--label", "topic", "--epochs", "6", "--lr", "0.01"]
    return main(["finetune", "--data", str(data), *columns, "--out", str(out), "--base", str(base), *more])


def fails(capsys, code, *parts):
    """The command failed with one line that says all of `parts`, and without a traceback."""
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("error: ") and "Traceback" not in error
    for part in parts:
        assert part in error, f"{part!r} is not in {error!r}"


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_finetune_and_predict(method, tickets, tmp_path, base, capsys):
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--method", method) == 0
    assert "labels: delivery, praise" in capsys.readouterr().out
    task = json.loads((out / "task.json").read_text(encoding="utf-8"))
    assert task["rows"] == {"train": 72, "validation": 9, "test": 9, "left_out": 0}
    if method != "head":  # a random base's features tell a linear head little
        assert task["test_accuracy"] > 0.8

    assert main(["predict", "--model", str(out), "the parcel never came, ticket 99"]) == 0
    label, probability, text = capsys.readouterr().out.strip().split("\t")
    assert label in task["labels"] and 0.5 <= float(probability) <= 1.0 and "never came" in text

    answers = tmp_path / "answers.jsonl"
    columns = ["--data", str(tickets), "--text", "body", "--out", str(answers)]
    assert main(["predict", "--model", str(out), *columns]) == 0
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 90
    expected = ["delivery"] * 45 + ["praise"] * 45
    share = np.mean([line["label"] == label for line, label in zip(lines, expected)])
    assert share >= (0.5 if method == "head" else 0.8)


def test_an_adapter_is_small_and_holds_its_head(tickets, tmp_path, base):
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--rank", "2", "--targets", "all-linear") == 0
    tensors, _ = read_tensors(out / "adapter.safetensors")
    assert tensors["head.weight"].shape == (2, 16)
    assert tensors["blocks.0.mlp.up_proj.lora_A"].shape == (2, 16)
    assert not (out / "model.safetensors").exists()
    params, _ = load_model(base)
    adapter = load_adapter(out, {**params, "head.weight": tensors["head.weight"]})
    assert adapter.config == AdapterConfig(r=2, alpha=4.0, targets=("all-linear",))


def test_predictions_do_not_depend_on_their_neighbours(tickets, tmp_path, base):
    out = tmp_path / "out"
    assert finetune(tickets, out, base) == 0
    classifier = user_task.load_classifier(out)
    texts = ["the parcel never came", "great help " * 30, "lovely"]
    together = user_task.predict(classifier, texts)
    alone = [user_task.predict(classifier, [text])[0] for text in texts]
    assert [label for label, _ in together] == [label for label, _ in alone]
    assert np.allclose([p for _, p in together], [p for _, p in alone], atol=1e-6)


def test_more_than_two_labels(tmp_path, base):
    rows = [(f"{text} number {i}", text.split()[0]) for i in range(12) for text in (*GOOD, *BAD)]
    data = write_csv(tmp_path / "six.csv", rows)
    out = tmp_path / "out"
    assert finetune(data, out, base) == 0
    assert json.loads((out / "task.json").read_text(encoding="utf-8"))["labels"] == sorted({b for _, b in rows})


def test_the_wrong_base_is_noticed(tickets, tmp_path, base, capsys):
    own_base = tmp_path / "base"
    shutil.copytree(base, own_base)
    out = tmp_path / "out"
    assert finetune(tickets, out, own_base) == 0
    config = ModelConfig(8000, 24, 16, 1, 2, 32)
    save_model(own_base, initial_params(config, np.random.default_rng(1)), config)
    capsys.readouterr()
    fails(capsys, main(["predict", "--model", str(out), "hello"]), "another base")


# ---------------------------------------------------------------- bad input


def test_missing_file(tmp_path, base, capsys):
    out = tmp_path / "out"
    fails(capsys, finetune(tmp_path / "none.csv", out, base), "none.csv", "no such file")
    assert not out.exists()


def test_misnamed_column(tickets, tmp_path, base, capsys):
    out = tmp_path / "out"
    arguments = ["--data", str(tickets), "--text", "bodi", "--label", "topic", "--out", str(out)]
    fails(capsys, main(["finetune", *arguments, "--base", str(base)]), "'bodi'", "'body'")
    assert not out.exists()


def test_empty_data(tmp_path, base, capsys):
    fails(capsys, finetune(write_csv(tmp_path / "empty.csv", []), tmp_path / "out", base), "no rows")


def test_one_class_only(tmp_path, base, capsys):
    data = write_csv(tmp_path / "one.csv", [(f"{text} {i}", "same") for i in range(20) for text in GOOD])
    out = tmp_path / "out"
    fails(capsys, finetune(data, out, base), "1 class", "same")
    assert not out.exists()


def test_not_utf8(tmp_path, base, capsys):
    data = tmp_path / "latin.csv"
    data.write_bytes("body,topic\ncafé,one\n".encode("latin-1"))
    fails(capsys, finetune(data, tmp_path / "out", base), "latin.csv", "UTF-8")


def test_label_only_in_the_test_file(tickets, tmp_path, base, capsys):
    test = write_csv(tmp_path / "test.csv", [("a new thing", "unheard"), ("thank you", "praise")])
    out = tmp_path / "out"
    fails(capsys, finetune(tickets, out, base, "--test", str(test)), "'unheard'")
    assert not out.exists()


def test_a_test_file_of_its_own(tickets, tmp_path, base):
    test = write_csv(tmp_path / "test.csv", [("my parcel is lost", "delivery"), ("thank you", "praise")])
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--test", str(test)) == 0
    rows = json.loads((out / "task.json").read_text(encoding="utf-8"))["rows"]
    assert rows == {"train": 81, "validation": 9, "test": 2, "left_out": 0}


def test_what_is_in_the_test_file_is_not_trained_on(tickets, tmp_path, base, capsys):
    known = [("The parcel never came -- ticket 3", "delivery"), ("thank you so much, ticket 0", "praise")]
    test = write_csv(tmp_path / "test.csv", [*known, ("never seen", "praise")])
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--test", str(test)) == 0
    rows = json.loads((out / "task.json").read_text(encoding="utf-8"))["rows"]
    assert rows["left_out"] == 2 and rows["train"] + rows["validation"] == 88
    assert "2 of" in capsys.readouterr().out
    fails(capsys, finetune(tickets, tmp_path / "other", base, "--test", str(tickets)), "test_data", "nothing is left")


def test_texts_beyond_the_position_table_are_counted(tmp_path, base, capsys):
    rows = [(f"{text}, ticket {i} {'and so on ' * 9 * (i < 4)}", text.split()[0]) for i in range(12) for text in GOOD]
    assert finetune(write_csv(tmp_path / "long.csv", rows), tmp_path / "out", base) == 0
    assert "12 texts have more than 24 tokens" in capsys.readouterr().out


def test_validation_accuracy_is_that_of_the_weights_kept(tickets, tmp_path, base, monkeypatch):
    scores = iter([{"loss": 0.5, "accuracy": 0.8}, {"loss": 0.6, "accuracy": 0.9}])
    monkeypatch.setattr(user_task, "evaluate", lambda *_: next(scores, {"loss": 0.7, "accuracy": 0.1}))
    assert finetune(tickets, tmp_path / "out", base, "--epochs", "1") == 0
    assert json.loads((tmp_path / "out" / "task.json").read_text(encoding="utf-8"))["validation_accuracy"] == 0.8


def test_the_base_is_never_written_over(tickets, base, capsys):
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    fails(capsys, finetune(tickets, base, base, "--method", "full"), "out", "is also read from")
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_an_unusable_folder_is_refused_before_the_training(tickets, tmp_path, base, capsys, monkeypatch):
    monkeypatch.setattr(user_task, "train", None)
    fails(capsys, finetune(tickets, tickets, base), "out", "is a file")
    fails(capsys, finetune(tickets, tickets / "below", base), "out", "is a file")


@pytest.mark.parametrize("command", [["run", "--quick"], ["pretrain", "--reviews", "1"]], ids=" ".join)
def test_an_output_folder_that_is_a_file_is_refused_at_once(command, tickets, capsys):
    before = tickets.read_bytes()
    fails(capsys, main([*command, "--out", str(tickets)]), "out", "is a file")
    assert tickets.read_bytes() == before


def test_text_on_the_command_line_that_is_not_utf8(tickets, tmp_path, base, capsys):
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--epochs", "1") == 0
    capsys.readouterr()
    text = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Python hands such a byte over
    fails(capsys, main(["predict", "--model", str(out), "hello", text]), "text 1", "not UTF-8")


@pytest.mark.parametrize("labels", [["delivery"], ["a", "b", "c"], 5, [1, 2], "ab"], ids=str)
def test_labels_that_do_not_fit_a_full_model(labels, tickets, tmp_path, base, capsys):
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--epochs", "1", "--method", "full") == 0
    edit(out / "task.json", labels=labels)
    capsys.readouterr()
    fails(capsys, main(["predict", "--model", str(out), "hello"]), "task.json", "labels")


@pytest.mark.parametrize(
    "more, parts",
    [
        (["--targets", "qproj"], ["targets", "'qproj'", "q_proj"]),
        (["--rank", "0"], ["r: got 0", "at least 1"]),
        (["--rank", "17"], ["r: got 17", "16", "blocks.0.attn.q_proj"]),
        (["--lora-dropout", "1.5"], ["dropout", "1.5"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--lr", "-1"], ["learning_rate", "-1"]),
        (["--lr", "0"], ["learning_rate", "0"]),
        (["--batch-size", "0"], ["batch_size", "0"]),
        (["--dropout", "1"], ["dropout", "1"]),
        (["--seed", "-1"], ["seed", "-1"]),
    ],
)
def test_bad_options(more, parts, tickets, tmp_path, base, capsys):
    out = tmp_path / "out"
    fails(capsys, finetune(tickets, out, base, *more), *parts)
    assert not out.exists()


def test_nan_in_the_loss(tickets, tmp_path, base, capsys):
    params, config = load_model(base)
    broken = tmp_path / "broken"
    save_model(broken, {**params, "ln_f.weight": params["ln_f.weight"] * np.float32(1e38)}, config)
    shutil.copy(PRETRAINED / "tokenizer.json", broken)
    out = tmp_path / "out"
    with np.errstate(all="ignore"):
        code = finetune(tickets, out, broken)
    fails(capsys, code, "the loss became", "step 1", "learning rate")
    assert not out.exists()


@pytest.mark.parametrize(
    "damage, parts",
    [
        (lambda f: (f / "adapter.safetensors").write_bytes(b"12345678 no"), ["adapter.safetensors", "safetensors"]),
        (lambda f: truncate(f / "adapter.safetensors"), ["adapter.safetensors", "not a complete"]),
        (lambda f: (f / "adapter.json").write_text("{"), ["adapter.json", "not a JSON file"]),
        (lambda f: edit(f / "adapter.json", r=3), ["lora_A", "shape", "(3, 16)"]),
        (lambda f: edit(f / "task.json", labels=["a", "b", "c"]), ["head.weight", "shape"]),
        (lambda f: edit(f / "task.json", base="/nowhere/at/all"), ["/nowhere/at/all"]),
        (lambda f: (f / "task.json").write_text("[]"), ["task.json"]),
        (lambda f: (f / "task.json").write_text("{}"), ["task.json", "labels missing"]),
        (lambda f: (f / "task.json").unlink(), ["no task.json"]),
    ],
)
def test_damaged_results(damage, parts, tickets, tmp_path, base, capsys):
    out = tmp_path / "out"
    assert finetune(tickets, out, base, "--epochs", "1") == 0
    damage(out)
    capsys.readouterr()
    fails(capsys, main(["predict", "--model", str(out), "hello"]), *parts)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_predict_wants_one_kind_of_texts(capsys):
    fails(capsys, main(["predict", "--model", "x"]), "texts", "--data")
    fails(capsys, main(["predict", "--model", "x", "--data", "y.csv"]), "--text")


def test_run_refuses_no_seeds(capsys):
    fails(capsys, main(["--seeds", "0"]), "seeds", "0")
    fails(capsys, main(["run", "--quick", "--jobs", "0"]), "jobs", "0")


def test_as_a_module_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "lora_np", "predict", "--model", str(tmp_path / "none"), "hello"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr and not done.stdout
