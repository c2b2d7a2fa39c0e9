"""Commands as a hostile user would call them: bad words, and damaged files of every kind that a command reads.

`fault` is what must hold of the way a command ends. Damaged files are read in a process of its own:

    python -m tests.test_hostile FOLDER SEED CASES FIRST COMMANDS
"""

import os
import re
import shutil
import sys
import tempfile
from typing import NamedTuple

import numpy as np
import pytest

from lora_np.checked import shown
from lora_np.cli import main
from lora_np.formats import read_tensors

from . import test_fuzz_formats as fuzz
from .world import contents, make_traps, make_world

SECONDS = 30  # for one command


class Answer(NamedTuple):
    """What came of a command: its exit code, and all that came out of the process."""

    code: int
    out: str
    err: str


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
    if "Traceback" in err + out:
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


# ------------------------------------------------------------------ bad words

WHOLE = ["0", "-1", "1.5", "x", "1e3", "nan", "0x10", "9" * 20, "9" * 5000, ""]
SEED = WHOLE[1:]
REAL = ["nan", "inf", "1e999", "x", "1,5", ""]
POSITIVE = [*REAL, "0", "1e-320"]
NAME = ["nope", "", " ", "x" * 5000, "\x1b[2J", "a\0b", os.fsdecode(b"caf\xe9")]
NO_PATH = ["", " ", "x" * 5000, "x/" * 3000, "a\0b", os.fsdecode(b"caf\xe9"), "{w}/loop"]
READ = [*NO_PATH, "{w}/none", "{w}/nowhere", "{w}/pipe", "/dev/zero", "/dev/null", "{w}/empty", "{w}/data/corpus.txt/x"]
DATA = [*READ, "{w}/blank.csv", "{w}/data"]
# No device is among the places to write to: a broken check would replace it. A pipe stands for one.
TO_FOLDER = [*NO_PATH, "{w}/nowhere", "{w}/pipe", "{w}/data/corpus.txt", "{w}/data/corpus.txt/x"]
TO_FILE = [*NO_PATH, "{w}/nowhere", "{w}/pipe", "{w}/data", "{w}/data/corpus.txt/x"]
BAD = {  # by option, or by the place of a word in capitals
    **dict.fromkeys(("--epochs", "--batch-size", "--tokens", "--top-k", "--jobs", "--seeds", "--reviews"), WHOLE),
    **dict.fromkeys(("--rounds", "--threads", "--texts", "--max-tokens"), WHOLE),
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
    **dict.fromkeys(("--dtype", "--work", "--peers", "--methods", "NAME", "--labels"), NAME),
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
NAMES = {"--lr": "learning_rate", "--lora-dropout": "dropout", "--rank": "r: got"}  # in messages
COMMANDS = """
finetune --data {w}/data/rows.csv --text t --label l --base {w}/base --out {w}/made/x --test {w}/data/rows.tsv
finetune --data {w}/none.csv --text=t --label=l --base {w}/base --out {w}/made/x --epochs 1 --rank 2 --alpha 4
    --lr 0.01 --batch-size 8 --seed 1 --dropout 0.1 --lora-dropout 0.1 --targets q_proj --variant dora --method lora
finetune --text-file {w}/data/corpus.txt --base {w}/base --out {w}/made/x --epochs 1 --rank 2 --targets q_proj
finetune --text-file {w}/none.txt --base {w}/base --out {w}/made/x --epochs 1 --rank 2 --alpha 4 --lr 0.01
    --batch-size 8 --seed 1 --dropout 0.1 --lora-dropout 0.1 --targets q_proj --variant dora --method lora
predict --model {w}/classes --base {w}/base --data {w}/data/rows.jsonl --text t
predict --model {w}/classes --data {w}/data/rows.jsonl --out {w}/made/x.csv
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
doctor READ={w}/one --base {w}/base --prompt x --json {w}/made/x.json
explore READ={w}/one --base {w}/base --text-file {w}/data/corpus.txt --texts 5 --out {w}/made/x.html
run --quick --seeds 1 --jobs 1 --out {w}/made/x --json {w}/made/x.json --store {w}/made/y
experiment NAME=main_job --seeds 1 --jobs 1 --out {w}/made/x --store {w}/made/y
tune --methods lora --jobs 1 --out {w}/made/x.json --store {w}/made/y
pretrain --out {w}/made/x --epochs 1 --seed 0 --threads 1 --reviews 1
gradcheck --json {w}/made/x.json
bench --peers blocks --rungs 64 --work forward --threads 1 --rounds 1 --seed 0 --json {w}/made/x.json
reference export TO={w}/made/x
reference list --vectors {w}/vectors
reference check READ={w}/port --vectors {w}/vectors --case linear --tier 1 --dtype float64 --json {w}/made/x.json
classroom release TO={w}/made/x
classroom grade READ={w}/exercises/07_lora_layer.ipynb --json {w}/made/x.json --jobs 1
classroom grade {w}/exercises/07_lora_layer.ipynb --out {w}/made/x --words {w}/exercises/words.csv
    --moodle {w}/exercises/moodle.csv --canvas {w}/exercises/canvas.csv --json {w}/made/x.json
classroom collect TO={w}/made/x READ={w}/exercises/07_lora_layer.ipynb
classroom execute READ={w}/data/corpus.txt --jobs 1
"""
COMMANDS = COMMANDS.strip().replace("\n   ", "").splitlines()
QUICK = ("finetune --text-file {w}/none", "predict --model {w}/classes --base", "import", "generate", "mix", "doctor")


def bad_commands(command, world):
    """Commands that are right except for one word, as lists of words, each with one of the texts that it must say."""
    words = command.split()
    plain = [re.sub("^[A-Z]+=", "", word).format(w=world) for word in words]
    for place, word in enumerate(words):
        kind = words[place - 1] if words[place - 1].startswith("--") else word.partition("=")[0]
        if kind.startswith("--") and "--" in word:
            continue
        names = [kind.strip("-"), NAMES.get(kind, kind.strip("-").replace("-", "_"))]
        for bad in BAD.get(kind, ()):
            bad = bad.replace("{w}", str(world))
            says = [*names, "got ''", *[shown(bad, 40).rstrip("…")] * (len(bad.strip()) > 2)]
            yield [*plain[:place], *bad.split(" "), *plain[place + 1 :]], says
        if kind.startswith("--"):
            if kind not in REPEATED:
                yield [*plain, *plain[place - 1 : place + 1]], [f"{kind}: is given twice"]
            if kind != "--peers":  # which may be none
                yield plain[:place] + plain[place + 1 :], ["expected"]
    yield [*plain, "--no-such-option"], ["unrecognized arguments: --no-such-option"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"))
    make_traps(world)
    return world


@pytest.mark.parametrize(
    "command", [pytest.param(c, id=c[:40], marks=[] if c.startswith(QUICK) else pytest.mark.slow) for c in COMMANDS]
)
def test_bad_words(command, world, tmp_path, capfd, monkeypatch):
    """One line that names the argument or what came, soon, without reading a pipe, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    before, faults = contents(world), []
    for words, says in bad_commands(command, world):
        shutil.rmtree(world / "made")  # a checker writes what is wrong
        (world / "made").mkdir()
        with fuzz.little_memory(), fuzz.watchdog(SECONDS):
            code = main(words)
        out, err = capfd.readouterr()
        wrong = fault(Answer(code, out, err), False, before, contents(world))
        if not (wrong or any(text in out + err for text in says)):
            wrong = f"says {err!r} instead of {says}"
        if wrong:
            faults.append(f"{' '.join(words)[:400]!a}: {wrong[:1500]}")
    assert not faults and not list(tmp_path.iterdir()), "\n".join(faults)


# ------------------------------------------------------------------ several bad words at once

LETTERS = ["a", "Z", "9", ".", "-", "/", " ", "=", "'", "é", "e\u0301", "\u200b", "\u202e", "日", "\x07", "\n", "🙂"]


def bad_word(kind, rng):
    """A bad word for an option or a place: one of BAD, or a random one, which is no number, path or name."""
    bad = BAD[kind]
    if rng.random() < 0.5:
        return str(rng.choice(np.array(bad, dtype=object)))
    word = "q" + "".join(rng.choice(LETTERS, rng.integers(1, 12)))
    if bad in (TO_FOLDER, TO_FILE):
        return "{w}/data/corpus.txt/" + word.replace("/", "")
    return ("{w}/none/" if bad in (READ, DATA) else "") + word


def random_bad_command(world, rng):
    """A command with one to three bad words, and its options in a random order."""
    words = str(rng.choice([command for command in COMMANDS if not command.startswith("classroom")])).split()
    groups = []  # an option with its values, or a word that belongs to no option
    for word in words:
        if word.startswith("--") or not groups or not groups[-1][0].startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    kinds = {i: g[0] if g[0].startswith("--") else g[0].partition("=")[0] for i, g in enumerate(groups)}
    places = [i for i, kind in kinds.items() if kind in BAD]
    for i in rng.permutation(places)[: rng.integers(1, 4)]:
        bad = bad_word(kinds[i], rng).replace("{w}", str(world))
        groups[i] = [*groups[i][: groups[i][0].startswith("--")], bad]
    options = [g for g in groups if g[0].startswith("--")]
    plain = [g for g in groups if not g[0].startswith("--")]
    mixed = plain + [options[i] for i in rng.permutation(len(options))]
    return [re.sub("^[A-Z]+=", "", word).format(w=world) if "{w}" in word else word for g in mixed for word in g]


NIGHTLY = int(os.environ.get("LORA_NP_SEED", 1))


@pytest.mark.parametrize("seed, cases", [(0, 60), pytest.param(NIGHTLY, 2000, marks=pytest.mark.stress)])
def test_random_bad_commands(seed, cases, world, tmp_path, capfd, monkeypatch):
    """No traceback, no hang, one line that says what is wrong, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    faults, before = [], contents(world)
    for case in range(cases):
        words = random_bad_command(world, np.random.default_rng((seed, case)))
        with fuzz.little_memory(), fuzz.watchdog(SECONDS):
            code = main(words)
        wrong = fault(Answer(code, *capfd.readouterr()), False, before, contents(world))
        if wrong:
            faults.append(f"seed {seed}, case {case}: {' '.join(words)[:400]!a}: {wrong[:1500]}")
            before = contents(world)
    assert not faults and not list(tmp_path.iterdir()), "\n".join(faults)


# ------------------------------------------------------------------ damaged files

TABLE = "finetune --base {w}/base --epochs 1 --out {w}/made/x --text t --label l --data"
TABLES = ("data/rows.csv", "data/rows.tsv", "data/rows.jsonl")
READING = {  # command -> patterns of the files that it reads
    "predict --model {w}/classes the fox": "classes/* base/*",
    **{f"predict --model {{w}}/classes --data {{w}}/{name} --text t": name for name in TABLES},
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
    **{f"import {{w}}/{name} --from hf --out {{w}}/made/x": f"{name}/*" for name in ("hf", "classes_hf")},
    "import {w}/peft --from peft --base {w}/base --out {w}/made/x": "peft/* base/*",
    **{f"inspect {{w}}/{name} --json {{w}}/made/x.json": f"{name}/*" for name in ("one", "peft", "hf")},
    f"{TABLE} {{w}}/data/rows.csv": "data/rows.csv base/*",
    **{f"{TABLE} {{w}}/{name}": name for name in TABLES[1:]},
    "finetune --text-file {w}/data/corpus.txt --base {w}/base --epochs 1 --out {w}/made/x": "data/corpus.txt base/*",
    "predict --model {w}/encoded the fox": "encoded/* encoder/* encoder/*/*",
    f"{TABLE.replace('/base', '/encoder')} {{w}}/data/rows.csv": "encoder/* encoder/*/*",
    "export {w}/encoded --to merged --out {w}/made/x": "encoded/* encoder/*",
    "import {w}/encoder --from hf --out {w}/made/x": "encoder/* encoder/*/*",
    "reference check {w}/port --vectors {w}/vectors --json {w}/made/x.json": "port/* port/*/* vectors/*64.* vectors/m*",
    "reference list --vectors {w}/vectors": "vectors/manifest.json",
    "classroom collect {w}/made/course {w}/exercises/07_lora_layer.ipynb": "exercises/*.ipynb",
}


def make_commands(root):
    """Commands by name, as readers of one world; those that write do so beside nothing, and over an earlier result."""
    world = make_world(root / "world")
    old = shutil.copytree(world / "two", root / "old")  # a copy that stays undamaged
    captured = [tempfile.TemporaryFile() for _ in range(2)]
    for descriptor, file in enumerate(captured, start=1):  # not sys.stdout alone: libraries write by themselves
        os.dup2(file.fileno(), descriptor)
    readers = {}
    for command, patterns in READING.items():
        paths = [path for pattern in patterns.split() for path in sorted(world.glob(pattern)) if path.is_file()]
        files = {path: path.read_bytes() for path in paths}
        for earlier in (False, True) if command.endswith("made/x") else (False,):
            read = command_reader(command.format(w=world).split(), earlier, old, captured)
            readers[command + ", again" * earlier] = fuzz.Reader(read, world, files)
    return readers


def command_reader(words, earlier, old, captured):
    """A reader that carries out a command; it raises ValueError for a refusal, and AssertionError for a fault.

    `earlier` says whether the folder to write already has a copy of `old`.
    """

    def read(world):
        made = world / "made"
        shutil.rmtree(made)
        (made / "course").mkdir(parents=True)
        if earlier:  # which must stay if there is no new one
            shutil.copytree(old, made / "x")
        before = contents(made)
        code = main(words)
        said = [said_through(*pair) for pair in zip((sys.stdout, sys.stderr), captured)]
        wrong = fault(Answer(code, *said), True, before, contents(made)) or (code == 0 and not_finite(made))
        assert not wrong, wrong
        if code:
            raise ValueError(f"{world}: refused")

    return read


def said_through(stream, file):
    """What came through a stream into a file, which is empty then."""
    stream.flush()
    file.seek(0)
    text = file.read().decode("utf-8", "replace")
    file.truncate(0)
    file.seek(0)
    return text


@pytest.mark.stress
def test_damaged_files(tmp_path):
    fuzz.fuzz_in_a_process("tests.test_hostile", tmp_path / "fuzz", 1, 2500)


# ------------------------------------------------------------------ the checker can fail

GOOD = Answer(2, "", "warning: old\nerror: no such file\n")
FAULTS = {
    "Traceback": (Answer(1, "", "Traceback (most recent call last):\nKeyError: 1\n"), {}),
    "exit code 2": (Answer(2, "", "error: one\nand another\n"), {}),
    "exit code 1": (Answer(1, "", "error: no such file\n"), {}),
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


if __name__ == "__main__":
    fuzz.main(*sys.argv[1:], make=make_commands, seconds=SECONDS)
