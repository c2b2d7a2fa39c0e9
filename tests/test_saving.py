"""Saving a folder: whatever happens, the old model answers or the new one does, never a mixture, never none.

`test_formats.py` has what goes wrong with a single file.
"""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest

from lora_np import formats
from lora_np.classroom.notebooks import write_notebook
from lora_np.classroom.release import notebook_of
from lora_np.classroom.sets import read_sets
from lora_np.formats import LoadedModel, atomic, checkpoint, hugging_face, model, peft, read_json, write_json
from lora_np.tasks.exchange import import_gguf

from .llama_files import small_llama, write_gguf
from .test_fuzz_formats import ROOT, tiny_tokenizer
from .tiny import edit_fields, random_adapter, random_params, tiny_config
from .world import make_world

CLASSES = tiny_config(n_classes=4)
VERSIONS = (0, 1)
PARAMS = [random_params(CLASSES, np.float32, version) for version in VERSIONS]
BASE = PARAMS[0]
ADAPTERS = [random_adapter(BASE, version, r=8, alpha=version + 1.0) for version in VERSIONS]
LABELS = [list("abcd"), list("efgh")]


def plain(loaded):
    """What was read, as values that can be compared."""
    if isinstance(loaded, dict):
        return {name: plain(value) for name, value in loaded.items()}
    if isinstance(loaded, tuple):
        return [plain(value) for value in loaded]
    if isinstance(loaded, np.ndarray):
        return loaded.tobytes()
    return loaded.to_str() if hasattr(loaded, "to_str") else loaded  # of a tokenizer


class Kind(NamedTuple):
    """A folder that is saved: functions (path, version) that writes it, and (path) that reads it."""

    save: Callable
    read: Callable

    def load(self, path):
        """The version that is in a folder; a mixture is none."""
        loaded = plain(self.read(path))
        [version] = [version for version in VERSIONS if loaded == undisturbed(self, version)]
        return version


@cache
def undisturbed(kind, version):
    """What is read of a folder that nothing else has touched."""
    with TemporaryDirectory() as folder:
        kind.save(Path(folder, "out"), version)
        return plain(kind.read(Path(folder, "out")))


def save_whole(path, version):
    task = LoadedModel(PARAMS[version], CLASSES, None, tiny_tokenizer(), LABELS[version])
    formats.save_task(path, task, None, {"method": "full"})


def save_beside_base(path, version):
    """A task that is an adapter, and its base in the folder beside it."""
    base = path.parent / "base"
    if not base.exists():
        formats.save_model(base, BASE, CLASSES, beside={"tokenizer.json": tiny_tokenizer().to_str()})
    task = LoadedModel(BASE, CLASSES, ADAPTERS[version], tiny_tokenizer(), LABELS[version])
    formats.save_task(path, task, base, {"method": "lora"})


def save_gguf(path, version):
    path, config = path.resolve(), small_llama(n_layers=1)  # a link to a folder that is not there yet would be refused
    source = path.parent / f"{version}.gguf"
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        write_gguf(source, random_params(config, np.float32, version), config)
    import_gguf(source, path)


KINDS = {
    "model": Kind(lambda path, v: formats.save_model(path, PARAMS[v], CLASSES), formats.load_model),
    "adapter": Kind(
        lambda path, v: formats.save_adapter(path, ADAPTERS[v]), lambda path: formats.load_adapter(path, BASE)
    ),
    "whole task": Kind(save_whole, formats.load_task),
    "task": Kind(save_beside_base, formats.load_task),
    "hf": Kind(lambda path, v: formats.save_hf(path, PARAMS[v], CLASSES, labels=LABELS[v]), formats.load_hf),
    "gguf": Kind(save_gguf, formats.load_task),
    "peft": Kind(
        lambda path, v: formats.save_peft(path, ADAPTERS[v], BASE, CLASSES),
        lambda path: formats.load_peft(path, BASE, CLASSES),
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def beside(folder):
    """The names in a folder, without those of a task's base and of imported files."""
    return set(os.listdir(folder)) - {"base", "0.gguf", "1.gguf"}


@pytest.fixture(params=["exchange", "two renames"])
def renaming(request, monkeypatch):
    """With and without a system that can exchange two folders."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "exchange", lambda a, b: False)
    return request.param


# ------------------------------------------------------------------ failures


def leave_behind(folder):
    """Make what processes that were killed have left in a folder."""
    prefix, suffix = atomic.TEMPORARY.values()
    (folder / f"{prefix}a{suffix}").mkdir()
    (folder / f"{prefix}a{suffix}" / "model.safetensors").write_bytes(b"half")
    (folder / f"{prefix}b{suffix}").write_bytes(b"half")


def test_a_saved_file_replaces_leftovers_too(tmp_path):
    leave_behind(tmp_path)
    write_json(tmp_path / "out", 1)
    assert beside(tmp_path) == {"out"}


@every_kind
def test_a_new_folder_replaces_all_of_the_old_one(kind, tmp_path, renaming):
    path = tmp_path / "out"
    kind.save(path, 0)
    for name in ("adapter.json", "task.json", "training_log.json"):
        if not (path / name).exists():
            write_json(path / name, {"of": "an earlier run"})
    leave_behind(tmp_path)
    before = os.stat(path)
    kind.save(path, 1)
    assert kind.load(path) == 1 and os.stat(path).st_mode == before.st_mode
    names = os.listdir(path)
    kind.save(tmp_path / "fresh", 1)
    assert sorted(names) == sorted(os.listdir(tmp_path / "fresh"))
    assert beside(tmp_path) == {"fresh", "out"}


MOMENTS = [("write_pieces", 0), ("write_pieces", 1), ("fsync", 0), ("fsync", 1), ("put_in_place", 0)]  # calls that work


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("moment, after", MOMENTS)
@every_kind
def test_a_save_that_fails_leaves_the_old_one_and_nothing_else(kind, moment, after, error, tmp_path, monkeypatch):
    path = tmp_path / "out"
    kind.save(path, 0)
    with monkeypatch.context() as patch:
        module = os if hasattr(os, moment) else atomic
        calls = mock.Mock(wraps=getattr(module, moment), side_effect=[mock.DEFAULT] * after + [error] * 99)
        patch.setattr(module, moment, calls)
        with pytest.raises(type(error)) as raised:
            kind.save(path, 1)
        patch.undo()
        real = atomic.write_pieces
        patch.setattr(atomic, "write_pieces", lambda file, data: real(file, data[:-40]))
        with pytest.raises(ValueError, match="not a"):  # it cannot be read back
            kind.save(path, 1)
    if moment in ("write_pieces", "fsync") and isinstance(error, OSError):
        assert "No space left on device" in str(raised.value) and str(path) in str(raised.value)
    assert kind.load(path) == 0 and beside(tmp_path) == {"out"}


@every_kind
@pytest.mark.parametrize("opening", ["load", "save"])
def test_the_next_opening_takes_back_what_was_killed_between_two_renames(kind, opening, tmp_path):
    path = tmp_path / "out"
    kind.save(path, 0)
    os.rename(path, atomic.aside(path))  # what a kill leaves
    if opening == "save":
        kind.save(path, 1)
    assert kind.load(path) == (opening == "save") and beside(tmp_path) == {"out"}


@every_kind
def test_files_of_the_user_are_never_replaced(kind, tmp_path, monkeypatch):
    path = tmp_path / "out"
    kind.save(path, 0)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="out contains unrelated files, such as 'notes.txt'; expected a new folder"):
        kind.save(path, 1)
    assert kind.load(path) == 0 and (path / "notes.txt").read_text() == "mine"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="here is the current folder"):
        kind.save(Path(), 1)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real", target_is_directory=True)
    kind.save(link, 1)
    assert link.is_symlink() and kind.load(link) == kind.load(tmp_path / "real") == 1


@every_kind
def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(kind, tmp_path, monkeypatch, renaming):
    """Its files would be of two versions otherwise."""
    path = tmp_path / "out"
    kind.save(path, 0)

    def replaced_first(read):
        def call(path_of_tensors):
            if not replaced:
                replaced.append(True)
                kind.save(path, 1)
            return read(path_of_tensors)

        return call

    replaced = []
    for module, name in ((checkpoint, "read_tensors"), (hugging_face, "read_tensors"), (peft, "read_tensors"),
                         (model, "read_gguf")):  # fmt: skip
        monkeypatch.setattr(module, name, replaced_first(getattr(module, name)))
    assert kind.load(path) == 1 and replaced


# ------------------------------------------------------------------ an adapter and its base


def test_a_task_and_its_base_move_together(tmp_path):
    save_beside_base(tmp_path / "all" / "task", 1)
    os.rename(tmp_path / "all", tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved" / "task", target_is_directory=True)
    for folder in (tmp_path / "moved" / "task", tmp_path / "link"):
        assert KINDS["task"].load(folder) == 1 and read_json(folder / "task.json")["base"] == "../base"


def test_an_adapter_and_a_task_file_of_two_trainings_are_refused(tmp_path):
    for name, version in (("old", 1), ("task", 0)):
        save_beside_base(tmp_path / name, version)
    shutil.copy(tmp_path / "old" / "adapter.safetensors", tmp_path / "task")
    with pytest.raises(ValueError, match="does not match task.json; copy the entire folder again"):
        formats.load_task(tmp_path / "task")
    edit_fields(tmp_path / "task" / "task.json", adapter_sha256="absent")  # as older versions wrote it
    assert formats.load_task(tmp_path / "task").labels == LABELS[0]
    fields = read_json(tmp_path / "task" / "adapter.json")
    (tmp_path / "task" / "adapter.json").write_text(json.dumps(fields))  # the same configuration
    formats.load_task(tmp_path / "task")
    edit_fields(tmp_path / "task" / "adapter.json", alpha=2 * fields["alpha"])
    with pytest.raises(ValueError, match="adapter.json does not match task.json; copy the entire folder again"):
        formats.load_task(tmp_path / "task")


# ------------------------------------------------------------------ stress

SAVER = """
import sys
from pathlib import Path
from tests import test_saving as here
kind, path, way, n = here.KINDS[sys.argv[1]], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if way == "renames":
    here.atomic.exchange = lambda a, b: False
print("ready", flush=True)
for line in sys.stdin if n < 0 else map(str, range(n)):
    kind.save(path, int(line) % 2)
    print("saved", flush=True)
"""


def saver(kind, path, way="exchange", n=10**9):
    """A process that saves version 0, 1, 0, … as often as told; with n < 0 the version that each line tells."""
    command = [sys.executable, "-c", SAVER, kind, str(path), way, str(n)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.stress
@pytest.mark.skipif(os.name != "posix", reason="signal 9 is POSIX")
def test_killed_at_seventy_random_moments(tmp_path):
    moments, seen = random.Random(0), set()
    for kind, way in 5 * list(itertools.product(KINDS, ("exchange", "renames"))):
        path = tmp_path / f"{kind} {way}" / "out"
        KINDS[kind].save(path, 0)
        process = saver(kind, path, way)
        time.sleep(moments.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        seen.add(KINDS[kind].load(path))
        KINDS[kind].save(path, 0)
        assert beside(path.parent) == {"out"}, "the next save removes what the kill left"
    assert seen == set(VERSIONS)


KILLED = {  # name -> command, in which {a} is an adapter; it replaces the result of the same command with another one
    "export": "export {a} --to merged --out {out}/x",
    "merge": "merge {a} --out {out}/x",
    "mix": "mix {a} --out {out}/x",
    "explore": "explore {a} --text-file {w}/data/corpus.txt --out {out}/x.html",
}


def files_in(folder):
    """Path -> content of each file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def left_in(folder):
    """`files_in`, without the temporary files that a killed command leaves until the next one."""
    return {path: content for path, content in files_in(folder).items() if ".lora_np-" not in path}


def run_command(words, seconds=None):
    """Run a command in a process of its own, and kill it after some seconds."""
    process = subprocess.Popen([sys.executable, "-m", "lora_np", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@pytest.mark.nightly
@pytest.mark.skipif(os.name != "posix", reason="signal 9 is POSIX")
def test_commands_killed_at_eighty_random_moments(tmp_path):
    """There is the earlier result or the new one, and the next run leaves nothing else."""
    world, moments = make_world(tmp_path / "world"), random.Random(0)
    for name, command in KILLED.items():
        out = tmp_path / name
        new, old = (command.format(a=world / adapter, w=world, out=out).split() for adapter in ("one", "two"))
        results = []
        for words in (new, old):
            out.mkdir(exist_ok=True)
            started = time.monotonic()
            assert run_command(words) == 0
            results.append(files_in(out))
        middle, seen = time.monotonic() - started, []
        for _ in range(20):  # around the moment at which the new result replaces the old one
            killed = run_command(new, moments.uniform(0.8, 1.2) * middle)
            left = left_in(out)
            assert left in results, f"{name}: killed ({killed}), it leaves {sorted(left)}"
            seen.append(results.index(left))
            middle *= 1.1 if seen[-1] else 0.9
            assert run_command(old) == 0 and files_in(out) == results[1]
        assert set(seen) == {0, 1}, name


@pytest.mark.nightly
@pytest.mark.skipif(os.name != "posix", reason="signal 9 is POSIX")
def test_grading_killed_at_a_hundred_random_moments(tmp_path):
    """Every file is the earlier or the new one, points for written answers are kept, and the next run completes."""
    moments, out, words, results = random.Random(2), tmp_path / "out", [], []
    for what in ("solutions", "student"):
        path = tmp_path / what / "ada.ipynb"
        path.parent.mkdir()
        write_notebook(path, notebook_of(read_sets()["07_lora_layer"], what))
        words.append(["classroom", "grade", str(path), "--out", str(out)])
        started = time.monotonic()
        assert run_command(words[-1]) == 0
        seconds = time.monotonic() - started
        if not results:
            points = (out / "words.csv").read_text("utf-8").replace(",4,,", ",4,3,")
            assert ",4,3," in points
            (out / "words.csv").write_text(points, encoding="utf-8")
            assert run_command(words[0]) == 0
        results.append(files_in(out))
    changed, seen = {name for name in results[0] if results[0][name] != results[1][name]}, set()
    for kill in range(100):
        killed = run_command(words[kill % 2], moments.uniform(0.7, 1.05) * seconds)
        left = left_in(out)
        assert left.keys() == results[0].keys()
        for name, content in left.items():
            assert content in (results[0][name], results[1][name]), f"{name}: killed ({killed}), it is another file"
        seen.add(tuple(left[name] == results[kill % 2][name] for name in sorted(changed)))
    assert {(False,) * len(changed), (True,) * len(changed)} <= seen
    for command, result in zip(words, results):
        assert run_command(command) == 0 and files_in(out) == result


@pytest.mark.nightly
@pytest.mark.skipif(os.name != "posix", reason="signal 9 is POSIX")
def test_the_main_job_killed_at_twenty_random_moments(tmp_path):
    """Each time, it goes on with the runs that were finished."""
    moments, finished = random.Random(1), []
    words = ["run", "--base", "pretrained", "--quick", "--jobs", "1"]
    words += ["--out", str(tmp_path / "out"), "--store", str(tmp_path / "runs")]
    for _ in range(20):
        run_command(words, moments.uniform(1.0, 4.0))
        finished.append(len(list((tmp_path / "runs").rglob("*.json"))))
    assert finished == sorted(finished) and run_command(words) == 0
    results = read_json(tmp_path / "out" / "main_job.json")
    assert run_command([*words[:-3], str(tmp_path / "whole"), "--store", str(tmp_path / "anew")]) == 0
    again = read_json(tmp_path / "whole" / "main_job.json")
    assert results["comparisons"] == again["comparisons"]
    assert not list(tmp_path.rglob(".lora_np-*"))


@pytest.mark.stress
def test_three_hundred_pairs_of_synchronised_writers(tmp_path):
    """Two processes are told at the same moment to save different versions, and a third one reads all the while."""
    path, kinds, seen = tmp_path / "out", ["whole task", "task", "hf"], []
    for kind in kinds:
        KINDS[kind].save(path, 0)
        writers = [saver(kind, path, way, -1) for way in ("exchange", "renames")]
        for pair in range(100):
            for version, writer in zip(VERSIONS if pair % 2 else VERSIONS[::-1], writers):
                writer.stdin.write(f"{version}\n")
                writer.stdin.flush()
            for _ in range(5):
                assert KINDS[kind].load(path) in VERSIONS
            for writer in writers:
                assert writer.stdout.readline() == "saved\n"
            seen.append(KINDS[kind].load(path))
        for writer in writers:
            writer.communicate()
        assert beside(tmp_path) == {"out"}
    assert len(seen) == 300 and set(seen) == set(VERSIONS)
