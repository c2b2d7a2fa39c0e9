"""The search of settings: within the time, and never worse than the defaults on validation."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np.formats import read_json
from lora_np.tasks import finetuning
from lora_np.tasks import search as searching
from lora_np.tasks.settings import FinetuneSettings, default_epochs
from lora_np.tasks.table import LabelledTable

from .test_cli import write_csv

TABLE = LabelledTable("rows.csv", "t", "l")
BALANCED = TABLE.balanced()
SETTINGS = replace(FinetuneSettings(base="pretrained").with_defaults("classifier"), epochs=3)


@pytest.mark.parametrize(
    "task, n_rows, expected",
    [("classifier", 10, 15), ("classifier", 320, 8), ("classifier", 6528, 3), ("preferences", 8, 20)],
)
def test_few_rows_get_more_epochs(task, n_rows, expected, monkeypatch):
    monkeypatch.setattr("lora_np.tasks.settings.kind_of_base", lambda base: "encoder")
    assert default_epochs(replace(SETTINGS, batch_size=16), task, n_rows) == expected


class Clock:
    """A clock that stands still except while `train` runs, which takes 10 s per epoch; the loss is given.

    The macro-F1 is 1 / (1 + loss).
    """

    def __init__(self, loss):
        self.now, self.loss, self.tried = 0.0, loss, []

    def train(self, data, settings):
        self.now += 10.0 * settings.epochs
        self.tried.append(settings)
        loss = self.loss(settings)
        if loss is None:
            raise FloatingPointError("diverged")
        history = {"eval_step": np.array([1, 2]), "eval_loss": np.array([loss + 1, loss])}
        plan = {"config": SimpleNamespace(select_from=0)}
        state = SimpleNamespace(history=history)
        return data, SimpleNamespace(settings=settings, plan=plan), settings, state, 1 / (1 + loss)


def searched(loss, minutes, monkeypatch, settings=SETTINGS, other=None, data=BALANCED):
    clock, lines = Clock(loss), []
    monkeypatch.setattr(searching.time, "monotonic", lambda: clock.now)
    best, rows = searching.search(clock.train, lambda tried: True, data, settings, other, minutes, lines.append)
    assert len(rows) == len(clock.tried) == len(lines) - 2
    return best[2], clock


@pytest.mark.parametrize("minutes", [0.1, 2, 10, 60])
def test_the_best_of_all_trials_is_found_in_time(minutes, monkeypatch):
    """The defaults are tried first, in full; only they may take longer than the time."""
    losses = {}

    def loss(settings):
        key = settings.learning_rate, settings.adapter.r, settings.epochs
        return losses.setdefault(key, float(np.random.default_rng(hash(key) % 2**32).uniform()))

    best, clock = searched(loss, minutes, monkeypatch)
    assert clock.tried[0] == SETTINGS and loss(best) == min(losses.values())
    assert clock.now <= max(30.0, 60 * minutes) and len({*map(repr, clock.tried)}) == len(clock.tried)
    epochs = [settings.epochs for settings in clock.tried[1:]]
    assert epochs == sorted(epochs) and {*epochs} <= {1, 3, 9} and (minutes < 5 or {*epochs} == {1, 3, 9})


def test_a_better_rate_and_rank_are_found_and_a_divergence_is_survived(monkeypatch):
    """Also if the defaults diverge, and for methods without a rank."""

    def loss(settings):
        rate, r = settings.learning_rate / SETTINGS.learning_rate, settings.adapter.r if settings.adapter else 8
        return None if rate == 4 else abs(np.log(rate / 2)) + abs(np.log(r / 32)) + 1 / settings.epochs

    best, _ = searched(loss, 60, monkeypatch)
    assert (best.learning_rate, best.adapter.r, best.epochs) == (2 * SETTINGS.learning_rate, 32, 9)
    assert best.adapter.alpha == 64.0
    full = replace(FinetuneSettings(base="pretrained", method="full").with_defaults("classifier"), epochs=3)
    with pytest.raises(FloatingPointError, match="at all"):
        searched(lambda s: None, 60, monkeypatch, full)
    best, clock = searched(lambda s: None if s == full else s.learning_rate, 60, monkeypatch, full)
    assert best.learning_rate == full.learning_rate / 2 and all(tried.adapter is None for tried in clock.tried)


@pytest.mark.parametrize("f1, selected", [((0.5, 0.6), "balanced"), ((0.5, 0.5), "none"), ((0.5, 0.4), "none")])
def test_class_weights_are_balanced_where_that_is_better(f1, selected, monkeypatch):
    """The default is kept if it is as good; all further trials have the selected weights."""
    clock = Clock(lambda settings: 1.0)
    monkeypatch.setattr(searching.time, "monotonic", lambda: clock.now)

    def train(data, settings):
        return *clock.train(data, settings)[:-1], f1[data.class_weights == "balanced"]

    best, rows = searching.search(train, lambda tried: True, TABLE, SETTINGS, None, 5, lambda line: None)
    assert best[0].class_weights == selected and best[1].settings == SETTINGS
    assert [row["class_weights"] for row in rows[:2]] == ["none", "balanced"]
    assert len(rows) > 2 and {row["class_weights"] for row in rows[2:]} == {selected}


def test_another_base_is_tried_if_there_is_time(monkeypatch):
    other = replace(SETTINGS, base="smollm2")
    for minutes, expected in ((2, False), (30, True)):
        best, clock = searched(lambda s: 0.0 if s == other else 1.0, minutes, monkeypatch, other=other)
        assert (other in clock.tried) is (best == other) is expected


def test_the_default_epochs_are_known_even_if_the_training_with_them_diverges(tiny_base, tmp_path, monkeypatch):
    data = write_csv(tmp_path / "rows.csv", [(f"{word} no. {i}", word) for i in range(25) for word in ("good", "bad")])
    results = [FloatingPointError("diverged")]
    carried_out = finetuning.carried_out

    def first_diverges(run):
        if results:
            raise results.pop()
        return carried_out(run)

    monkeypatch.setattr(finetuning, "carried_out", first_diverges)
    _, trials = finetuning.best_of_search(LabelledTable(data, "t", "l"), FinetuneSettings(base=tiny_base), 0.03)
    assert trials[0]["loss"] is None and trials[0]["epochs"] == 4


def test_the_command_searches(tiny_base, tmp_path, run, fails):
    """The trials are printed and kept; the settings in task.json are those of the best, and repeat it."""
    out, again = tmp_path / "out", tmp_path / "again"
    rows = [(f"{word} film no. {i}", word) for i in range(25) for word in ("good", "bad")]
    data = write_csv(tmp_path / "rows.csv", rows)
    table = ["finetune", "--data", data, "--text", "t", "--label", "l", "--base", tiny_base]
    printed = run(*table, "--minutes", 0.03, "--out", out)

    task = read_json(out / "task.json")
    assert task["minutes"] == 0.03 and printed.count("loss") > len(task["search"]) > 1
    best = max(task["search"], key=lambda row: row["macro_f1"])
    assert best["class_weights"] == task["settings"]["class_weights"] == task["class_weights"]
    assert (best["learning_rate"], best["epochs"]) == (task["learning_rate"], task["settings"]["epochs"])
    run("finetune", "--settings", out / "task.json", "--out", again)
    assert (again / "adapter.safetensors").read_bytes() == (out / "adapter.safetensors").read_bytes()
    fails(*table, "--minutes", -1, "--out", tmp_path / "x", says=["minutes: got -1"])
    text = ["finetune", "--text-file", data, "--base", tiny_base, "--out", tmp_path / "x"]
    fails(*text, "--minutes", 1, says=["a search needs the task 'classifier'"])
