"""Around the experiments: evidence, the store of runs, the driver, the gallery, the command."""

import json
import math
import re
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest

from lora_np.cli import main
from lora_np.experiments import gallery, laboratory, store
from lora_np.experiments.design import OVERLAP, Design, Recipe, accuracy, design_of, judged, over_seeds, ratio
from lora_np.experiments.evidence import (
    BOTH,
    DIFFERENT,
    EQUIVALENT,
    KNOWN,
    UNKNOWN,
    compare,
    crossed,
    describe,
    detectable,
    interval,
    power,
)
from lora_np.experiments.gallery import write_gallery
from lora_np.experiments.methods import ClassifyRun, variant
from lora_np.experiments.recipes import RECIPES, recipe
from lora_np.experiments.runs import load_base
from lora_np.experiments.runs.dialect import DialectRun
from lora_np.experiments.runs.planted import PlantedRun
from lora_np.experiments.runs.preferences import PreferenceRun
from lora_np.experiments.runs.rewards import RewardRun
from lora_np.experiments.store import code_alone, keep, kept_numbers, made_with, of_other_code, run_key
from lora_np.formats import read_json, write_json
from lora_np.tasks.pictures import new_figure
from lora_np.training import sweep

from .tiny import same_bits

PLANTED = "lora_np.experiments.runs.planted"  # the made-up runs below say that they are defined there

# ---------------------------------------------------------------- evidence


@pytest.mark.parametrize("n, t", [(2, 12.7062), (3, 4.30265), (5, 2.77645), (11, 2.22814)])
def test_interval_is_students(n, t):
    """With t(0.975; n − 1) from printed tables."""
    values = np.random.default_rng(n).standard_normal(n)
    half = t * values.std(ddof=1) / math.sqrt(n)
    assert interval(values) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), rel=1e-5)


def test_the_interval_of_equal_values_of_one_and_of_none():
    assert interval([0.25] * 4) == (0.25, 0.25, 0.25) and interval([0.25]) == (0.25, None, None)
    assert all(math.isnan(x) for x in interval([1.0, math.nan, 2.0]))
    for values in ([], [[1.0, 2.0]], 3.0):
        with pytest.raises(ValueError, match="values: got shape .*, expected one number per seed"):
            interval(values)


def test_seeds_that_share_a_fold_are_averaged_first():
    """Sixteen seeds have eight folds, so there are eight independent values."""
    rng, runs = np.random.default_rng(0), [{"settings": {"folds": True}}]
    tables = {key: rng.random(16) for key in ("a", "b")}
    of_folds = np.subtract(tables["a"], tables["b"]).reshape(2, 8).mean(axis=0)
    found = accuracy({"accuracy": tables, "runs": runs}, "a", "b")
    assert found == {"values": pytest.approx(of_folds), "overlap": OVERLAP}
    assert over_seeds({"runs": []}, [1.0, 2.0]) == {"values": [1.0, 2.0], "undecided": ANY}


@pytest.mark.parametrize("mean, survives", [(0.9, False), (1.4, True)])
def test_a_verdict_may_not_survive_overlapping_training_sets(mean, survives):
    """The corrected interval is √(1 + 8/7) = 1.46 times as wide."""
    part = compare(Design("it", 0.1), spread(mean, 0.8), overlap=OVERLAP)
    assert (part["verdict"], part["survives"]) == (DIFFERENT, survives)
    assert ("overlapping folds" in describe(part)) is not survives
    assert compare(Design("it", 0.1), spread(mean, 0.8))["survives"] is None


def test_ratios_are_averaged_by_their_logarithms():
    mean, low, high = interval([0.5, 2.0], log=True)
    assert mean == pytest.approx(1.0) == low * high
    some = [1.3, 0.8, 2.1, 1.7]
    assert interval(some, log=True) == pytest.approx(tuple(np.exp(interval(np.log(some)))))
    part = compare(ratio("a ratio"), some)
    assert (part["mean"], part["low"], part["high"]) == pytest.approx(interval(some, log=True))
    assert interval([3.0], log=True) == (pytest.approx(3.0), None, None)


def spread(mean, half):
    """Eight values with this mean, whose 95 % interval reaches this far to each side."""
    values = np.arange(8.0) - 3.5
    return mean + values * half / interval(values)[2]


@pytest.mark.parametrize(
    "mean, half, verdict, agrees, contradicts",
    [  # the margin is 1; the 90 % interval is 0.8 times as wide
        (2.0, 1.9, DIFFERENT, ["more"], ["less", "equal"]),
        (-2.0, 1.9, DIFFERENT, ["less"], ["more", "equal"]),
        (0.5, 0.4, BOTH, ["more", "equal"], ["less"]),
        (-0.1, 0.4, EQUIVALENT, ["equal"], ["more", "less"]),
        (0.15, 1.04, EQUIVALENT, ["equal"], ["more", "less"]),  # the 95 % interval is not within the margin
        (0.5, 0.7, UNKNOWN, [], []),
        (2.0, 2.1, UNKNOWN, [], []),
    ],
)
def test_verdict_of_a_comparison(mean, half, verdict, agrees, contradicts):
    for expected in ("more", "less", "equal"):
        part = compare(Design("it", expected=expected), spread(mean, half))
        assert part["verdict"] == verdict and part["mean"] == pytest.approx(mean)
        assert (part["claim"] == "agrees", part["claim"] == "contradicts") == (
            expected in agrees,
            expected in contradicts,
        )
    assert json.loads(json.dumps(part)) == part
    assert ("too few seeds" in describe(part)) == (verdict == UNKNOWN)
    assert (f"different: {'higher' if mean > 0 else 'lower'}" in describe(part)) == (verdict in (DIFFERENT, BOTH))
    part = compare(Design("it"), spread(mean, half), undecided="the reason")
    assert part["verdict"] == UNKNOWN and describe(part).endswith(": cannot tell: the reason")


@pytest.mark.parametrize(
    "mean, factor, verdict, claim",
    [
        (8.0, 1.2, KNOWN, "agrees"),
        (8.0, 1.23, UNKNOWN, "agrees"),
        (3.0, 1.2, KNOWN, "contradicts"),
        (5, 1.1, KNOWN, None),
    ],
)
def test_verdict_of_a_ratio(mean, factor, verdict, claim):
    """A ratio is known if its interval spans at most a factor of 1.5."""
    part = compare(ratio("it", (5, 20)), np.exp(spread(np.log(mean), np.log(factor))))
    assert (part["verdict"], part["claim"]) == (verdict, claim) and part["high"] / mean == pytest.approx(factor)


def test_one_seed_decides_nothing():
    """But with one seed, the interval over the snippets is known."""
    part = compare(Design("it", expected="more"), [3.0])
    assert (part["verdict"], part["low"], part["claim"]) == (UNKNOWN, None, None)
    assert describe(part) == "it: +3 points (margin: 1 point): cannot tell: one seed is not enough"
    snippets = np.repeat([100.0, 0.0], [90, 910])[None]  # (1, N): 90 of 1,000 snippets are better
    part = compare(Design("it", expected="more"), [9.0], snippets)
    half = 1.96 * 100 * math.sqrt(0.09 * 0.91 / 999)
    assert part["verdict"] == UNKNOWN and part["high"] - 9.0 == pytest.approx(half, rel=2e-3)


# Standard deviations in points of the main job's pilot, LoRA on all linear layers − full fine-tuning, and of one whose
# seeds scatter more, LoRA on q and v − full fine-tuning.
SCATTER = {"all": (0.0, 8.2, 21.9), "q,v": (0.76, 12.5, 24.3)}  # of the seeds, of the snippets, and of the rest


def laboratories(rng, difference, n, folds, of_seeds, of_snippets, of_rest):
    """The differences (seeds, snippets), in points, of n simulated experiments with a known true difference."""
    seeds, snippets = (8, 941) if folds else (3, 1000)
    for _ in range(n):
        own = of_snippets * rng.standard_normal((seeds if folds else 1, snippets))
        rest = of_rest * rng.standard_normal((seeds, snippets))
        yield difference + of_seeds * rng.standard_normal((seeds, 1)) + own + rest


@pytest.mark.slow
@pytest.mark.parametrize("folds", [True, False])
@pytest.mark.parametrize("case", SCATTER)
def test_a_thousand_laboratories_err_as_often_as_they_say(case, folds):
    """With the scatter of real seeds and snippets, on folds of their own and on one test set."""
    shares = {}
    for difference in (0.0, 0.5, 1.0, 2.0):
        verdicts = []
        for found in laboratories(np.random.default_rng(1), difference, 1000, folds, *SCATTER[case]):
            more = {} if folds else {"snippets": found}
            verdicts.append(compare(Design("it"), found.mean(axis=1), **more)["verdict"])
        names = "different", "equiv"
        shares[difference] = {name: np.mean([name in verdict for verdict in verdicts]) for name in names}
    error = 3 * math.sqrt(0.05 * 0.95 / 1000)
    assert shares[0.0]["different"] < 0.05 + error  # although the methods are equal
    assert max(shares[at]["equiv"] for at in (1.0, 2.0)) < 0.05 + error  # although the difference matters
    of_seeds, of_snippets, of_rest = SCATTER[case]
    scatter = math.sqrt(of_seeds**2 + (of_snippets**2 + of_rest**2) / 941)
    if folds:
        for difference in (0.0, 0.5):
            assert shares[difference]["equiv"] == pytest.approx(power(8, scatter, 1.0, difference), abs=0.05)
        assert shares[0.0]["different"] > 0.05 - error and shares[2.0]["different"] > 0.95
        assert detectable(scatter / math.sqrt(8), 7) < (1.0 if case == "all" else 1.4)
    else:
        assert shares[2.0]["different"] > (0.8 if case == "all" else 0.2)  # with three seeds


def test_the_interval_of_crossed_effects():
    """With effects of one kind only, Student's t over the seeds, and over the snippets."""
    rng = np.random.default_rng(0)
    seeds, snippets = rng.standard_normal((4, 1)), rng.standard_normal((1, 50))
    for effects, values, n in ((seeds + np.zeros((4, 50)), seeds, 4), (snippets + np.zeros((4, 50)), snippets, 50)):
        found = crossed(effects)
        assert found.mean == pytest.approx(values.mean()) and found.freedom == pytest.approx(n - 1, rel=1e-6)
        assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(n))
    assert crossed(snippets).freedom == 49 and crossed(np.zeros((3, 5))) == (0.0, 0.0, 2)


def test_the_number_of_seeds_is_planned():
    assert power(7, 0.76, 1.0) >= 0.8 > power(6, 0.76, 1.0)
    assert power(8, 0.76, 1.0, difference=1.0) == pytest.approx(0.05, abs=0.002)
    design = Design("A − B", expected="equal", scatter=0.76, pilot="C − D")
    plan = design.plan(8)
    assert "pilot (C − D), the differences had a standard deviation of 0.76 points. " in plan
    assert "8 seeds find a difference of 0.88 points with a probability of 80 %, and find equal" in plan
    assert plan.endswith("equivalent with 91 %.") and design.plan(1) == "The margin is 1 point."
    assert "factor of 1.5" in Design("A / B", None, "times").plan(8)


# ---------------------------------------------------------------- kept runs


@dataclass(frozen=True)
class MadeUpRun:
    __module__ = PLANTED
    seed: int
    rate: float = 0.5
    keep: bool = False


class OtherRun(MadeUpRun):
    __module__ = PLANTED


NUMBERS = {"loss": [0.1, 1 / 3], "accuracy": 0.75, "steps": 3}


def kept_arrays(folder, run):
    return store.Results(folder, {run_key(run): NUMBERS}).arrays(run)


ARRAYS = {"head.weight": np.float32([[1, 2, 3]]), "a.lora_A": np.arange(6.0).reshape(2, 3)}


def test_an_entry_comes_back_as_it_was_and_other_settings_are_another(tmp_path):
    """With arrays an entry serves those who ask for none too; without, only them."""
    bare, run = MadeUpRun(0), MadeUpRun(0, keep=True)
    assert run_key(bare) == run_key(run) and store.entry_path(tmp_path, bare) == store.entry_path(tmp_path, run)
    keep(tmp_path, bare, NUMBERS, {})
    assert kept_numbers(tmp_path, bare) == NUMBERS and kept_numbers(tmp_path, run) is None
    keep(tmp_path, run, NUMBERS, ARRAYS)
    assert kept_numbers(tmp_path, run) == kept_numbers(tmp_path, MadeUpRun(0, 0.5)) == NUMBERS
    assert same_bits(dict(sorted(kept_arrays(tmp_path, run).items())), dict(sorted(ARRAYS.items())))
    assert len(list(tmp_path.iterdir())) == 2
    for other in (MadeUpRun(1), MadeUpRun(0, rate=0.25), OtherRun(0)):
        assert kept_numbers(tmp_path, other) is None and of_other_code(tmp_path, [other]) == 0
        keep(tmp_path, other, {"of": run_key(other)}, {})
        assert kept_numbers(tmp_path, other) == {"of": run_key(other)}
    assert kept_numbers(tmp_path, run) == NUMBERS
    assert len(list(tmp_path.iterdir())) == 5  # without arrays there is one file a run


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize(
    "damage", ["cut", "gone", "other", b"[]", b"{}", b'"text"', b"\xff\xfe", b'{"arrays": []}'], ids=str
)
def test_a_damaged_entry_counts_as_none(damage, suffix, tmp_path):
    run = MadeUpRun(0, keep=True)
    keep(tmp_path, run, NUMBERS, ARRAYS)
    path = store.entry_path(tmp_path, run, suffix)
    if damage == "gone":
        path.unlink()
    elif damage == "other":
        store.write_tensors(path, {"head.weight": np.ones(2)})
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else damage)
    assert kept_numbers(tmp_path, run) is None and of_other_code(tmp_path, [run]) == 0
    keep(tmp_path, run, NUMBERS, ARRAYS)
    assert kept_numbers(tmp_path, run) == NUMBERS and set(kept_arrays(tmp_path, run)) == set(ARRAYS)


MODULE = '''"""What it does."""
import math
def area(r):
    """The area of a circle."""
    # from the radius
    return math.pi * r**2
class Shape:
    """Of some kind."""
    sides = 4
'''
WORDS = {
    "What it does.": "What it really does.",
    "The area of a circle.": "Its area.\n\n    Of a circle.",
    "    # from the radius\n": "    # from half the diameter\n\n",
    "Of some kind.": "Of any kind.",
    "math.pi * r**2": "(math.pi * r ** 2)  # the area",
}
STATEMENTS = {
    "r**2": "r**3",
    "sides = 4": 'sides = "4"',
    "def area(r)": "def area(r=1)",
    "import math\n": "import cmath as math\n",
    "    # from the radius\n": '    name = "area"\n',
}


def test_words_are_no_code_and_statements_are():
    for same, changes in ((True, WORDS), (False, STATEMENTS)):
        for before, after in changes.items():
            assert before in MODULE
            assert (code_alone(MODULE.replace(before, after)) == code_alone(MODULE)) == same, after


def test_the_digest_is_of_the_code_that_runs_use(tmp_path, monkeypatch):
    """Of shared rooms and of the run's own module, but not of other kinds of runs."""
    files = ("ops/linear.py", "ops/more/deep.py", "checked.py", "runs/one.py", "runs/two.py", "cli/train.py")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(MODULE)
    monkeypatch.setattr(store, "PACKAGE", tmp_path)
    monkeypatch.setattr(store, "CODE", ["checked", "ops"])
    used = store.code_files("lora_np.runs.one")
    assert used == ["checked.py", "ops/linear.py", "ops/more/deep.py", "runs/one.py"]

    def code():
        return made_with.__wrapped__("lora_np.runs.one")["code"]

    first = code()
    for name in files:
        for old, new, changes in (("circle", "disc", False), ("r**2", "r**3", name in used)):
            (tmp_path / name).write_text(MODULE.replace(old, new))
            assert (code() != first) == changes, name
        (tmp_path / name).write_text(MODULE)


RUNS = {
    "classify": ClassifyRun(variant("adalora"), 0, 1e-3, weights="nf4", limit=8),
    "dialect": DialectRun("critics", "lora_r1", 0, 1e-3, 1, limit=300),
    "planted": PlantedRun(1, 1, 0, steps=2),
    "preferences": PreferenceRun("lora_r1", 16, 0, 1e-3, steps=5),
    "rewards": RewardRun("lora_r1", 0, 1e-3, steps=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_every_file_that_a_run_executes_is_in_its_digest(kind, monkeypatch):
    """Except for reading files. And not the commands."""
    executed = set()

    def note(frame, event, argument):
        if frame.f_code.co_name != "<module>":
            executed.add(Path(frame.f_code.co_filename))

    monkeypatch.setattr("lora_np.experiments.runs.preferences.OTHERS", 16)
    load_base()  # reading it goes through `formats`
    sys.setprofile(note)
    try:
        RUNS[kind].carry_out()
    finally:
        sys.setprofile(None)
    behind = set(store.code_files(type(RUNS[kind]).__module__))
    ours = {path.relative_to(store.PACKAGE).as_posix() for path in executed if store.PACKAGE in path.parents}
    executed = {name for name in ours if not name.startswith("formats")}
    assert f"experiments/runs/{kind}.py" in executed and executed <= behind
    assert not any(name.startswith(("cli", "analysis", "reference")) for name in behind)
    assert not {"experiments/store.py", "experiments/methods.py"} & behind


# ---------------------------------------------------------------- the driver

NAME = "matrices"  # the experiment that the made-up one stands in for


FILES = {f"{NAME}.json", f"{NAME}.png", f"{NAME}.md", "README.md"}


class Carrying:
    """What made-up runs do: each is noted, those of some seeds fail, and some diverge."""

    def __init__(self, fail=(), diverge=()):
        self.asked, self.fail, self.diverge = [], fail, diverge

    def __call__(self, run):
        self.asked.append(run)
        if run.seed in self.fail:
            raise OSError(f"no room for seed {run.seed}")
        if run in self.diverge:
            raise FloatingPointError("the loss became nan at step 7")
        arrays = {"w": np.full(2, run.rate + run.seed)} if run.keep else {}
        return {"loss": run.rate * (1 + 0.1 * run.seed)}, arrays


@pytest.fixture
def made_up(monkeypatch):
    """A recipe with two rates from each seed. The larger, whose run is listed twice and has arrays, has more loss."""
    module = types.ModuleType(NAME, "Is nothing learnt?\n\nMade up,\nall of it.\n")

    def grid(seeds):
        return {(rate, seed): MadeUpRun(seed, rate, keep=rate == 2.0) for rate in (1.0, 2.0) for seed in seeds}

    def measure(results, runs, seeds, quick):
        losses = {f"{rate:g}": [results[grid(seeds)[rate, seed]]["loss"] for seed in seeds] for rate in (1.0, 2.0)}
        return {"losses": losses, "arrays": [results.arrays(grid(seeds)[2.0, seed])["w"].tolist() for seed in seeds]}

    def conclude(outcome):
        values = np.subtract(outcome["losses"]["2"], outcome["losses"]["1"])
        finding = f"The loss is {outcome['losses']['2'][0]:g}."
        return {"values": values}, [(Design("the same", 0.02, "nats"), -values)], finding

    def draw(outcome):
        figure = new_figure(3, 2)
        figure.subplots().plot([float(rate) for rate in outcome["losses"]], list(outcome["losses"].values()))
        return figure

    module.grid = grid
    module.RECIPE = Recipe(
        claim="A larger rate, a larger loss (nobody, never).",
        design=Design("more", 0.02, "nats", expected="more"),
        measure=measure,
        conclude=conclude,
        draw=draw,
        caption="Look at the line.",
        runs=lambda seeds, quick, base: grid(seeds) | {"twice": MadeUpRun(seeds[0], 2.0, keep=True)},
        bases=("pretrained",),
    )
    monkeypatch.setitem(sys.modules, f"lora_np.experiments.recipes.{NAME}", module)
    return module


def change(module, **fields):
    """Replace fields of a made-up recipe."""
    module.RECIPE = replace(module.RECIPE, **fields)


@pytest.fixture
def carrying(made_up, monkeypatch):
    """Function (which fail and diverge) -> the `Carrying` that from now on carries out the runs, in threads."""

    def start(**which):
        carry_out = Carrying(**which)
        monkeypatch.setattr(MadeUpRun, "carry_out", lambda run: carry_out(run), raising=False)
        return carry_out

    monkeypatch.setattr(sweep, "open_executor", lambda *_: ThreadPoolExecutor(1))
    start()
    return start


def experiment(folder, seeds=3, quick=False, report=lambda line: None):
    return laboratory.experiment(NAME, seeds, quick, folder / "out", folder / "store", report=report)


def written(folder):
    return {path.name: path.read_bytes() for path in (folder / "out").glob("*")}


def test_an_experiment_writes_json_figure_and_gallery(made_up, carrying, tmp_path):
    asked, lines = carrying().asked, []
    outcome = experiment(tmp_path, report=lines.append)
    assert set(written(tmp_path)) == FILES
    assert read_json(tmp_path / "out" / f"{NAME}.json") == outcome
    assert written(tmp_path)[f"{NAME}.png"].startswith(b"\x89PNG")
    expected = {
        "seeds": [0, 1, 2], "quick": False, "command": f"python -m lora_np experiment {NAME} --seeds 3", "reused": 0,
        "losses": {"1": [1.0, 1.1, 1.2], "2": [2.0, 2.2, 2.4]}, "arrays": [[2.0, 2.0], [3.0, 3.0], [4.0, 4.0]],
        "made_with": made_with(PLANTED),
    }  # fmt: skip
    assert {name: outcome[name] for name in expected} == expected and "failed" not in outcome
    assert outcome["versions"]["numpy"] == np.__version__
    # Each run once, the one that is listed twice too, with its settings beside its numbers.
    grid = made_up.grid([0, 1, 2])
    assert sorted(asked, key=run_key) == sorted(grid.values(), key=run_key)
    settings = [{"kind": "MadeUpRun", "seed": seed, "rate": rate} for rate, seed in grid]
    assert [row["settings"] for row in outcome["runs"]] == settings
    assert [row["loss"] for row in outcome["runs"]] == [1.0, 1.1, 1.2, 2.0, 2.2, 2.4]
    main, other = outcome["comparisons"]
    assert (main["statement"], main["verdict"], main["claim"], other["verdict"]) == (
        "more",
        DIFFERENT,
        "agrees",
        DIFFERENT,
    )
    # The design is said before the runs, the results after them.
    assert lines[0] == f"{NAME}: Is nothing learnt?\n  more. The margin is 0.02 nats."
    assert lines[-4:-1] == ["The loss is 2.\n", f"  {describe(main)}", f"  also: {describe(other)}"]
    assert any("[  6/6]" in line for line in lines)


def test_a_stopped_experiment_goes_on_and_a_finished_one_is_not_run_again(carrying, tmp_path):
    """Each run is kept as it ends, before anything else can go wrong."""

    def stops(line):
        if "[  4/6]" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path, report=stops)
    assert written(tmp_path) == {}
    again = carrying()
    first = experiment(tmp_path)
    assert first["reused"] == 4 and len(again.asked) == 2
    second = experiment(tmp_path)
    assert second == first | {"reused": 6, "seconds": second["seconds"]} and len(again.asked) == 2
    third = experiment(tmp_path, seeds=4)
    assert [run.seed for run in again.asked[2:]] == [3, 3] and third["reused"] == 6 and len(third["runs"]) == 8


def test_a_measure_that_needs_a_diverged_run_is_not_finished(made_up, carrying, tmp_path):
    """A run that diverges is a result, and kept, whatever its kind; the experiment names it and is not finished."""
    lines, run = [], made_up.grid([1])[2.0, 1]
    carrying(diverge=[run])
    outcome = experiment(tmp_path, report=lines.append)
    assert outcome == {"failed": [{"error": "seed 1, rate 2.0: the loss became nan at step 7"}]}
    assert lines[-1] == "  cannot be measured: seed 1, rate 2.0: the loss became nan at step 7"
    assert sum("seed 1, rate 2.0: diverged" in line for line in lines) == 1 and written(tmp_path) == {}
    numbers = kept_numbers(tmp_path / "store", run)
    assert numbers.pop("seconds") >= 0
    assert numbers == {"validation_loss": None, "diverged": "the loss became nan at step 7"}
    again = carrying()
    assert "failed" in experiment(tmp_path) and not again.asked


@pytest.mark.parametrize("part", ["lora_np", "numpy", "python", "base", "code"])
def test_a_run_of_other_code_is_said_left_there_and_run_again(part, carrying, tmp_path, monkeypatch):
    asked, lines = carrying().asked, []

    def reused():
        lines.clear()
        return store.carry_out_all([MadeUpRun(0, keep=True), MadeUpRun(1)], tmp_path, report=lines.append)[2]

    assert reused() == 0 and not any("another version" in line for line in lines) and len(asked) == 2
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    now = made_with(PLANTED) | {part: "another"}
    assert set(now) == {"lora_np", "numpy", "python", "base", "code", "modules"}
    monkeypatch.setattr(store, "made_with", lambda *modules: now)
    assert reused() == 0 and "2 runs in" in lines[0] and "another version of the code or of NumPy" in lines[0]
    assert reused() == 2 and lines == [] and len(asked) == 4
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()


def test_a_worker_of_another_version_is_refused(carrying, tmp_path, monkeypatch):
    """Its run has failed, and is not kept: what a store holds is of one version."""
    honest = store.carry_out_here

    def elsewhere(run):
        made, *result = honest(run)
        return (made | {"numpy": "1.0"} if run.seed == 1 else made), *result

    with monkeypatch.context() as patch:
        patch.setattr(store, "carry_out_here", elsewhere)
        failed = experiment(tmp_path)["failed"]
    assert [(row["seed"], row["rate"], row["keep"]) for row in failed] == [(1, 1.0, False), (1, 2.0, True)]
    assert all(re.match("the worker has a different version: {.*'numpy': '1.0'", row["error"]) for row in failed)
    assert written(tmp_path) == {}
    again = carrying()
    assert experiment(tmp_path)["reused"] == 4 and [run.seed for run in again.asked] == [1, 1]


def test_a_recipe_may_have_tables_and_several_figures(made_up, carrying, tmp_path):
    """All are on its page; all figures are drawn again."""
    rows = [["seed", "loss"], ["0", "1"], ["1", "1.1"]]
    draw = made_up.RECIPE.draw
    change(made_up, table=lambda outcome: rows, draw={"1_one": draw, "2_two": draw})
    lines = []
    experiment(tmp_path, seeds=2, report=lines.append)
    assert set(written(tmp_path)) == FILES - {f"{NAME}.png"} | {"1_one.png", "2_two.png"}
    table = "| seed | loss |\n|------|-----:|\n| 0    |    1 |\n| 1    |  1.1 |"
    text = (tmp_path / f"out/{NAME}.md").read_text(encoding="utf-8")
    assert any(table in line for line in lines) and table in text
    assert "(1_one.png)\n" in text and "(2_two.png)\n" in text
    assert [path.name for path in laboratory.draw_again(NAME, "pretrained", tmp_path / "out")] == [
        "1_one.png",
        "2_two.png",
    ]


def test_the_gallery_says_what_each_figure_shows():
    assert gallery.alt_texts("Figure 1: a of b. Compare. Figure 2: c.", 2) == ["a of b", "c"]
    assert gallery.alt_texts("Left panel: a. An a is b. Right panel: c.", 1) == ["Left panel: a. Right panel: c"]


def test_what_cannot_be_measured_or_drawn_is_not_written(made_up, carrying, tmp_path, monkeypatch):
    """The figure comes first: an earlier outcome stays whole beside its own figure."""
    experiment(tmp_path, seeds=2)
    before = written(tmp_path)
    for name in ("measure", "draw"):
        with monkeypatch.context() as patch, pytest.raises(KeyError):
            patch.setattr(made_up, "RECIPE", replace(made_up.RECIPE, **{name: lambda *_: {}["nothing"]}))
            experiment(tmp_path)
        assert written(tmp_path) == before and len(before) == 4
    assert experiment(tmp_path)["reused"] == 6  # what fails after the runs costs no training


def test_a_quick_look_is_marked(carrying, tmp_path):
    outcome = experiment(tmp_path, None, quick=True)
    assert outcome["quick"] is True and outcome["seeds"] == [0, 1]
    assert outcome["command"] == f"python -m lora_np experiment {NAME} --quick --seeds 2"
    assert "These runs are shortened" in (tmp_path / f"out/{NAME}.md").read_text(encoding="utf-8")
    experiment(tmp_path, seeds=2)
    assert "shortened" not in (tmp_path / f"out/{NAME}.md").read_text(encoding="utf-8")


def test_the_time_left_is_that_of_the_runs_before(monkeypatch):
    monkeypatch.setattr(store.time, "perf_counter", lambda: 400.0)
    assert store.time_left(100.0, done=3, n=9) == "; about 10 min 00 s left"
    assert store.time_left(100.0, done=9, n=9) == store.time_left(390.0, done=3, n=9) == ""


# ---------------------------------------------------------------- the gallery


def outcome_of(found=1, **more):
    """What the JSON of an experiment on planted ranks contains, as far as the gallery needs it."""
    tables = {"found": {"1": [found, found]}}
    outcome = {
        "base": "pretrained", "command": "python -m …", "seeds": [0, 1], "seconds": 61.4, "quick": False, "reused": 3,
        "versions": {"lora_np": "1", "numpy": "2", "python": "3", "machine": "M"},
        "runs": [{"seconds": 720.0, "settings": {}}] * 7,
        "made_with": made_with(PLANTED),
    } | tables  # fmt: skip
    of = recipe("planted_rank")
    outcome["design"] = design_of(of, "pretrained")._asdict()
    return outcome | {"comparisons": judged(of, outcome)} | more


def gallery_of(folder, **outcomes):
    """Write the gallery of these outcomes; return its README.md."""
    for name, outcome in outcomes.items():
        write_json(folder / f"{name}.json", outcome)
    return write_gallery(folder).read_text(encoding="utf-8")


def test_the_gallery_is_a_table_with_a_page_for_each_experiment(tmp_path):
    text = gallery_of(tmp_path, planted_rank=outcome_of())
    finding = "LoRA recovers the planted rank exactly in 2 of 2 cases (95 % interval of the share: 16 to 100 %)."
    (row,) = (line for line in text.splitlines() if line.startswith("| [Can LoRA"))
    compared = "distance of the recovered rank from the planted one"
    verdict = f"the small base: **equivalent**. {compared}: 0 ranks [0, 0] |"
    for part in (f"](planted_rank.md) | {finding}", '<img src="planted_rank.png"', verdict):
        assert part in row
    decided = f"1 of {len(RECIPES)} questions are decided; not run yet: main_job, "
    assert decided in text and gallery.ABOUT.read_text("utf-8") in text
    page = (tmp_path / "planted_rank.md").read_text(encoding="utf-8")
    expected = ["# Can LoRA of rank r learn a change of rank k?", "The student is a small", f"**{finding}**"]
    expected += [
        "](planted_rank.png)\n\nThe loss on held-out texts",
        "Claim: LoRA can",
        f"Verdict: {compared}: 0 ranks",
    ]
    expected += [
        "<details><summary>Design and numbers",
        f"\n{compared}. The margin is 0.5 ranks.",
        f"| **{compared}** |",
    ]
    expected += ["    python -m …\n\n</details>"]
    expected += ["2 seeds; lora_np 1, NumPy 2, Python 3; M.", "1.4 core-hours", "[Numbers](planted_rank.json)\n"]
    places = [page.find(part) for part in expected]
    assert places == sorted(places) and places[0] == 0 < min(places[1:]), expected
    assert gallery_of(tmp_path) == text


def test_the_gallery_begins_with_what_contradicts_a_paper(tmp_path):
    """Undecided results are at the end, whatever they suggest, and an older code is marked."""
    headings = {1: "## Results that agree", 2: "## Results that contradict", None: "## Other results"}
    for found, heading in headings.items():
        wrong = outcome_of(2 if found == 2 else 1, made_with=made_with(PLANTED) | {"code": "other"})
        if found is None:
            wrong["comparisons"][0] |= {"verdict": UNKNOWN, "detectable": 0.7}
        text = gallery_of(tmp_path, planted_rank=wrong)
        assert [other for other in headings.values() if other in text] == [heading]
        assert (tmp_path / "planted_rank.md").read_text(encoding="utf-8").rstrip().endswith("these results.")
    assert "too few seeds to find a difference below 0.7 ranks" in text
    assert f"0 of {len(RECIPES)} questions are decided; not decided: planted_rank; not run yet: main_job, " in text


WHOLE = outcome_of()
ODD = {
    field: {k: v for k, v in WHOLE.items() if k != field}
    for field in WHOLE
    if field not in ("base", "reused", "seconds")
}
ODD |= {text: text for text in ("{", "[]", "3", "null", '{"seeds": 3}')} | {
    "comparisons of": WHOLE | {"comparisons": [{}]}
}


@pytest.mark.parametrize("odd", ODD)
def test_the_gallery_names_what_it_leaves_out(odd, tmp_path):
    """A file that lacks a field of this version, or is no outcome, is no reason to fail, nor to be silent."""
    content = ODD[odd] if isinstance(ODD[odd], str) else json.dumps(ODD[odd])
    (tmp_path / "planted_rank.json").write_text(content)
    text = gallery_of(tmp_path)
    reason = f"KeyError({odd!r})" if isinstance(ODD[odd], dict) and odd != "comparisons of" else ""
    assert f"`planted_rank.json` was not written by this version ({reason}" in text and ") and is omitted." in text
    assert "planted_rank.md" not in text and not (tmp_path / "planted_rank.md").exists()


# ---------------------------------------------------------------- the command


def command(tmp_path, *arguments):
    out = ["--out", str(tmp_path / "out"), "--store", str(tmp_path / "store")]
    return main(["experiment", *out, *map(str, arguments)])


def test_a_failed_run_is_reported_and_alone_tried_again(carrying, tmp_path, capsys):
    """The others go on. The command exits with 1; the next time it has little to do."""
    carrying(fail=[1])
    assert command(tmp_path, NAME, "--seeds", 2) == 1 and not written(tmp_path)
    said = capsys.readouterr()
    assert said.out.count("FAILED: OSError: no room for seed 1") == 2 and "Traceback" not in said.out + said.err
    assert said.out.endswith("2 of 4 runs failed; run the same command again to repeat only these runs\n")
    again = carrying()
    assert command(tmp_path, NAME, "--seeds", 2) == 0 and [run.seed for run in again.asked] == [1, 1]
    said = capsys.readouterr()
    assert said.err == "" and DIFFERENT in said.out and "2 of 4 runs were reused" in said.out
    assert set(written(tmp_path)) == FILES
    assert command(tmp_path, NAME, "--quick") == 0 and "4 of 4 runs were reused" in capsys.readouterr().out


def test_the_command_draws_anew_all_that_is_made_of_the_json(made_up, carrying, tmp_path, run, fails):
    """Of one experiment, or of all that are there."""
    experiment(tmp_path)
    before, asked, out = written(tmp_path), carrying().asked, tmp_path / "out"
    for name in (NAME, "all"):
        for file in (f"{NAME}.png", "README.md"):
            (out / file).unlink()
        assert run("experiment", name, "--draw", "--out", out) == f"{out / NAME}.png\n"
        assert written(tmp_path) == before and not asked
    change(made_up, caption="Look again.", design=made_up.RECIPE.design._replace(margin=9.0))
    run("experiment", NAME, "--draw", "--out", out)  # by the design that was fixed before the runs
    assert read_json(out / f"{NAME}.json")["comparisons"][0]["verdict"] == DIFFERENT
    assert "Look again." in (out / f"{NAME}.md").read_text(encoding="utf-8")
    run("experiment", "all", "--draw", "--out", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    write_json(out / f"{NAME}.json", {"of": "another version"})
    for expected in ("written by another version", "no such file"):
        fails("experiment", NAME, "--draw", "--out", out, says=[expected])
        (out / f"{NAME}.json").unlink(missing_ok=True)


def test_all_goes_on_after_a_failure_and_names_it(carrying, monkeypatch, capsys):
    asked = []

    def some_fail(name, seeds, quick, out, store, workers, report, base):
        asked.append((name, seeds, quick, out, store, base))
        return {"failed": [{"error": "it"}]} if name in ("dialect", "cost") else {}

    monkeypatch.setattr(laboratory, "experiment", some_fail)
    assert main(["experiment", "all", "--seeds", "4"]) == 1
    assert asked == [(name, 4, False, "figures", "out/runs", recipe(name).bases[0]) for name in RECIPES]
    assert capsys.readouterr().out == "not finished: dialect, cost\n"
    asked.clear()
    assert main(["experiment", "all", "--base", "smollm2"]) == 0
    assert [name for name, *_ in asked] == [name for name in RECIPES if "smollm2" in recipe(name).bases]
    assert main(["experiment", "variants", "--quick"]) == 0 and asked[-1][2:4] == (True, "figures/quick")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([NAME, "--seeds", "-3", "--quick"], "seeds: got -3"),
        ([NAME, "--out", "FILE"], "out: FILE is a file, expected a folder"),
        ([NAME, "--store", "FILE"], "store: FILE is a file, expected a folder"),
        ([NAME, "--base", "smollm2"], "base: got 'smollm2', expected one of pretrained"),
        (["variants", "--base", "pretrained"], "base: got 'pretrained', expected one of minilm, smollm2"),
        (["all", "--base", "gpt2"], "base: got 'gpt2', expected one of minilm, smollm2, pretrained"),
    ],
)
def test_the_command_refuses(arguments, message, carrying, monkeypatch, tmp_path, fails):
    asked, file = carrying().asked, tmp_path / "file"
    file.write_text("mine")
    monkeypatch.chdir(tmp_path)
    error = fails("experiment", *(text.replace("FILE", str(file)) for text in arguments))
    assert error.startswith("error: " + message.replace("FILE", str(file)))
    assert not asked and [path.name for path in tmp_path.iterdir()] == ["file"] and file.read_text() == "mine"


def test_the_list_shows_every_experiment(run):
    lines = run("experiment", "list").splitlines()
    expected = [(name, f"{recipe(name).question} ({', '.join(recipe(name).bases)})") for name in RECIPES]
    assert [tuple(line.split(maxsplit=1)) for line in lines] == expected


@pytest.mark.slow
def test_the_command_in_processes_of_its_own(tmp_path):
    """The planted ranks are found, by the real runs; the second time nothing is run."""
    folders = ["--out", tmp_path / "out", "--store", tmp_path / "store"]
    line = [sys.executable, "-m", "lora_np", "experiment", "planted_rank", "--quick", *folders]
    for there in (0, 16):
        done = subprocess.run(line, cwd=store.PACKAGE.parent, capture_output=True, text=True, check=True)
        assert f"{there} of 16 runs were reused" in done.stdout
    outcome = read_json(tmp_path / "out" / "planted_rank.json")
    assert outcome["comparisons"][0]["claim"] == "agrees" and outcome["found"] == {"1": [1, 1], "2": [2, 2]}
    files = {f"planted_rank.{suffix}" for suffix in ("json", "png", "md")}
    assert files | {"README.md"} == {path.name for path in (tmp_path / "out").iterdir()}
