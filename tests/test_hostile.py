"""Commands as a hostile user would call them: bad words, and damaged files of every kind that a command reads.

Each command runs in a worker process with 4 GB of memory and a time limit, which answers with the exit code and with
all that came out of it, a library's own output included. `fault` is what has to hold of an answer.
"""

import csv
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lora_np.classroom.notebooks import write_notebook
from lora_np.classroom.release import notebook_of
from lora_np.classroom.sets import read_sets
from lora_np.cli import main
from lora_np.data import train_tokenizer
from lora_np.formats import read_json, read_tensors, save_model, write_json
from lora_np.model import ModelConfig, initial_params
from lora_np.reference import MANIFEST, VECTORS, load_case, load_manifest

from . import test_fuzz_formats as fuzz

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 4 * 2**30  # bytes of a worker
SECONDS = 30  # for one command
WORKERS = 2


# ------------------------------------------------------------------ a process that runs commands


class Answer(NamedTuple):
    """What came of a command; a worker that hangs or dies has no exit code, and says so in `err`."""

    code: int | None
    out: str
    err: str


def work():
    """Run the commands that come on stdin, one JSON list a line, and answer each with a line of JSON."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.fsync = lambda descriptor: None  # as conftest.py has it
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    files = [tempfile.TemporaryFile() for _ in range(2)]
    for descriptor, file in enumerate(files, start=1):  # not sys.stdout alone: libraries write by themselves
        os.dup2(file.fileno(), descriptor)
    for line in sys.stdin:
        try:
            code = main(json.loads(line))
        except BaseException:
            traceback.print_exc()
            code = 1
        said = []
        for stream, file in zip((sys.stdout, sys.stderr), files):
            stream.flush()
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))
            file.truncate(0)
            file.seek(0)
        print(json.dumps([code, *said]), file=answers, flush=True)


class Worker:
    """A process of `work`, started anew after one that hung or died."""

    def __init__(self):
        self.process = None

    def ask(self, words, seconds=SECONDS):
        """The Answer to a command."""
        if self.process is None:
            command = [sys.executable, "-c", "from tests.test_hostile import work; work()"]
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        self.process.stdin.write(json.dumps([str(word) for word in words]).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        if line:
            return Answer(*json.loads(line))
        code = self.end(kill=not ready)
        return Answer(None, "", f"ended with code {code}" if ready else f"hangs for {seconds} s")

    def end(self, kill=False):
        """End the process; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        if kill:
            process.kill()
        process.stdin.close()  # which ends one that waits for a command
        process.stdout.close()
        return process.wait()


def fault(answer, may_succeed, before, after):
    """What is wrong with an answer, or None.

    Parameters
    ----------
    answer : Answer
    may_succeed : bool
    before, after : what is in the folder that the command writes to
    """
    code, out, err = answer
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    complained = code in (1, 2) and out and not lines  # a checker lists what is wrong on stdout, and in its --json
    if code is None or "Traceback" in err + out:
        return f"{err} {out}"
    if code == 0 and not may_succeed:
        return "succeeds"
    if code == 0 and lines:
        return f"succeeds, and says {err!r}"
    # A label, a text or a tensor may be called "nan".
    names = r"^(labels: .*|.* tensors, .*(\n.*)*|[^\t\n]*\t(?=.*\t))|\t.*$"
    numbers = re.sub(names, "", out, flags=re.MULTILINE)
    if code == 0 and re.search(r"(?<![\w.])[-+]?(nan|inf|infinity)(?![\w.])", numbers, re.IGNORECASE):
        return f"answers with numbers that are not finite: {out!r}"
    if code != 0 and not complained and not (code == 2 and len(lines) == 1 and lines[0].startswith("error: ")):
        return f"exit code {code}, {err!r}"
    if code == 2 and not complained and before != after:
        return f"leaves something half-written: {sorted(set(after.items()) ^ set(before.items()))[:3]!r}"
    return None


def not_finite(folder):
    """The first file of tensors in a folder with a number that is not finite, or None."""
    for path in sorted(folder.rglob("*.safetensors")):
        if not all(np.isfinite(array).all() for array in read_tensors(path)[0].values()):
            return f"writes numbers that are not finite: {path}"


def contents(folder):
    """Path -> size and time of change of each file in a folder; None for each folder."""
    stats = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {str(p): None if p.is_dir() else (stat.st_size, stat.st_mtime_ns) for p, stat in stats.items()}


# ------------------------------------------------------------------ what commands read

TEXTS = [f"the quick {animal} jumps over the lazy {thing} , said {who}" for animal in ("fox", "cat", "hen", "owl")
         for thing in ("dog", "log", "bog", "fog") for who in ("he", "she", "they")]  # fmt: skip
CASES = ("linear", "lora", "layer-norm")  # of the reference


def make_world(root):
    """Everything that commands read, each in its folder, in a folder `root`; outputs go to `root/made`."""
    for name in ("base", "data", "vectors", "port/lora.float64", "exercises", "made", "empty"):
        (root / name).mkdir(parents=True)
    tokenizer = train_tokenizer(TEXTS, 400)
    config = ModelConfig(tokenizer.get_vocab_size(), 24, 16, 1, 2, 32)
    save_model(root / "base", initial_params(config, np.random.default_rng(0)), config)
    tokenizer.save(str(root / "base" / "tokenizer.json"))
    rows = [{"t": text, "l": "abc"[i % 3], "n": i} for i, text in enumerate(TEXTS)]
    for name, delimiter in (("rows.csv", ","), ("rows.tsv", "\t")):
        with open(root / "data" / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([rows[0], *(row.values() for row in rows)])
    (root / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "data" / "corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    start = f"finetune --base {root}/base --epochs 1 --lr 0.01"
    for command in (
        f"{start} --text-file {root}/data/corpus.txt --rank 2 --out {root}/one",
        f"{start} --text-file {root}/data/corpus.txt --rank 3 --seed 1 --out {root}/two",
        f"{start} --text-file {root}/data/corpus.txt --rank 3 --variant dora --out {root}/dora",
        f"{start} --text-file {root}/data/corpus.txt --method full --out {root}/full",
        f"{start} --data {root}/data/rows.csv --text t --label l --out {root}/classes",
        f"export {root}/one --to hf --out {root}/hf",
        f"export {root}/one --to peft --out {root}/peft",
        f"export {root}/classes --to merged --out {root}/classes_hf",
    ):
        assert main(command.split()) == 0, command
    entries, _ = load_manifest()
    manifest = read_json(VECTORS / MANIFEST)
    write_json(root / "vectors" / MANIFEST, manifest | {"cases": [entries[id] for id in CASES]})
    for id in CASES:
        for name in entries[id]["files"].values():
            shutil.copy(VECTORS / name, root / "vectors")
    shutil.copy(VECTORS / "linear.float64.safetensors", root / "port")
    outputs = {name: array.tolist() for name, array in load_case(entries["layer-norm"], "float64", VECTORS).items()}
    shapes = {name: list(np.shape(values)) for name, values in outputs.items()}
    flat = {n: {"shape": shapes[n], "values": np.ravel(v).tolist()} for n, v in outputs.items()}
    write_json(root / "port" / "layer-norm.float64.json", {"tensors": flat})
    for name, array in load_case(entries["lora"], "float64", VECTORS).items():
        np.save(root / "port" / "lora.float64" / f"{name}.npy", array)
    write_notebook(root / "exercises" / "07_lora_layer.ipynb", notebook_of(read_sets()["07_lora_layer"], "solutions"))
    (root / "exercises" / "words.csv").write_text("student,item,out_of,points,remark\nada,words_07_lora_layer,4,3,\n")
    (root / "exercises" / "moodle.csv").write_text("Identifier,Grade,Maximum Grade\nParticipant 1,,10\n")
    (root / "exercises" / "canvas.csv").write_text("Student,ID,LoRA (7)\nAda,1,\n")
    return root


# ------------------------------------------------------------------ bad words

WHOLE = ["0", "-1", "1.5", "x", "1e3", "nan", "0x10", "9" * 5000, ""]
SEED = [value for value in WHOLE if value != "0"]
REAL = ["nan", "inf", "1e999", "x", "1,5", ""]
POSITIVE = [*REAL, "0", "1e-320"]
NAME = ["nope", "", " ", "x" * 5000, "\x1b[2J", "a\0b", os.fsdecode(b"caf\xe9")]
NO_PATH = ["", " ", "x" * 5000, "x/" * 3000, "a\0b", os.fsdecode(b"caf\xe9"), "{w}/loop"]
READ = [*NO_PATH, "{w}/none", "{w}/nowhere", "{w}/pipe", "/dev/zero", "/dev/null", "{w}/empty", "{w}/data/corpus.txt/x"]
DATA = [*READ, "{w}/blank.csv", "{w}/data"]
TO_FOLDER = [*NO_PATH, "{w}/nowhere", "{w}/pipe", "/dev/null", "{w}/data/corpus.txt", "{w}/data/corpus.txt/x"]
TO_FILE = [*NO_PATH, "{w}/nowhere", "{w}/pipe", "/dev/null", "{w}/data", "{w}/data/corpus.txt/x"]
BAD = {  # by option, or by the place of a word in braces
    **dict.fromkeys(("--epochs", "--batch-size", "--tokens", "--top-k", "--jobs", "--seeds", "--reviews"), WHOLE),
    **dict.fromkeys(("--rounds", "--threads"), WHOLE),
    "--rank": WHOLE,
    "--seed": SEED,
    "--lr": [*POSITIVE, "-1"],
    "--alpha": POSITIVE,
    **dict.fromkeys(("--dropout", "--lora-dropout"), [*REAL, "1", "-0.1"]),
    "--temperature": [*REAL, "-1"],
    "--top-p": [*REAL, "0", "1.5"],
    "--repetition-penalty": [*REAL, "0", "-1"],
    "--weights": [*REAL, "1 1 1"],
    **dict.fromkeys(("--targets", "--variant", "--method", "--text", "--label", "--to", "--from", "--case"), NAME),
    **dict.fromkeys(("--dtype", "--work", "--rungs", "--peers", "--methods", "NAME", "--labels"), NAME),
    "--tier": [*NAME, "0", "4"],
    "--rungs": [*NAME, "65", "64,2", "64,2,4,64,32,0", "6,2,4,64,32,9"],
    **dict.fromkeys(("--data", "--test", "--text-file"), DATA),
    **dict.fromkeys(("--base", "--model", "--adapter", "--vectors", "--words", "--moodle", "--canvas"), READ),
    "--tokenizer": [*READ, "{w}/base/config.json"],
    "READ": READ,
    "--out": TO_FOLDER,
    "TO": TO_FOLDER,
    "--json": TO_FILE,
    "--store": TO_FOLDER,
}
REPEATED = ("--adapter", "--tier", "--case", "--dtype", "--peers", "--rungs", "--work")  # options that may be repeated
COMMANDS = """
finetune --data {w}/data/rows.csv --text t --label l --base {w}/base --out {w}/made/x --epochs 1 --rank 2 --alpha 4
    --lr 0.01 --batch-size 8 --seed 1 --dropout 0.1 --lora-dropout 0.1 --targets q_proj --variant dora --method lora
    --test {w}/data/rows.tsv
finetune --text-file {w}/data/corpus.txt --base {w}/base --out {w}/made/x --epochs 1 --rank 2 --targets q_proj
predict --model {w}/classes --data {w}/data/rows.jsonl --text t
evaluate --model {w}/classes --data {w}/data/rows.jsonl --text t --label l --json {w}/made/x.json
generate --model {w}/full --prompt the --tokens 3 --temperature 1 --top-k 3 --top-p 0.9 --repetition-penalty 1.1
    --seed 1
generate --adapter {w}/one --prompt the --tokens 3 --weights 1
mix READ={w}/one {w}/two --weights 1 1 --base {w}/base --rank 2 --out {w}/made/x
merge READ={w}/one --weights 1 --base {w}/base --out {w}/made/x
export READ={w}/one --to hf --out {w}/made/x
import READ={w}/hf --from hf --tokenizer {w}/base/tokenizer.json --out {w}/made/x
import READ={w}/peft --from peft --base {w}/base --out {w}/made/x
import {w}/peft --from peft --base {w}/base --out {w}/made/x --labels a
inspect READ={w}/one --json {w}/made/x.json
run --quick --seeds 1 --jobs 1 --out {w}/made/x --json {w}/made/x.json --store {w}/made/y
experiment NAME=main_job --seeds 1 --jobs 1 --out {w}/made/x --store {w}/made/y
tune --methods full --jobs 1 --out {w}/made/x.json --store {w}/made/y
pretrain --out {w}/made/x --epochs 1 --seed 0 --threads 1 --reviews 1
gradcheck --json {w}/made/x.json
bench --peers none --rungs 64 --work forward --threads 1 --rounds 1 --seed 0 --json {w}/made/x.json
reference export TO={w}/made/x
reference list --vectors {w}/vectors
reference check READ={w}/port --vectors {w}/vectors --case linear --tier 1 --dtype float64 --json {w}/made/x.json
classroom release TO={w}/made/x
classroom grade READ={w}/exercises/07_lora_layer.ipynb --out {w}/made/x --json {w}/made/x.json --jobs 1
    --words {w}/exercises/words.csv --moodle {w}/exercises/moodle.csv --canvas {w}/exercises/canvas.csv
classroom collect TO={w}/made/x READ={w}/exercises/07_lora_layer.ipynb
classroom execute READ={w}/data/corpus.txt --jobs 1
"""


def bad_commands(world):
    """Commands that are each right but for one word, as lists of words."""
    for command in COMMANDS.strip().replace("\n   ", "").splitlines():
        words = command.split()
        plain = [re.sub("^[A-Z]+=", "", word).format(w=world) for word in words]
        for place, word in enumerate(words):
            kind = words[place - 1] if words[place - 1].startswith("--") else word.partition("=")[0]
            if kind.startswith("--") and "--" in word:
                continue
            for bad in BAD.get(kind, ()):
                yield [*plain[:place], *bad.replace("{w}", str(world)).split(" "), *plain[place + 1 :]]
            if kind.startswith("--"):
                if kind not in REPEATED:
                    yield [*plain, *plain[place - 1 : place + 1]]
                if kind != "--peers":  # which may be none
                    yield plain[:place] + plain[place + 1 :]
        yield [*plain, "--no-such-option"]


def make_traps(world):
    """What is no file to read, in the folder of everything that commands read."""
    (world / "loop").symlink_to(world / "loop")
    (world / "nowhere").symlink_to(world / "gone")
    (world / "blank.csv").touch()
    os.mkfifo(world / "pipe")


# ------------------------------------------------------------------ damaged files

TABLE = "finetune --base {w}/base --epochs 1 --out {w}/made/x --text t --label l --data {w}/data/"
READING = {  # command -> patterns of the files that it reads
    "predict --model {w}/classes the fox": "classes/* base/*",
    "predict --model {w}/classes --data {w}/data/rows.csv --text t": "data/rows.csv",
    "predict --model {w}/classes --data {w}/data/rows.tsv --text t": "data/rows.tsv",
    "predict --model {w}/classes --data {w}/data/rows.jsonl --text t": "data/rows.jsonl",
    "evaluate --model {w}/classes --data {w}/data/rows.csv --json {w}/made/x.json": "classes/* base/* data/rows.csv",
    "generate --prompt the --tokens 4 --model {w}/full": "full/*",
    "generate --prompt the --tokens 4 --adapter {w}/one base {w}/two": "one/* two/* base/*",
    "mix {w}/one {w}/two --weights 0.5 0.5 --out {w}/made/x": "one/* two/*",
    "mix {w}/one --rank 1 --out {w}/made/x": "one/*",
    "merge {w}/dora --out {w}/made/x": "dora/* base/*",
    "merge {w}/classes --out {w}/made/x": "classes/*",
    "export {w}/one --to peft --out {w}/made/x": "one/*",
    "export {w}/dora --to merged --out {w}/made/x": "dora/* base/*",
    "export {w}/full --to hf --out {w}/made/x": "full/*",
    "import {w}/hf --from hf --out {w}/made/x": "hf/*",
    "import {w}/classes_hf --from hf --out {w}/made/x": "classes_hf/*",
    "import {w}/peft --from peft --base {w}/base --out {w}/made/x": "peft/* base/*",
    "inspect {w}/one --json {w}/made/x.json": "one/*",
    "inspect {w}/peft --json {w}/made/x.json": "peft/*",
    "inspect {w}/hf --json {w}/made/x.json": "hf/*",
    f"{TABLE}rows.csv": "data/rows.csv base/*",
    f"{TABLE}rows.tsv": "data/rows.tsv",
    f"{TABLE}rows.jsonl": "data/rows.jsonl",
    "finetune --text-file {w}/data/corpus.txt --base {w}/base --epochs 1 --out {w}/made/x": "data/corpus.txt base/*",
    "reference check {w}/port --vectors {w}/vectors --json {w}/made/x.json": "port/* port/*/* vectors/*",
    "reference list --vectors {w}/vectors": "vectors/manifest.json",
    "classroom collect {w}/made/x {w}/exercises/07_lora_layer.ipynb": "exercises/*.ipynb",
    "classroom execute {w}/data/corpus.txt": "data/corpus.txt",
}


def change_table(rng, data):
    """One line of a table changed as people and programs do."""
    lines = data.decode("utf-8").split("\n")
    i = int(fuzz.pick(rng, [0, rng.integers(len(lines))]))
    line, delimiter = lines[i], "\t" if "\t" in lines[0] else ","
    others = ['"' + line, line + '"', line.replace(delimiter, delimiter + '"', 1), line + delimiter, delimiter * 1000]
    others += [line.partition(delimiter)[0], "", "\0" + line, line + "\r", "x" * 200_000 + line, line.upper(), '"']
    others += ["\ufeff" + line, "\ud800", "a" + delimiter + "a", line + "\n" + line, "=1+1" + delimiter + line]
    lines[i] = fuzz.pick(rng, others)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damage(rng, reader):
    """Damage one file; say which one, and how. The formats of `test_fuzz_formats` are damaged as there."""
    path = fuzz.pick(rng, list(reader.files))
    data, kind = reader.files[path], rng.random()
    if kind < 0.01:
        os.truncate(path, 20 * 2**30)  # takes no place on the disk
        return f"{path.name}: 20 GB"
    known = {path: data for path, data in reader.files.items() if path.suffix in (".safetensors", ".json")}
    if path in known:
        return fuzz.damage(rng, reader._replace(files=known))
    if kind < 0.1:
        return f"{path.name}: {fuzz.change_folder(rng, path, reader.files)}"
    if kind < 0.4 or path.suffix in (".npy", ".png"):
        new, change = fuzz.change_bytes(rng, data)
    elif path.suffix == ".ipynb":
        new, change = fuzz.change_json(rng, data.decode("utf-8"), "notebook")
    elif path.suffix == ".jsonl":
        lines = data.decode("utf-8").split("\n")
        i = int(rng.integers(len(lines) - 1))
        lines[i], change = fuzz.change_json(rng, lines[i], "row")
        new = "\n".join(lines)
    else:
        new, change = change_table(rng, data), "a line changed"
    fuzz.put(path, new.encode("utf-8", "surrogatepass") if isinstance(new, str) else new)
    return f"{path.name}: {change}"


# ------------------------------------------------------------------ carrying them out


class Task(NamedTuple):
    """One world with its worker, which do every WORKERS-th case."""

    worker: Worker
    world: Path


def faults_of(tasks, number, case):
    """Carry out the cases 0 to number - 1, each by `case(task, number)`, which returns a fault or None; list those."""

    def share(first):
        found = [case(tasks[first], i) for i in range(first, number, len(tasks))]
        return [fault for fault in found if fault]

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [fault for found in pool.map(share, range(len(tasks))) for fault in found]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    made = [Task(Worker(), make_world(tmp_path_factory.mktemp("world"))) for _ in range(WORKERS)]
    yield made
    for task in made:
        task.worker.end()


@pytest.mark.stress
def test_bad_words(tasks):
    for task in tasks:
        make_traps(task.world)
    commands = [list(bad_commands(task.world)) for task in tasks]
    assert len(commands[0]) >= 700

    def case(task, i):
        words, before = commands[tasks.index(task)][i], contents(task.world)
        wrong = fault(task.worker.ask(words), False, before, contents(task.world))
        if contents(task.world) != before:
            shutil.rmtree(task.world / "made")
            (task.world / "made").mkdir()
        return wrong and f"{' '.join(words)[:400]!a}: {wrong[:1500]}"

    found = faults_of(tasks, len(commands[0]), case)
    assert not found, f"{len(found)} faults:\n" + "\n".join(found[:100])


def damaged_cases(tasks, seed, number):
    """The faults of commands that read damaged files, and a Counter of (command, exit code)."""
    commands, codes = list(READING), Counter()
    shelves = {}  # by task and command: the files that it reads
    for k, task in enumerate(tasks):
        for command, patterns in READING.items():
            paths = [
                path for pattern in patterns.split() for path in sorted(task.world.glob(pattern)) if path.is_file()
            ]
            shelves[k, command] = fuzz.Reader(None, task.world, {path: path.read_bytes() for path in paths})

    def case(task, i):
        command, rng = commands[i % len(commands)], np.random.default_rng((seed, i))
        reader = shelves[tasks.index(task), command]
        change = damage(rng, reader)
        if i // len(commands) % 2:  # an earlier result is there, which has to stay if there is no new one
            (task.world / "made" / "x").mkdir()
            (task.world / "made" / "x" / "earlier").write_text("earlier")
        before = contents(task.world / "made")
        answer = task.worker.ask(command.format(w=task.world).split())
        codes[command, answer.code] += 1
        wrong = fault(answer, True, before, contents(task.world / "made"))
        wrong = wrong or (answer.code == 0 and not_finite(task.world / "made"))
        shutil.rmtree(task.world / "made")
        (task.world / "made").mkdir()
        fuzz.repair(reader)
        return wrong and f"seed {seed}, case {i}: {command.replace('{w}/', '')}: {change}: {str(wrong)[:1500]!a}"

    return faults_of(tasks, number, case), codes


@pytest.mark.stress
def test_damaged_files(tasks):
    found, codes = damaged_cases(tasks, seed=1, number=5000)
    assert not found, f"{len(found)} faults:\n" + "\n".join(found[:100])
    never = [(command, code) for command in READING for code in (0, 2) if not codes[command, code]]
    checkers = ("reference", "classroom grade", "classroom execute")
    assert [pair for pair in never if not pair[0].startswith(checkers)] == []


# ------------------------------------------------------------------ the checker can fail

GOOD = Answer(2, "", "warning: old\nerror: no such file\n")
FAULTS = {
    "hangs": (Answer(None, "", "hangs for 30 s"), {}),
    "Traceback": (Answer(1, "", "Traceback (most recent call last):\nKeyError: 1\n"), {}),
    "exit code 2": (Answer(2, "", "error: one\nand another\n"), {}),
    "exit code 1": (Answer(1, "", "error: no such file\n"), {}),
    "exit code -6": (Answer(-6, "", "thread '<unnamed>' panicked at src/lib.rs\n"), {}),
    "half-written": (GOOD, {"made/x": 1}),
    "not finite": (Answer(0, "pos\tnan\ta film\n", ""), {}),
    "succeeds, and says": (Answer(0, "pos\t0.5\n", "panicked\n"), {}),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_planted_fault_is_seen(said):
    answer, after = FAULTS[said]
    assert said in fault(answer, True, {}, after)
    assert fault(GOOD, False, {}, {}) is None and fault(Answer(1, "not graded\n", ""), False, {}, {}) is None
    assert fault(Answer(0, "nan\t0.9\tnan\n", ""), True, {}, {"made/x": 1}) is None
    assert fault(Answer(0, "", ""), False, {}, {}) == "succeeds"


@pytest.mark.slow
def test_a_worker_that_hangs_or_dies_is_replaced():
    worker = Worker()
    try:
        assert worker.ask(["inspect", "none"]).err.startswith("error: none: no such folder")
        hung = worker.ask(["gradcheck"], seconds=0.2)
        assert hung.code is None and hung.err == "hangs for 0.2 s"
        assert worker.ask(["inspect", "none"]).code == 2
        worker.process.kill()
        assert worker.ask(["inspect", "none"]).code is None
        assert worker.ask(["inspect", "none"]).code == 2
    finally:
        worker.end()
