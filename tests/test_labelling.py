"""Files are labelled in windows: the same answers as at once, in little memory, and continued after an interruption."""

import json
import random
import subprocess
import sys
import time

import pytest

from lora_np.cli import main
from lora_np.data import read_records
from lora_np.formats import read_json
from lora_np.tasks import labelling

from .test_cli import write_csv

WORDS = "the a film story of and it is was good bad dull warm funny empty long".split()


@pytest.fixture(scope="module")
def task(tiny_base, tmp_path_factory):
    """The folder of a classifier on a tiny base."""
    folder = tmp_path_factory.mktemp("labelling")
    rows = [(f"{word} film no. {i}", word) for i in range(25) for word in ("good", "bad")]
    command = [
        "finetune",
        "--data",
        write_csv(folder / "rows.csv", rows),
        "--text",
        "t",
        "--label",
        "l",
        "--epochs",
        "1",
    ]
    assert main([str(word) for word in (*command, "--base", tiny_base, "--out", folder / "task")]) == 0
    return folder / "task"


def texts(n, seed=0):
    """Short texts of different lengths, some of which are empty."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(0, 9))) for _ in range(n)]


def write_jsonl(path, n):
    """Write rows in which a column begins late, and another ends early."""
    lines = [{"t": text, "first" if i < n // 3 else "later": i} for i, text in enumerate(texts(n))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".tsv"])
@pytest.mark.filterwarnings("ignore:.*empty texts")
def test_windows_give_what_one_window_gives(suffix, task, tmp_path, monkeypatch):
    """The same rows, in order, with all columns of the file; a row's place is that in the file."""
    data = write_jsonl(tmp_path / "in.jsonl", 50)
    outs = [tmp_path / f"{name}{suffix}" for name in ("whole", "windows")]
    for out, size in zip(outs, (8192, 7)):
        monkeypatch.setattr(labelling, "WINDOW", size)
        assert labelling.label_file(task, data, out, "t", proba=True) == 50
    whole, windows = (read_records(out) for out in outs)
    assert windows.columns == whole.columns
    assert {*whole.columns} == {"t", "first", "later", "label", "probability", "p_bad", "p_good"}
    for one, other in zip(whole.rows, windows.rows, strict=True):  # batches differ, and so do the last digits
        numbers = [[float(row.pop(name)) for name in ("probability", "p_bad", "p_good")] for row in (one, other)]
        assert one == other and numbers[0] == pytest.approx(numbers[1], abs=2e-6)
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.filterwarnings("ignore:.*empty texts")
def test_an_interrupted_file_is_continued(task, tmp_path, monkeypatch):
    """Where it was, if nothing has changed; another file's rows are never taken for it, and nothing foreign is lost."""
    monkeypatch.setattr(labelling, "WINDOW", 6)
    data, out, plain = (
        write_csv(tmp_path / "in.csv", [(t,) for t in texts(40)], ("t",)),
        tmp_path / "a.csv",
        tmp_path / "b.csv",
    )
    labelling.label_file(task, data, plain, "t")
    seen, whole = [], labelling.probabilities_of

    def interrupted(classifier, sequences):
        if len(seen) in (3, 5):
            seen.append(0)
            raise KeyboardInterrupt
        seen.append(len(sequences))
        return whole(classifier, sequences)

    monkeypatch.setattr(labelling, "probabilities_of", interrupted)
    for done in (18, 24):
        with pytest.raises(KeyboardInterrupt):
            labelling.label_file(task, data, out, "t")
        assert read_json(tmp_path / "a.csv.partial.json")["rows"] == done and not out.exists()
    with open(tmp_path / "a.csv.partial", "ab") as file:
        file.write(b"half a row")  # as a killed process leaves it
    labelling.label_file(task, data, out, "t")
    assert out.read_bytes() == plain.read_bytes() and sum(seen) == 40
    seen[:] = [0] * 5
    with pytest.raises(KeyboardInterrupt):
        labelling.label_file(task, data, out, "t", proba=True)
    labelling.label_file(task, data, out, "t")  # another run: from the start
    assert out.read_bytes() == plain.read_bytes()
    for name in ("a.csv.partial", "a.csv.partial.json"):
        (tmp_path / name).write_text('["mine"]')
        with pytest.raises(ValueError, match=f"{name} would be overwritten"):
            labelling.label_file(task, data, out, "t")
        (tmp_path / name).unlink()


@pytest.mark.stress
def test_a_file_is_whole_after_twenty_kills(task, tmp_path):
    data = write_csv(tmp_path / "in.csv", [(t or "the",) for t in texts(60_000)], ("t",))
    command = [sys.executable, "-m", "lora_np", "predict", "--model", task, "--data", data, "--text", "t", "--out"]
    plain, out = tmp_path / "plain.csv", tmp_path / "out.csv"
    subprocess.run([*command, plain], check=True)
    kills = 0
    while kills < 20 and not out.exists():
        process = subprocess.Popen([*command, out])
        time.sleep(random.uniform(0.3, 1.5))
        process.kill()
        kills += process.wait() != 0
    subprocess.run([*command, out], check=True)
    assert kills == 20 or out.exists()
    assert out.read_bytes() == plain.read_bytes() and not list(tmp_path.glob("*.partial*"))
