"""An interrupted training run resumes bit for bit, whatever stopped it and whenever.

The runs here have all that a state must carry: shuffled epochs, dropout in the model and on the adapters'
inputs, shards, a warm-up, evaluations and a best one; and AdaLoRA's, what its allocation remembers.
"""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lora_np import training
from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.cli import main
from lora_np.data import Batch
from lora_np.formats import read_tensors, write_tensors
from lora_np.formats.atomic import only_process
from lora_np.model import initial_params
from lora_np.training import trainer as trainer_module

from .tiny import edit_tensors, tiny_config

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("trainable", "m", "v", "best", "history", "memory")

MODEL = tiny_config(dropout=0.1)
LORA = AdapterConfig(r=3, alpha=6, targets=["all-linear"], dropout=0.2)
ADALORA = replace(LORA, kind="adalora")
ALLOCATION = training.RankAllocation(target=0.5, first=0.1, last=0.3, every=0.1)  # its budget falls in steps 2 to 10
SETTINGS = training.TrainConfig(  # five batches an epoch, so that epochs end within and between evaluations and saves
    steps=14, learning_rate=2e-2, warmup_steps=3, schedule="cosine", shards=2, eval_every=4, save_every=1, seed=3
)


def make_task(adapter_settings):
    """The arguments of `train` for an adapter on every linear layer, or for the whole model without settings."""
    rng = np.random.default_rng(0)
    params = initial_params(MODEL, rng)
    start = None if adapter_settings is None else init_adapter(params, adapter_settings, rng)
    stream = [rng.integers(0, 13, (4, 7)) for _ in range(6)]
    batches = [Batch(ids[:, :-1], ids[:, 1:], np.full(4, 6), np.arange(4)) for ids in stream]

    def measure(arrays):
        model, adapter = training.attach(params, start, arrays)
        return training.evaluate(model, batches[5:], MODEL, adapter)

    def epoch_batches(rng):
        return [batches[i] for i in rng.permutation(5)]

    objective = training.model_objective(params, MODEL, start)
    objective, after_update = training.allocating(objective, start, SETTINGS.steps, ALLOCATION)
    task = {"objective": objective, "epoch_batches": epoch_batches, "evaluate": measure, "after_update": after_update}
    return {"trainable": training.trainable_arrays(params, start), **task}


class Stopped(Exception):
    pass


def run(task, settings, path=None, stop=None, label=""):
    """Train to the end, or only until after step `stop`; the saved state may be older than that."""

    def on_step(step, measured):
        if step == stop:
            raise Stopped

    with contextlib.nullcontext() if stop is None else pytest.raises(Stopped):
        return training.train(**task, config=settings, on_step=on_step, state_path=path, label=label)


def saved_step(path):
    return int(read_tensors(path)[1]["step"])


def assert_same_run(state, expected):
    """Bit-identical arrays and history; arrays that training goes through are in the same order.

    Dropout masks are drawn layer by layer, so another order of the same arrays is another run.
    """
    assert state.step == expected.step
    for field in FIELDS:
        got, wanted = getattr(state, field), getattr(expected, field)
        assert set(got) == set(wanted), field
        assert field in ("history", "memory") or list(got) == list(wanted), field
        for name, array in wanted.items():
            assert got[name].dtype == array.dtype and got[name].shape == array.shape, (field, name)
            assert got[name].tobytes() == array.tobytes(), (field, name)


@pytest.fixture(scope="module", params=[LORA, None, ADALORA], ids=["lora", "full", "adalora"])
def task(request):
    return make_task(request.param)


@pytest.fixture(scope="module")
def uninterrupted(task):
    return run(task, SETTINGS)


# ------------------------------------------------------------------ stopped and gone on


def test_the_task_would_show_a_difference(task, uninterrupted):
    """Other masks, another order or a lost moment change the numbers; else the tests below prove nothing."""
    other = run(task, replace(SETTINGS, seed=4))
    assert not np.array_equal(other.history["loss"], uninterrupted.history["loss"])
    assert len(uninterrupted.history["eval_loss"]) == 4
    stays = [array for name, array in uninterrupted.memory.items() if name.endswith("kept")]
    assert len(stays) == 12 * (task["after_update"] is not None) == len(uninterrupted.memory) / 7
    assert all(array.dtype == bool for array in stays) and np.all(stays) == (task["after_update"] is None)


@pytest.mark.parametrize("save_every, stops", [(1, range(1, 14)), (3, range(4, 14, 4)), (100, [9])])
def test_stopped_at_every_step(task, uninterrupted, tmp_path, save_every, stops):
    """Between and at evaluations (4, 8, 12) and ends of epochs (5, 10); earlier crashes' files disturb nothing.

    Steps since the last save are done again. `threads` and `save_every` change no number, so a run may go on with
    others. One that has ended is only read.
    """
    path, settings = tmp_path / "state.safetensors", replace(SETTINGS, save_every=save_every)
    for name in (".state.safetensors.abc123", ".state.safetensors.", "state.safetensors.tmp"):
        (tmp_path / name).write_bytes(b"half of a state")
    for stop in stops:
        run(task, settings, path, stop)
        assert (saved_step(path) if path.exists() else 0) == stop - stop % save_every
    assert_same_run(run(task, replace(SETTINGS, threads=2, save_every=5), path), uninterrupted)
    assert saved_step(path) == 14
    assert_same_run(run(task | {"objective": None}, SETTINGS, path), uninterrupted)


# ------------------------------------------------------------------ states that do not belong


LABEL = json.dumps(repr(SETTINGS))
WEIGHTS = {"blocks.0.attn.q_proj.lora_A": np.ones((2, 3), np.float32)}


def saved_by(path, adapter_settings=LORA, label="", **changes):
    """Save the state of a run with other settings of the loop, other arrays or another label."""
    run(make_task(adapter_settings), replace(SETTINGS, **changes), path, 2, label)


def cut_in_half(path):
    saved_by(path)
    os.truncate(path, path.stat().st_size // 2)


def write(path, **metadata):
    """Write tensors that are no state."""
    write_tensors(path, WEIGHTS, metadata or None)


REFUSED = {  # how a file is made that a run with SETTINGS and LORA refuses, and what the error says
    "rate": (partial(saved_by, learning_rate=1e-3), "settings\n  saved: .*\n  this run: "),
    "label": (partial(saved_by, label="reviews A"), "settings\n  saved: .*A\n  this run: "),
    "rank": (partial(saved_by, adapter_settings=replace(LORA, r=2)), "this run trains"),
    "targets": (partial(saved_by, adapter_settings=replace(LORA, targets=("q_proj",))), "this run trains"),
    "half": (cut_in_half, "not a complete safetensors file"),
    "folder": (Path.mkdir, "is a folder"),
    "weights": (write, "not a saved training state"),
    "step that is no number": (partial(write, step="many", label=LABEL), "not a saved training state"),
    "label that is no JSON": (partial(write, step="3", label="{"), "not a saved training state"),
    "arrays of no group": (partial(write, step="3", label=LABEL), "unexpected tensor"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_a_state_that_does_not_belong_is_refused(tmp_path, make, message):
    """And it stays as it is."""
    path = tmp_path / "state.safetensors"
    make(path)
    before = path.is_file() and path.read_bytes()
    with pytest.raises(ValueError, match=f"state.safetensors.*{message}"):
        run(make_task(LORA), SETTINGS, path)
    assert path.is_dir() or path.read_bytes() == before


# ------------------------------------------------------------------ finetune

TUNINGS = {  # options of `finetune`, with steps, evaluations and epochs that end within and between each other
    "lora": "--data rows.jsonl --text t --label l --lr 0.01 --epochs 3 --batch-size 9",
    "adalora": "--data rows.jsonl --text t --label l --variant adalora --rank 3 --lora-dropout 0.2 --epochs 3",
    "head": "--data rows.jsonl --text t --label l --method head --class-weights balanced --epochs 5",
    "text": "--text-file rows.jsonl --variant pissa --rank 2 --epochs 3",
    "full": "--text-file rows.jsonl --method full --dropout 0.1 --epochs 2 --batch-size 4",
}


@pytest.fixture(scope="module")
def rows():
    topics = {"parcel": ("where is it", "it never came", "it broke"), "thanks": ("so kind", "great help", "lovely")}
    rows = [{"t": f"{text} {i}", "l": label} for i in range(12) for label, texts in topics.items() for text in texts]
    return "\n".join(map(json.dumps, rows))


@pytest.fixture
def tuning(tmp_path, tiny_base, rows, monkeypatch, capsys):
    """Function (options, seconds=0, stop=None, error=KeyboardInterrupt) -> exit code, stdout and stderr of `finetune`.

    It works in `tmp_path`, which has nothing except rows.jsonl, and writes "out". A state is saved after every step, or
    after some seconds. It is interrupted in step `stop`. `began` is the step that its training began with.
    """
    (tmp_path / "rows.jsonl").write_text(rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_np.training.state.MOST_OFTEN", 0)
    step_of = trainer_module.train_step

    def call(options, seconds=0.0, stop=None, error=KeyboardInterrupt):
        def train_step(state, *rest):
            call.began = call.began or state.step + 1
            if state.step + 1 == stop:
                state.trainable.popitem()[1][...] = 7.0  # in the middle of a step
                raise error
            return step_of(state, *rest)

        call.began = None
        with monkeypatch.context() as patch:
            patch.setattr("lora_np.tasks.resuming.SAVE_SECONDS", seconds)
            patch.setattr(trainer_module, "train_step", train_step)
            base = [] if "--base" in options else ["--base", str(tiny_base)]
            code = main(["finetune", *options.split(), "--out", "out", *base])
        return code, *capsys.readouterr()

    return call


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize(
    "options", [pytest.param(o, id=n, marks=[] if n == "adalora" else pytest.mark.slow) for n, o in TUNINGS.items()]
)
def test_an_interrupted_fine_tuning_resumes_bit_for_bit(tuning, options):
    """Interrupted in its first step, twice in one, and in its last; each time it says where it resumes."""
    code, said, _ = tuning(options)
    assert code == 0 and "resuming" not in said and set(os.listdir()) == {"rows.jsonl", "out"}
    steps, expected = int(said.partition(" steps")[0].split()[-1]), contents("out")
    shutil.rmtree("out")
    before, middle = 0, random.randrange(2, steps)
    for stop in (1, middle, middle, steps, None):
        code, said, error = tuning(options, stop=stop)
        assert ("resuming" in said) == (before > 1) and tuning.began == max(before, 1)
        assert before <= 1 or f"resuming at step {before - 1} of {steps}\n" in said
        if stop is not None:
            resumes = f"; the same command resumes at step {stop - 1} of {steps}" if stop > 1 else ""
            assert code == 130 and error == f"stopped{resumes}\n"
            assert set(os.listdir()) == {"rows.jsonl", *["out.training.safetensors"] * (stop > 1)}
        before = stop
    assert code == 0 and set(os.listdir()) == {"rows.jsonl", "out"} and contents("out") == expected


FINETUNE = """
    import sys
    from lora_np.cli import main
    from lora_np.tasks import resuming
    from lora_np.training import state
    resuming.SAVE_SECONDS = state.MOST_OFTEN = 0.0
    sys.exit(main(["finetune", *sys.argv[1:]]))
"""  # saves a state after every step


@pytest.mark.slow
@pytest.mark.parametrize("options", [TUNINGS["adalora"], TUNINGS["full"]], ids=["adalora", "full"])
def test_a_fine_tuning_that_is_killed_resumes_bit_for_bit(tuning, options, tiny_base):
    """At random moments, most of them in a save; test_saving.py kills a save at every point of it."""
    options = options.replace("--epochs ", "--epochs 1")
    assert tuning(options)[0] == 0
    expected, resumed = contents("out"), []
    shutil.rmtree("out")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(FINETUNE), *options.split(), "--out", "out", "--base", tiny_base]
    for delay in [*np.random.default_rng().uniform(0.0, 0.3, 15), 300]:  # seconds from the training's start
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert any(line.startswith("training ") for line in process.stdout)  # "out exists" may come first
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            process.kill()
            resumed += re.findall("resuming at step ([0-9]+) of", process.stdout.read())
        if process.returncode == 0:
            break
    assert process.returncode == 0 and len(resumed) > 3 and contents("out") == expected
    assert set(os.listdir()) == {"rows.jsonl", "out"}


OTHERS = {  # what a second run does otherwise -> its options
    "learning_rate": "--lr 0.02",
    "seed": "--seed 1",
    "epochs": "--epochs 3",
    "batch_size": "--batch-size 8",
    "adapter": "--rank 3",
    "method, adapter, learning_rate": "--method head",
    "class_weights": "--class-weights balanced",
    "model": "--dropout 0.1",
    "base": "--base other",
    "data": "",
}


@pytest.mark.parametrize("what", [pytest.param(n, marks=[] if "method" in n else pytest.mark.slow) for n in OTHERS])
def test_the_state_of_another_run_is_not_used_and_stays_until_the_first_save(tuning, tiny_base, what):
    shutil.copytree(tiny_base, "other")
    edit_tensors(Path("other/model.safetensors"), lambda tensors: {n: 1.5 * array for n, array in tensors.items()})
    first = "--data rows.jsonl --text t --label l"
    tuning(first, stop=3)
    state = Path("out.training.safetensors").read_bytes()
    if what == "data":
        Path("rows.jsonl").write_text(Path("rows.jsonl").read_text().replace("great help 3", "great help 33"))
    other = f"{first} {OTHERS[what]}"
    code, said, _ = tuning(other, seconds=60.0)
    assert code == 0 and f"out.training.safetensors belongs to a run that differs in {what}; the first save" in said
    assert Path("out.training.safetensors").read_bytes() == state
    expected = contents("out")
    assert tuning(other, stop=4)[0] == 130 and Path("out.training.safetensors").read_bytes() != state
    assert "resuming at step 3 of" in tuning(other)[1]
    assert contents("out") == expected and set(os.listdir()) == {"rows.jsonl", "out", "other"}


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.write_text("my notes"), write], ids=["dir", "text", "w"]
)
def test_what_is_no_state_is_refused_before_the_training_and_stays(tuning, make):
    path = Path("out.training.safetensors")
    make(path)
    before = path.is_file() and path.read_bytes()
    code, said, error = tuning(TUNINGS["lora"])
    assert code == 2 and said == "" and error.startswith("error: out: ") and error.count("\n") == 1
    assert set(os.listdir()) == {"rows.jsonl", path.name} and (path.is_file() and path.read_bytes()) == before


def test_a_second_training_for_the_same_folder_is_refused(tuning):
    """As long as the first runs; what a killed one leaves refuses nothing."""
    Path(".lora_np-out.lock").touch()
    with only_process("../" + Path.cwd().name + "/out"):
        code, _, error = tuning(TUNINGS["lora"])
        assert code == 2 and error.startswith("error: out: another process is writing ")
        assert not Path("out").exists()
    assert tuning(TUNINGS["lora"])[0] == 0 and set(os.listdir()) == {"rows.jsonl", "out"}


def test_a_full_disk_ends_a_training_that_then_resumes(tuning, monkeypatch):
    tuning(TUNINGS["lora"])
    expected = contents("out")

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("replace", "rename"):  # of the state's first save, and of the task
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            patch.setattr("lora_np.formats.atomic.exchange", lambda *_: False)
            code, _, error = tuning(TUNINGS["lora"])
        assert code == 2 and "no space left" in error and contents("out") == expected
    assert "resuming at step" in tuning(TUNINGS["lora"])[1] and contents("out") == expected
