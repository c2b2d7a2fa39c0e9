"""Choosing learning rates: the search, its record, its runs in the store, and what was chosen."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from lora_np.experiments import tuning
from lora_np.experiments.laboratory import runs_of
from lora_np.experiments.methods import FEW, METHODS, MORE_SEEDS, SETTINGS, learning_rate, rate_name
from lora_np.experiments.recipes import RECIPES, dialect, recipe
from lora_np.experiments.runs import BASES
from lora_np.experiments.store import made_with
from lora_np.formats import read_json
from lora_np.training import sweep

CLASSIFY = "lora_np.experiments.runs.classify"


@dataclass(frozen=True)
class RateRun:
    __module__ = CLASSIFY
    method: str
    rate: float
    seed: int = 0


class Valley:
    """Made-up runs: a parabola over log₂ of the rate, with its lowest point at each method's best rate."""

    def __init__(self, fail=(), diverge=(), **best):
        self.best, self.asked, self.fail, self.diverge = best, [], set(fail), set(diverge)

    def __call__(self, run):
        self.asked.append((run.method, run.rate))
        names = {(run.method, run.rate), (run.method, run.rate, run.seed)}
        if names & self.fail:
            raise OSError("the disk is full")
        if names & self.diverge:
            raise FloatingPointError("the loss became nan")
        best = self.best[run.method]
        best = best[run.seed] if isinstance(best, tuple) else best
        return {"validation_loss": 0.3 + math.log2(run.rate / best) ** 2 + run.seed}, {}


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """Function (valley, guesses, …) -> what `tune` chooses, into one file and from one store."""

    def start(valley, guesses, seeds=(0,), names=None):
        tunable = {
            name: (guess, lambda rate, name=name: [RateRun(name, rate, seed) for seed in seeds])
            for name, guess in guesses.items()
        }
        monkeypatch.setattr(RateRun, "carry_out", lambda run: valley(run), raising=False)
        monkeypatch.setattr(tuning, "rates_to_tune", lambda: tunable)
        monkeypatch.setattr(sweep, "open_executor", lambda *_: ThreadPoolExecutor(1))
        return tuning.tune(names, tmp_path / "rates.json", tmp_path / "store", report=len)["chosen"]

    return start


def test_what_was_tried_is_written(choose, tmp_path):
    assert choose(Valley(a=0.011), {"a": 0.01}) == {"a": 0.01}
    settings = read_json(tmp_path / "rates.json")
    assert settings["command"] == "python -m lora_np tune" and settings["chosen"] == {"a": 0.01}
    assert list(settings["tried"]["a"]) == ["0.005", "0.01", "0.02"]  # enough around a minimum within
    assert settings["tried"]["a"]["0.02"] == round(0.3 + math.log2(0.02 / 0.011) ** 2, 5)
    assert settings["made_with"] == {"a": made_with(CLASSIFY)["code"]}


@pytest.mark.parametrize("steps", [*range(-6, 7), 20, -20])
def test_the_search_goes_on_past_an_edge(steps, choose):
    """Until the best has a worse one on each side, a factor 32 at most, and no further; each method for itself."""
    valley, far = Valley(a=0.01 * 2.0**steps, b=3.0), min(abs(steps), 5)
    side = -1 if steps < 0 else 1
    assert choose(valley, {"a": 0.01, "b": 3.0}) == {"a": 0.01 * 2.0 ** (side * far), "b": 3.0}
    expected = {0.01 * 2.0 ** (side * i) for i in range(-1, min(far + 2, 6))}
    assert {rate for method, rate in valley.asked if method == "a"} == expected
    assert len(valley.asked) == len(set(valley.asked)) == len(expected) + 3


def test_of_equal_losses_the_lower_rate_is_chosen():
    """Whichever run ended first."""
    for order in ((1.0, 2.0, 4.0), (2.0, 1.0, 4.0), (4.0, 2.0, 1.0)):
        losses = {rate: 0.5 if rate < 3 else 0.7 for rate in order}
        assert tuning.untried(2.0, losses) == [0.5] and tuning.best_of(losses) == 1.0


def test_what_finished_is_kept_when_a_run_failed(choose, tmp_path):
    """Even a run of a rate with more runs to come; the file has whole searches only."""
    guesses, seeds = {"a": 1.0, "b": 1.0}, (0, 1)
    with pytest.raises(ValueError, match="1 runs failed, the first with OSError: the disk is full"):
        choose(Valley(fail=[("a", 2.0, 1)], a=8.0, b=1.0), guesses, seeds=seeds)
    assert not (tmp_path / "rates.json").exists()
    second, third = Valley(a=8.0, b=1.0), Valley()
    assert choose(second, guesses, seeds=seeds) == {"a": 8.0, "b": 1.0}
    assert Counter(second.asked) == {("a", 2.0): 1, **{("a", rate): 2 for rate in (4.0, 8.0, 16.0)}}
    assert choose(third, guesses, seeds=seeds) == {"a": 8.0, "b": 1.0} and not third.asked


SEEDS_APART = {"a": (0.5, 2.0)}  # each run on its own would choose another


@pytest.mark.parametrize(
    "best, diverge, chosen, tried",
    [
        (SEEDS_APART, [], 1.0, {"0.5": 2.8, "1": 1.8, "2": 2.8}),
        ({"a": 1.0}, [("a", 1.0), ("a", 2.0)], 0.5, {"0.25": 4.8, "0.5": 1.8, "1": None, "2": None}),
        ({"a": 1.0}, [("a", 1.0, 1)], 0.5, {"0.25": 4.8, "0.5": 1.8, "1": None, "2": 1.8}),  # one of two is enough
    ],
    ids=["the mean", "both diverge", "one diverges"],
)
def test_a_rate_is_judged_by_the_mean_of_its_runs_and_worse_than_any_if_one_diverges(
    best, diverge, chosen, tried, choose, tmp_path
):
    valley, again = Valley(diverge=diverge, **best), Valley(**best)
    assert choose(valley, {"a": 1.0}, seeds=(0, 1)) == {"a": chosen}
    assert Counter(valley.asked) == {("a", float(rate)): 2 for rate in tried}
    assert read_json(tmp_path / "rates.json")["tried"] == {"a": tried}
    assert choose(again, {"a": 1.0}, seeds=(0, 1)) == {"a": chosen} and not again.asked


def test_some_methods_are_tuned_and_the_others_stay(choose, tmp_path):
    choose(Valley(a=1.0, b=1.0), {"b": 1.0, "a": 1.0})
    before = read_json(tmp_path / "rates.json")
    again = Valley(a=4.0)
    assert choose(again, {"b": 1.0, "a": 4.0}, names=["a"]) == {"b": 1.0, "a": 4.0}
    assert sorted(again.asked) == [("a", 4.0), ("a", 8.0)]  # the run at 2 was there
    after = read_json(tmp_path / "rates.json")
    assert after["tried"]["b"] == before["tried"]["b"] and list(after["chosen"]) == ["b", "a"]
    with pytest.raises(ValueError, match="methods: got 'tail', expected one or more of b; a"):
        choose(again, {"b": 1.0, "a": 4.0}, names=["tail"])


def test_tuning_writes_into_no_other_file(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(tuning, "carry_out_all", None)
    out = tmp_path / "other.json"
    for content in ('{"accuracy": 1}', "[]"):
        out.write_text(content)
        fails("tune", "--out", out, "--jobs", "1", says=["other.json does not contain learning rates"])
        assert out.read_text() == content
    fails("tune", "--out", tmp_path, "--jobs", "1", says=[f"{tmp_path} is a folder, expected a file"])


def test_the_command_prints_what_is_chosen(monkeypatch, tmp_path, run):
    monkeypatch.setattr(tuning, "tune", lambda *arguments, report: {"chosen": {"full, 3 passes": 2e-4}})
    monkeypatch.setattr(sweep, "LocalProcesses", lambda jobs: type("No", (), {"stop": lambda self: None})())
    assert run("tune", "--methods", "full, 3 passes", "--store", tmp_path).split("  ")[0] == "full, 3 passes"


def test_every_run_has_a_learning_rate():
    """Of its method, base, epochs and number of snippets."""
    chosen, sizes = read_json(SETTINGS)["chosen"], [(1, None), (3, None), *((1, n) for n in FEW)]
    assert all(runs_of(name, [0], False, base) or name == "cost" for name in RECIPES for base in recipe(name).bases)
    names = {rate_name(key, passes, base, n) for key in METHODS for base in BASES for passes, n in sizes}
    of_domains = {name for name in chosen if any(domain in name for domain in dialect.DOMAINS)}
    assert chosen.keys() - of_domains <= names and all(rate > 0 for rate in chosen.values())
    with pytest.raises(ValueError, match="no learning rate for 'minilm, vera'"):
        learning_rate("vera", base="minilm")


def test_the_chosen_rates_have_a_worse_one_on_each_side():
    """Except those that were chosen together with other ranks, by an earlier version; see the gallery."""
    settings = read_json(SETTINGS)
    for name, of_name in settings["tried"].items():
        tried = {float(rate): math.inf if loss is None else loss for rate, loss in of_name.items()}
        chosen = settings["chosen"][name]
        assert chosen == tuning.best_of(tried) and {chosen / 2, 2 * chosen} <= tried.keys(), name


def test_rates_are_tuned_at_seeds_of_their_own():
    cases = {(name, base) for name in RECIPES for base in recipe(name).bases} - {("learning_rate", "smollm2")}
    experiments = {run.seed for name, base in cases for run in runs_of(name, list(range(16)), False, base).values()}
    tunable, chosen = tuning.rates_to_tune(), read_json(SETTINGS)["chosen"]
    assert {name: rate for name, (rate, _) in tunable.items()} == chosen
    for rate, runs_at in tunable.values():
        runs = runs_at(rate)
        assert not experiments & {run.seed for run in runs} and not any(run.test for run in runs)
        assert {run.learning_rate for run in runs} == {rate}
    (run,) = tunable["licences, lora_r16"][1](0.1)
    assert (run.domain, run.method, run.epochs) == ("licences", "lora_r16", 3)
    few = tunable["minilm, all_r8, 100 snippets"][1](0.1)
    assert len(few) == MORE_SEEDS[100] and {(run.examples, run.epochs, run.base) for run in few} == {
        (100, 12, "minilm")
    }
    assert [run.epochs for run in tunable["full, 3 passes"][1](0.1)] == [3, 3]
