"""lora_np.formats, fuzzed: whatever is in a file, a reader loads it or refuses it by name, and stays small and quick.

A case is a valid folder with one file of it damaged (some damages take two). Two numbers, the seed and the case's own,
decide on everything, so that a failure can be repeated alone:

    python -m tests.test_fuzz_formats FOLDER SEED CASES FIRST

(`task.json` holds the path of its base: there a flipped bit is the same one in a FOLDER with a path of that length.)
"""

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lora_np.data.tokenizer import END_OF_TEXT, PAD, normalizer
from lora_np.formats import (
    Task,
    load_adapter,
    load_gpt2,
    load_model,
    load_peft,
    load_task,
    read_json,
    read_tensors,
    save_adapter,
    save_gpt2,
    save_model,
    save_peft,
    save_task,
    write_json,
    write_tensors,
)
from lora_np.tasks.inspection import format_inspection, inspect_file

from .tiny import random_adapter, random_params, tiny_config

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 10  # a reader that takes longer hangs
MEMORY = 2**30  # bytes that a reader may take beyond what is there before it


# ------------------------------------------------------------------ valid folders, and their readers


class Reader(NamedTuple):
    """A reader, a folder that it can read, and the bytes of that folder's files."""

    read: Callable  # folder -> dict of the arrays that must be finite, of float32
    folder: Path
    files: dict[Path, bytes]


def tiny_params(**changes):
    """Random parameters of a tiny model in float32."""
    return random_params(tiny_config(**changes), np.float32)


def tiny_tokenizer():
    """A tokenizer of 13 tokens."""
    from tokenizers import Tokenizer, models

    tokens = [END_OF_TEXT, PAD, *"abcdefghi", "ab", "abc"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("a", "b"), ("ab", "c")]))
    tokenizer.normalizer = normalizer()
    tokenizer.add_special_tokens([END_OF_TEXT, PAD])
    return tokenizer


PATTERNS = {"rank_pattern": {"blocks.0.mlp.*": 2}, "alpha_pattern": {"v_proj": 3.0}}


def make_arrays(folder):
    """A file of many dtypes and shapes."""
    arrays = {f"of {dtype}": np.ones((2, 3), dtype) for dtype in ("f8", "f4", "f2", "i8", "i4", "u1", "?")}
    arrays |= {"empty": np.zeros((0, 3), np.float32), "number": np.array(1.5), "long": np.zeros(300, np.float16)}
    write_tensors(folder / "t.safetensors", arrays, {"format": "pt", "note": "ümläut"})
    body = unpack((folder / "t.safetensors").read_bytes())
    (folder / "t.safetensors").write_bytes(pack([*body, Entry("of BF16", "BF16", [2, 3], bytes(range(12)))]))


def make_json(folder):
    """A JSON file of every type."""
    write_json(folder / "v.json", {"ä": [1, -2.5e-7, None, True], "nested": {"α": [[1], []]}, "text": "[\n1]"})


def make_model(folder, dtype=None, **changes):
    """A model of ours."""
    config = tiny_config(**changes)
    save_model(folder, random_params(config, np.float32), config, dtype)


def make_gpt2(folder, **changes):
    """A GPT-2 in float32; a classifier has labels."""
    config = tiny_config(**changes)
    labels = [f"class {k}" for k in range(config.n_classes)] or None
    save_gpt2(folder, random_params(config, np.float32), config, None, labels)


def make_gpt2_bfloat16(folder):
    """A GPT-2 in bfloat16, as the bare model is saved: names without a prefix, no n_inner, old mask buffers."""
    make_gpt2(folder, d_ff=48)
    path = folder / "model.safetensors"
    halves = [upper_halves(entry)._replace(name=entry.name.removeprefix("transformer.")) for entry in read(path)]
    path.write_bytes(pack([*halves, Entry("h.0.attn.bias", "BOOL", [1, 1, 2, 2], bytes(4))]))
    fields = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {**fields, "n_inner": None})


def make_gpt2_shards(folder):
    """A GPT-2 in two files and an index, one of float16 and one of float32."""
    make_gpt2(folder)
    entries = read(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {"a.safetensors": [float16(entry) for entry in entries[:9]], "b.safetensors": entries[9:]}
    for name, part in shards.items():
        (folder / name).write_bytes(pack(part))
    places = {entry.name: name for name, part in shards.items() for entry in part}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": places})


def make_peft(folder, n_classes=0, **settings):
    """An adapter of PEFT's, with a head if there are classes."""
    config = tiny_config(n_classes=n_classes)
    params = random_params(config, np.float32)
    save_peft(folder, random_adapter(params, **settings), params, config, "a/base")


def make_adapter(folder, dtype=None, **settings):
    """An adapter of ours, with the head of a classifier."""
    save_adapter(folder, random_adapter(tiny_params(n_classes=4), **settings), dtype)


def make_task(folder):
    """A task that is an adapter, in `task`, on a language model in `base`."""
    params, config = tiny_params(), tiny_config(n_classes=2)
    save_model(folder / "base", params, tiny_config())
    tiny_tokenizer().save(str(folder / "base" / "tokenizer.json"))
    adapter = random_adapter({**params, "head.weight": np.zeros((2, 12), np.float32)}, targets=("q_proj",))
    task = Task(params, config, adapter, tiny_tokenizer(), ["no", "yes"])
    save_task(folder / "task", task, folder / "base", {"method": "lora", "seed": 0})


def make_whole_task(folder):
    """A task that is a whole model."""
    config = tiny_config(n_classes=2)
    task = Task(random_params(config, np.float32), config, None, tiny_tokenizer(), ["no", "yes"])
    save_task(folder, task, None, {"method": "full"})


def nothing(read):
    """A reader whose result is not looked at."""
    return lambda path: dict.fromkeys([], read(path))


def reader_of_peft(n_classes):
    """`load_peft` onto a base with so many classes."""
    params = tiny_params(n_classes=n_classes)
    return lambda folder: load_peft(folder, params).weights


def make_readers(root):
    """Every reader by name, each with a folder of its own in `root`."""
    base = tiny_params(n_classes=4)
    inspect = nothing(lambda path: format_inspection(inspect_file(path)))
    gpt2, task = (lambda folder: load_gpt2(folder).params), (lambda folder: arrays_of(load_task(folder)))
    adapter, model = (lambda folder: load_adapter(folder, base).weights), (lambda folder: load_model(folder)[0])
    table = {
        "read_tensors": (nothing(lambda folder: read_tensors(folder / "t.safetensors")), make_arrays),
        "read_json": (nothing(lambda folder: read_json(folder / "v.json")), make_json),
        "load_model": (model, make_model),
        "load_model, a classifier of float16": (model, lambda folder: make_model(folder, "float16", n_classes=4)),
        "load_adapter": (adapter, lambda folder: make_adapter(folder, targets=("q_proj", "blocks.1.*"))),
        "load_adapter, patterns": (adapter, lambda folder: make_adapter(folder, "float16", rslora=True, **PATTERNS)),
        "load_adapter, DoRA": (adapter, lambda folder: make_adapter(folder, kind="dora", norm_gradient=True)),
        "load_adapter, VeRA": (adapter, lambda folder: make_adapter(folder, kind="vera", projection_seed=3)),
        "load_adapter, AdaLoRA": (adapter, lambda folder: make_adapter(folder, kind="adalora", **PATTERNS)),
        "load_gpt2": (gpt2, lambda folder: make_gpt2(folder, n_classes=4)),
        "load_gpt2, bfloat16": (gpt2, make_gpt2_bfloat16),
        "load_gpt2, shards": (gpt2, make_gpt2_shards),
        "load_peft": (reader_of_peft(0), lambda folder: make_peft(folder, targets=("q_proj", "k_proj", "v_proj"))),
        "load_peft, patterns": (reader_of_peft(0), lambda folder: make_peft(folder, rslora=True, **PATTERNS)),
        "load_peft, head": (reader_of_peft(4), lambda folder: make_peft(folder, 4, targets=("o_proj",))),
        "load_peft, DoRA": (
            reader_of_peft(0),
            lambda folder: make_peft(folder, kind="dora", targets=("q_proj", "v_proj")),
        ),
        "load_task, adapter": (lambda folder: arrays_of(load_task(folder / "task")), make_task),
        "load_task, whole": (task, make_whole_task),
        "inspect_file, ours": (inspect, lambda folder: make_adapter(folder, **PATTERNS)),
        "inspect_file, AdaLoRA": (inspect, lambda folder: make_adapter(folder, kind="adalora")),
        "inspect_file, DoRA": (inspect, lambda folder: make_peft(folder, kind="dora", **PATTERNS)),
        "inspect_file, PEFT's": (inspect, lambda folder: make_peft(folder, **PATTERNS)),
        "inspect_file, shards": (inspect, make_gpt2_shards),
        "inspect_file, any": (inspect, make_arrays),
    }
    readers = {}
    for i, (name, (function, make)) in enumerate(table.items()):
        folder = root / f"{i:02d}"
        folder.mkdir(parents=True)
        make(folder)
        files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        readers[name] = Reader(function, folder, files)
    return readers


def arrays_of(task):
    """The arrays of a task, base and adapter."""
    adapter = task.adapter.weights if task.adapter else {}
    return {**{f"base {name}": array for name, array in task.params.items()}, **adapter}


# ------------------------------------------------------------------ safetensors by hand


class Entry(NamedTuple):
    """A tensor as it lies in a file."""

    name: str
    dtype: str
    shape: list
    body: bytes


BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U8": 1, "BOOL": 1}
BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "C64": 8}
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def split(data):
    """The header of a file, as text, and its data."""
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size].decode("utf-8"), data[8 + size :]


def unpack(data):
    """The tensors of a file."""
    header, body = split(data)
    fields = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    return [Entry(name, e["dtype"], e["shape"], body[slice(*e["data_offsets"])]) for name, e in fields.items()]


def read(path):
    """The tensors of a file on the disk."""
    return unpack(path.read_bytes())


def with_header(header, body):
    """A file with this header, a text."""
    text = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def pack(entries):
    """A file of these tensors, one behind the other; two of them may have the same name."""
    fields, end = [], 0
    for name, dtype, shape, body in entries:
        start, end = end, end + len(body)
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        fields.append(f"{json.dumps(name)}:{json.dumps(entry)}")
    return with_header("{" + ",".join(fields) + "}", b"".join(entry.body for entry in entries))


def upper_halves(entry):
    """A tensor of float32 as bfloat16."""
    bits = np.frombuffer(entry.body, "<u4") >> 16
    return entry._replace(dtype="BF16", body=bits.astype("<u2").tobytes())


def float16(entry):
    """A tensor of float32 as float16."""
    return entry._replace(dtype="F16", body=np.frombuffer(entry.body, "<f4").astype("<f2").tobytes())


# ------------------------------------------------------------------ hostile values


def nested(rng):
    """A value that is nested: hardly, about as deep as Python's stack, or far deeper."""
    depth = int(rng.choice([3, 60, rng.integers(200, 1100), rng.integers(800, 1000), 5_000, 100_000]))
    opening, closing = pick(rng, [("[", "]"), ('{"a":', "}"), ('[{"b":', "}]")])
    return opening * depth + "1" + closing * depth


NUMBERS = """0 -0 1 -1 2 3 4 7 8 12 13 24 1.0 2.5 3.0 -0.0 -3 1e-320 1e30 1e31 1e308 1e999 -1e999 NaN Infinity
-Infinity 255 65536 1000000 12000000 1000000000 2147483648 9007199254740993 9223372036854775807 9223372036854775808
18446744073709551615 18446744073709551616 4611686018427387904 1e400 00 +1 .5 1e 0x10""".split()
NUMBERS += ["9" * 310, "12" + "0" * 400, "9" * 4300, "9" * 4301, "9" * 100_000, "-" + "9" * 400, "0." + "0" * 400 + "1"]
TEXTS = ["", "12", "nan", "true", "all-linear", "q_proj", "*", "[", "\0", "\ud800", "é", "a\nb", "x" * 100_000]
TEXTS += ["lora", "LORA", "dora", "vera", "adalora", "pissa", "gaussian", "none", "gpt2", "../x", "/", "[!" * 50]
TEXTS += ["*a" * 30 + "*"]
OTHERS = ["null", "true", "false", "[]", "[[]]", "{}", '{"": null}', "[null]", '[1, "a"]', "[12, 12]", '["q_proj"]', ""]
OTHERS += ['["q_proj", null]', '[["q_proj"]]', '{"q_proj": 1}', '{"q_proj": 1e999}', '{"*": null}', '{"q_proj": "2"}']
OTHERS += ['{"q_proj": ' + "9" * 400 + "}", '{"q_proj": true}', '{"q_proj": [2]}', '{"[": 2}', '{"x": 1, "x": 2}']
OTHERS += [json.dumps([text]) for text in ("*", "?" * 40, "[", "[!]", "[z-a]", "*a" * 40 + "x", "blocks.*", "\0")]
OTHERS += ["[" + "1," * 10_000 + "1]", "\ufeff1", "'a'", "undefined"]

# Some take exponential time, or a power of the name's length; some are no patterns; some warn.
REGEXES = ["(a+)+$", ".*.*.*.*.*.*x", ".*.*.*.*x", "(.*)*x", "([a-z.0-9]+)*x", ".?" * 40 + "x", "(|)" * 40 + "x"]
REGEXES += ["(.|.)" * 40 + "x", "(?x:(.+) +)x", "(?:(?:.+))+x", "((.*)+)+x", r"(.*)\1\1\1x", "(?=(.+)+x)"]
REGEXES += ["a{99999999999999999999}", "a{4294967294}", "(?:.{1,9}){9}x", "(" * 300 + ")" * 300]
REGEXES += ["(" * 2000 + ")" * 2000, "[^x]+" * 4, "|" * 10_000, "x" * 10_000, "(?s:.*)(?s:.*)x", "\0", "\ud800", ""]
REGEXES += ["[", "(", ")", "*", "?", "\\", "(?P<a", "(?i)c_attn", "x(?i)", "[[a]", "[a--b]", r"\8", r"\N{x}", "|", "$"]
REGEXES += [("(" + "|" * 200 + ")") * 4 + "x", "h", "(h)", "h|x", "(h)|x", r"h\.0\.attn|.*\.0"]
REGEXES += [".*", "c_attn", ".*c_attn", "(?<=.*)x", "(?(1)a|b)", "(?(9)a|b)"]
REGEXES += ["(?a)(?u)x", "(?L)x", "(?#", "(?:|.|..|...)" * 30 + "x", "(.+)?" * 4 + "x", "(((.+)?)?)?x"]

# Where an index may say that a tensor is, or a task that its base is.
PLACES = ["../x", "../../etc/passwd", "/etc/passwd", "..", ".", "", "/", "a/b", "a\\b", "\0", "\ud800", "x" * 300]
PLACES += ["no.safetensors", "a.safetensors", "b.safetensors", "./a.safetensors"]
PLACES += ["config.json", "model.safetensors.index.json", "a.safetensors/", "a.safetensors\n", "A.safetensors", "C:\\x"]

# Fields that are unknown in one file, and read or refused in another.
FIELDS = """extra dropout r alpha n_inner n_classes n_layers d_model n_layer n_embd vocab_size n_positions targets kind
init rslora train_head rank_pattern alpha_pattern lora_alpha use_rslora use_dora lora_dropout bias peft_type base
rate_factors norm_gradient projection_seed
base_sha256 labels method id2label weight_map layer_norm_epsilon activation_function resid_pdrop pruned_heads padding
truncation model added_tokens normalizer pre_tokenizer post_processor decoder vocab merges __metadata__""".split()
TOKENIZER_FIELDS = {
    "padding": '{"strategy": {"Fixed": %s}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 1, '
    '"pad_type_id": 0, "pad_token": "a"}',
    "truncation": '{"direction": "Right", "max_length": %s, "strategy": "LongestFirst", "stride": 0}',
    "post_processor": '{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a", "type_id": 0}}], '
    '"pair": [], "special_tokens": {"a": {"id": "a", "ids": [%s], "tokens": ["a"]}}}',
    "normalizer": '{"type": "Replace", "pattern": {"Regex": "(a+)+(?=%s)"}, "content": ""}',
    "pre_tokenizer": '{"type": "Split", "pattern": {"Regex": "(?=x){%s}"}, "behavior": "Isolated", "invert": false}',
}
BPE_FIELDS = """continuing_subword_prefix end_of_word_suffix unk_token dropout fuse_unk byte_fallback ignore_merges
vocab merges type""".split()


def pick(rng, values):
    """One of several, whatever they are."""
    return values[int(rng.integers(len(values)))]


def hostile(rng):
    """The JSON text of a value that a field should not have; at times it is not even JSON."""
    kind = rng.random()
    if kind < 0.45:
        return pick(rng, NUMBERS)
    if kind < 0.6:
        return json.dumps(pick(rng, TEXTS))
    return pick(rng, OTHERS) if kind < 0.93 else nested(rng)


def size(rng):
    """The JSON text of a hostile size or offset."""
    return pick(rng, NUMBERS) if rng.random() < 0.6 else str(2 ** int(rng.integers(70)) + int(rng.integers(-1, 2)))


# ------------------------------------------------------------------ damages to any file: (rng, bytes) -> bytes


def cut_off(rng, data):
    """A short rest, any length, or all except the end."""
    lengths = (rng.integers(20), rng.integers(len(data) + 1), len(data) - rng.integers(1, 20))
    return data[: max(0, int(pick(rng, lengths)))]


def flipped(rng, data):
    """One bit anywhere; a few at the start, where the header of a file of tensors is; or many anywhere."""
    ways = [(len(data), 1), (len(data), 1), (pick(rng, [8, 100, 2000]), rng.integers(1, 4)), (len(data), 64)]
    last, count = pick(rng, ways)
    changed = bytearray(data)
    for place in rng.integers(min(last, len(data)), size=count):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def spliced(rng, data):
    """A piece is removed, repeated, or overwritten by zeros, spaces, ones, digits, random bytes or another piece."""
    start, other = (int(rng.integers(len(data) + 1)) for _ in range(2))
    piece = data[start : start + int(rng.integers(1, 200))]
    n = len(piece)
    new = [b"", piece * 2, rng.bytes(int(rng.integers(1, 50))) + piece]
    new += [pick(rng, [bytes(n), b" " * n, b"\xff" * n, b"9" * n, rng.bytes(n), data[other : other + n]])]
    return data[:start] + pick(rng, new) + data[start + n :]


def replaced(rng, data):
    """Something else altogether."""
    junk = [b"", b"\0" * 100, data * 2, b"\x80\x04\x8c\x05posix\x94.", b"PK\x03\x04", b"[" * 200_000]
    return pick(rng, [*junk, rng.bytes(int(rng.integers(1, 3000)))])


ANY = [cut_off] * 2 + [flipped] * 4 + [spliced] * 4 + [replaced]


# ------------------------------------------------------------------ damages to one tensor: (rng, Entry) -> Entry


def dtype_and_bytes(rng, entry):
    """Another dtype with as many bytes as it needs."""
    dtype = pick(rng, list(BYTES))
    n = int(np.prod(entry.shape)) * BYTES[dtype]
    return entry._replace(dtype=dtype, body=pick(rng, [bytes(n), b"\1" * n, rng.bytes(n)]))


def extreme_values(rng, entry):
    """Values at the edges of a dtype, or none at all."""
    dtype = pick(rng, list(NUMPY))
    value = pick(rng, [np.nan, np.inf, -np.inf, 0.0, 5e-324, 1e-30, 1e4, 6e4, 1e30, 3e38, 1e39, 1e300, 1.7e308])
    values = np.full(int(np.prod(entry.shape)), value if rng.random() < 0.5 else 1.0)
    values[: int(rng.integers(1, 4))] = value
    with np.errstate(over="ignore"):
        return entry._replace(dtype=dtype, body=values.astype(NUMPY[dtype]).tobytes())


def shape_of_nothing(rng, entry):
    """No number at all, however large the other axes; or a great many axes."""
    shapes = [[2**62, 0], [0, 2**63], [2**64 - 1, 0], [0], [0, 0], [2**31, 2**31, 0], [0, 12], [12, 0]]
    shapes += [[2**40, 2**40, 0], [0] + [1] * 40, [0] + [1] * 64, [0] * 1000]
    return entry._replace(shape=pick(rng, shapes), body=b"")


def another_shape(rng, entry):
    """As many numbers in another shape."""
    n = int(np.prod(entry.shape))
    shapes = [entry.shape[::-1], [n], [1, *entry.shape], [*entry.shape, 1], [n, 1], [1] * 40 + [n], [1] * 70 + [n]]
    return entry._replace(shape=pick(rng, shapes))


def fewer_rows(rng, entry):
    """No row, one, or some, with their bytes."""
    if not entry.shape or not entry.shape[0]:
        return entry
    rows = int(pick(rng, [0, 1, rng.integers(entry.shape[0])]))
    row = len(entry.body) // entry.shape[0]
    return entry._replace(shape=[rows, *entry.shape[1:]], body=entry.body[: rows * row])


def renamed(rng, entry):
    """A name that no tensor, or another one, has."""
    name, layer = entry.name, entry.name.rpartition(".")[0]
    names = ["", "x", "\0", "a\nb", "x" * 3000, "lm_head.weight", "score.weight", "head.weight", "h.0.attn.bias"]
    names += ["é" * 99, "transformer." + name, "base_model.model." + name, name.removeprefix("transformer.")]
    names += [f"{layer}.lora_A.weight", f"{layer}.lora_B.weight", "lora_A", "lora_B", ".lora_A.weight", "__metadata__"]
    names += [name.replace("0", "9" * 30), name.replace(".", ""), name.replace("0", "\u0660"), "classifier.weight"]
    names += [name + ".weight", "base_model.model." * 2 + name, "h.99999.attn.c_attn.lora_A.weight", "\ud800"]
    return entry._replace(name=pick(rng, names))


def one_tensor(rng, data, change):
    """Change one tensor of a file."""
    entries = unpack(data)
    i = int(rng.integers(len(entries)))
    return pack([*entries[:i], change(rng, entries[i]), *entries[i + 1 :]])


# ------------------------------------------------------------------ damages to files of tensors: (rng, bytes) -> bytes


def all_extreme(rng, data):
    """Large values throughout a file, of float64."""
    value = float(pick(rng, [1e20, 1e150, 1e300, 1e-200, 0.0]))
    bodies = (np.full(int(np.prod(entry.shape)), value, "<f8").tobytes() for entry in unpack(data))
    return pack([entry._replace(dtype="F64", body=body) for entry, body in zip(unpack(data), bodies)])


def header_field(rng, data):
    """A dtype, a size or a place in the file that cannot be."""
    header, body = split(data)
    entries = json.loads(header)
    entry = entries[pick(rng, [name for name in entries if name != "__metadata__"])]
    field = pick(rng, ["dtype", "shape", "data_offsets"])
    if field == "dtype":
        value = json.dumps(pick(rng, [*BYTES, "F7", "f32", "", "\0", "F32 "]))
    else:
        value = pick(rng, [size, hostile])(rng)
    if field != "dtype" and entry[field] and rng.random() < 0.67:
        entry[field][int(rng.integers(len(entry[field])))] = "@"
    else:
        entry[field] = "@"
    return with_header(json.dumps(entries).replace('"@"', value), body)


def header_length(rng, data):
    """Another length in front of the header."""
    lengths = [0, 1, 2, 2**20, 100_000_000, 100_000_001, 2**31, 2**32, 2**62, 2**63, 2**63 - 1, 2**64 - 1, len(data)]
    lengths += [len(data) - 8, len(data) - 7, int.from_bytes(data[:8], "little") + int(rng.integers(-3, 4))]
    return struct.pack("<Q", max(0, pick(rng, lengths))) + data[8:]


def another_header(rng, data):
    """A header that is no object of tensors, or has spaces and metadata."""
    header, body = split(data)
    metadata = pick(rng, [hostile(rng), json.dumps({"a": pick(rng, TEXTS)})])
    headers = [header + " " * 100, header[:-1] + ",}", f'{{"__metadata__": {metadata},{header[1:]}']
    return with_header(pick(rng, [*headers, hostile(rng), nested(rng)]), body)


def tensors_listed_wrong(rng, data):
    """Two names exchanged, another order, tensors missing, or one tensor twice under two names or one."""
    entries = unpack(data)
    n, order = len(entries), rng.permutation(len(entries))
    i, j = rng.integers(n, size=2)
    exchanged, again = list(entries), pick(rng, [entries[i], entries[i]._replace(name=entries[j].name)])
    exchanged[i], exchanged[j] = entries[i]._replace(name=entries[j].name), entries[j]._replace(name=entries[i].name)
    some = sorted(order[: int(pick(rng, [0, 1, n - 1, rng.integers(n)]))])
    twice = [*entries, pick(rng, [again, renamed(rng, entries[i])])]
    return pack(pick(rng, [exchanged, [entries[k] for k in order], [entries[k] for k in some], twice]))


# ------------------------------------------------------------------ damages to JSON: (rng, value) -> {mark: JSON text}
#
# Each changes a value in place; a mark that it leaves there becomes the JSON text that it returns for the mark.


def change_json(rng, data, change):
    """Change a JSON file by one of these."""
    value = json.loads(data)
    texts = change(rng, value) or {}
    text = json.dumps(value, indent=pick(rng, [None, 2]))
    for mark, new in texts.items():
        text = text.replace(json.dumps(mark), new)
    return text.encode("utf-8", "surrogatepass")


def places_of(value):
    """Every place in a JSON value, as (the object or list, the key or index)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from places_of(inner)


def place_in(rng, value):
    """A place, as likely one at the top as one of all."""
    tops = [(value, key) for key in value]
    return pick(rng, tops if rng.random() < 0.5 else list(places_of(value)))


def fields_changed(rng, value):
    """Hostile values in one field or a few."""
    texts = {f"@{i}": hostile(rng) for i in range(int(pick(rng, [1, 1, 1, 2, 3])))}
    for mark in texts:
        inner, key = place_in(rng, value)
        inner[key] = mark
    return texts


def numbers_scaled(rng, value):
    """Every number of the same value times a power of ten or of two: sizes that still divide one another."""
    numbers = [(v, k) for v, k in places_of(value) if isinstance(v[k], int) and not isinstance(v[k], bool)]
    chosen = numbers and pick(rng, [inner[key] for inner, key in numbers])
    factor = pick(rng, [2, 10**3, 10**5, 10**9, 2**31, 2**62, 10**40, 10**320, -1])
    meant = [(inner, key) for inner, key in numbers if inner[key] == chosen]
    for inner, key in meant if rng.random() < 0.5 else meant[:1]:
        inner[key] *= factor


def field_removed(rng, value):
    """A field, or an element of a list, less."""
    inner, key = place_in(rng, value)
    del inner[key]


def field_added(rng, value):
    """A field that is unknown there, or that was not set."""
    value[pick(rng, [*FIELDS, pick(rng, TEXTS)])] = "@"
    return {"@": hostile(rng)}


def key_changed(rng, value):
    """A key of an object renamed, perhaps to one that is there already; or repeated, perhaps with another value."""
    inner, key = place_in(rng, value)
    if not isinstance(inner, dict):
        return {}
    if rng.random() < 0.5:
        old = inner.pop(key)
        inner[pick(rng, [*TEXTS, *inner, key + " ", key.upper()])] = old
        return {}
    pair = f"{json.dumps(key)}: {json.dumps(inner[key])}"
    inner["@"] = "@@"
    return {"@": pair.rpartition(": ")[0] if rng.random() < 0.5 else pair.split(": ")[0], "@@": hostile(rng)}


def values_exchanged(rng, value):
    """The values of two fields exchanged."""
    (a, i), (b, j) = place_in(rng, value), place_in(rng, value)
    texts = {"@1": json.dumps(b[j]), "@2": json.dumps(a[i])}
    a[i], b[j] = texts
    return texts


def pattern_changed(rng, value):
    """A hostile regular expression, or several, wherever a configuration may have some."""
    patterns = [pick(rng, REGEXES) for _ in range(int(pick(rng, [1, 1, 2, 5])))]
    if rng.random() < 0.6:
        value[pick(rng, ["rank_pattern", "alpha_pattern"])] = dict.fromkeys(patterns, "@")
        return {"@": pick(rng, ["3", "6.0", hostile(rng)])}
    field = pick(rng, ["targets", "target_modules", "exclude_modules", "layers_pattern", "layers_pattern"])
    value[field] = pick(rng, [patterns, patterns[0]])
    value["layers_to_transform"] = "@"
    return {"@": pick(rng, ["0", "[0, 1]", hostile(rng)])}


def tokenizer_changed(rng, value):
    """Parts of a tokenizer that ours lack, with hostile sizes; or a setting of its byte-pair encoding."""
    if rng.random() < 0.4:
        value["model"][pick(rng, BPE_FIELDS)] = "@"
        return {"@": pick(rng, [hostile(rng), json.dumps(pick(rng, TEXTS))])}
    name = pick(rng, list(TOKENIZER_FIELDS))
    value[name] = "@"
    return {"@": TOKENIZER_FIELDS[name] % size(rng)}


def place_changed(rng, value):
    """An index that sends one tensor, or all, to another file."""
    places, other = value["weight_map"], pick(rng, PLACES)
    for name in list(places) if rng.random() < 0.3 else [pick(rng, list(places))]:
        places[name] = other


def base_changed(rng, value):
    """A task that names another base."""
    value["base"] = pick(rng, PLACES)


def whole_replaced(rng, data):
    """Another value, or the same in another encoding."""
    text = data.decode("utf-8")
    encodings = [text.encode("utf-16"), text.encode("utf-8-sig"), ("é" + text).encode("latin-1", "ignore")]
    return pick(rng, [hostile(rng).encode(), nested(rng).encode(), *encodings])


# ------------------------------------------------------------------ damages to folders: (rng, path, files) -> None


def put(path, data):
    """Write a file in place of whatever is there: a new one, as some file systems flush one that is cut to nothing."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def no_file(rng, path, files):
    """Nothing, a folder, or a named pipe, whose readers wait for a writer."""
    path.unlink()
    makers = [lambda path: None, Path.mkdir] + ([os.mkfifo] if os.name == "posix" else [])
    pick(rng, makers)(path)


def link_instead(rng, path, files):
    """A symbolic link: to nothing, to itself, out of the folder, or to another file of it."""
    path.rename(path.parent.parent / "out")
    target = pick(rng, ["nowhere", path.name, "../out", "/etc/passwd", "/dev/zero", *(file.name for file in files)])
    path.symlink_to(target)


def exchanged(rng, path, files):
    """Two files under each other's names."""
    other = pick(rng, list(files))
    put(path, files[other])
    put(other, files[path])


def involved_pattern(rng, path, files):
    """A hostile pattern, and layers with names so long that it takes its time."""
    layer = pick(rng, ["a", "h.0.", ".", "aaaa."]) * int(pick(rng, [15, 30, 90, 500])) + pick(rng, ["", "!"])
    for file, data in files.items():
        if file.suffix == ".json":
            put(file, change_json(rng, data, pattern_changed))
        else:
            pair = [Entry(f"{layer}.{factor}.weight", "F32", [1, 1], bytes(4)) for factor in ("lora_A", "lora_B")]
            put(file, pack([*pair, *unpack(data)]))


FOLDERS = [no_file] * 3 + [exchanged] * 2 + ([link_instead] if os.name == "posix" else [])

# Which damages a file may get, each as (how it is carried out, the change).
TENSORS = [(one_tensor, change) for change in (dtype_and_bytes, extreme_values, shape_of_nothing, another_shape)]
TENSORS += [(one_tensor, fewer_rows), (one_tensor, renamed)]
TENSORS += [(None, change) for change in (all_extreme, *[header_field] * 3, header_length, another_header)]
TENSORS += [(None, tensors_listed_wrong)] * 4
JSON = [(change_json, change) for change in (*[fields_changed] * 5, *[numbers_scaled] * 2, *[field_added] * 2)]
JSON += [(change_json, change) for change in (field_removed, *[key_changed] * 2, values_exchanged)]
JSON += [(None, whole_replaced)]
SPECIAL = {"adapter": pattern_changed, "adapter_config": pattern_changed, "tokenizer": tokenizer_changed}
SPECIAL |= {"task": base_changed, "model.safetensors.index": place_changed}  # for one kind of JSON file


def damage(rng, reader):
    """Damage one file of a reader's folder; say which one, and how."""
    path = pick(rng, list(reader.files))
    kind = rng.random()
    if kind < 0.06:
        change = involved_pattern if path.name.startswith("adapter_") and rng.random() < 0.4 else pick(rng, FOLDERS)
        change(rng, path, reader.files)
        return f"{path.name}: {change.__name__}"
    if kind < 0.4:
        how, change = None, pick(rng, ANY)
    elif path.suffix == ".json":
        how, change = pick(rng, JSON + [(change_json, SPECIAL[path.stem])] * 5 if path.stem in SPECIAL else JSON)
    else:
        how, change = pick(rng, TENSORS)
    data = reader.files[path]
    put(path, change(rng, data) if how is None else how(rng, data, change))
    return f"{path.name}: {change.__name__}"


def repair(reader):
    """Put back what a damage changed."""
    for path, data in reader.files.items():
        put(path, data)


# ------------------------------------------------------------------ what a reader makes of it


class Hang(BaseException):
    """A reader took too long; no `except Exception` holds it up."""


@contextlib.contextmanager
def watchdog(seconds):
    """Raise Hang in what takes longer, on systems with an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def bark(number, frame):
        raise Hang(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(read, folder, seconds=SECONDS):
    """How a reader takes a folder: "loaded", "refused", or a sentence on what is wrong."""
    try:
        with watchdog(seconds), warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy's and re's: what they warn of should be refused or expected
            warnings.simplefilter("ignore", UserWarning)  # the package's own
            arrays = read(folder)
    except KeyboardInterrupt:
        raise
    except (ValueError, OSError) as error:
        if str(folder) in str(error):
            return "refused"
        return f"names no file: {type(error).__name__}: {error}"
    except BaseException as error:  # a panic of a library in Rust is no Exception
        return f"raises {type(error).__name__}: {error}"
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            return f"loads {name} with values that are not finite numbers of float32"
    return "loaded"


def memory(field):
    """Bytes that this process has (VmSize) or had at most (VmHWM); None on systems that do not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


@contextlib.contextmanager
def little_memory():
    """Give what runs inside a limited amount of memory, on systems that can."""
    if memory("VmSize") is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = memory("VmSize") + MEMORY
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(root, seed, cases, first=0, journal=None):
    """Read `cases` damaged folders, the readers in turn.

    Parameters
    ----------
    root : an empty folder
    seed, first : int; a case is decided by the seed and its number, from `first` on
    journal : a file open for writing, or None; the last line is the case that was read last

    Returns
    -------
    counts : Counter of (reader, "loaded" | "refused" | "failed")
    failures : list of str
    """
    readers = make_readers(root)
    counts, failures, hung = Counter(), [], set()
    with little_memory():
        for name, reader in readers.items():
            result = outcome(reader.read, reader.folder)
            assert result == "loaded", f"{name}, undamaged: {result}"
        for number in range(first, first + cases):
            name = list(readers)[number % len(readers)]
            if name in hung:  # once is enough to wait for
                continue
            rng = np.random.default_rng((seed, number))
            done = f"seed {seed}, case {number}: {name}: {damage(rng, readers[name])}"
            if journal:
                print(done, file=journal, flush=True)
            result = outcome(readers[name].read, readers[name].folder)
            if result not in ("loaded", "refused"):
                failures.append(f"{done}: {ascii(result[:500])}")
            if result.startswith("raises Hang"):
                hung.add(name)
            counts[name, result if result in ("loaded", "refused") else "failed"] += 1
            repair(readers[name])
    return counts, failures


def assert_both_ends(counts):
    """Every reader met damage that it refuses and damage that does no harm."""
    names = {name for name, _ in counts}
    assert [name for name in names for end in ("loaded", "refused") if not counts[name, end]] == []


def main(root, seed, cases, first=0):
    """Fuzz in a process of its own, and print what came out as JSON."""
    os.fsync = lambda descriptor: None  # as conftest.py has it
    shutil.rmtree(root, ignore_errors=True)
    started = time.perf_counter()
    Path(root).mkdir(parents=True)
    with open(Path(root, "journal"), "w", encoding="utf-8") as journal:
        before = memory("VmHWM")
        counts, failures = fuzz(Path(root), int(seed), int(cases), int(first), journal)
    grown = memory("VmHWM") - before if before else 0
    table = [[*key, count] for key, count in sorted(counts.items())]
    print(json.dumps({"counts": table, "failures": failures, "grown": grown, "time": time.perf_counter() - started}))


# ------------------------------------------------------------------ the tests


def test_damaged_files_load_or_are_refused_by_name(tmp_path):
    counts, failures = fuzz(tmp_path / "fuzz", seed=4, cases=400)
    assert failures == [], "\n".join(failures[:20])
    assert_both_ends(counts)


@pytest.mark.stress
def test_twenty_thousand_damaged_files(tmp_path):
    """In a process of its own: whatever crashes it, or lets it grow, is seen from here."""
    folder = tmp_path / "fuzz"
    command = [sys.executable, "-m", "tests.test_fuzz_formats", str(folder), "1", "20000"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        if process.returncode == 0:
            result = json.loads(process.stdout.splitlines()[-1])  # LAPACK may have complained before
            assert result["failures"] == [], "\n".join(result["failures"][:20])
            assert result["grown"] < MEMORY
            counts = Counter({(name, end): count for name, end, count in result["counts"]})
            assert counts.total() == 20_000
            assert_both_ends(counts)
            return
        said = f"{process.stderr[:1000]}\n…\n{process.stderr[-1000:]}"
        pytest.fail(f"crashed (code {process.returncode}) at {last_case(folder)}:\n{said}")
    pytest.fail(f"hangs where no alarm is heard, at {last_case(folder)}")


def last_case(folder):
    """The case that a process read last."""
    journal = folder / "journal"
    return (journal.read_text("utf-8").splitlines() or ["none"])[-1] if journal.exists() else "none"


def fail_with(error):
    """A reader that raises."""

    def read(folder):
        raise error

    return read


def hang(folder):
    """A reader that does not end."""
    while True:
        pass


def grow(folder):
    """A reader that takes four times the memory that it may."""
    return {"a": np.ones(MEMORY, np.float32)}


PLANTED = {
    "an exception that is not allowed": (fail_with(KeyError("FOLDER")), "raises KeyError"),
    "too little stack": (fail_with(RecursionError("FOLDER")), "raises RecursionError"),
    "a panic": (fail_with(type("PanicException", (BaseException,), {})("FOLDER")), "raises PanicException"),
    "a message without the path": (fail_with(ValueError("not a JSON file")), "names no file: ValueError: not a JSON"),
    "no message": (fail_with(FileNotFoundError()), "names no file: FileNotFoundError"),
    "a warning that is not the package's": (lambda folder: {"a": np.float32([1]) / 0}, "raises RuntimeWarning"),
    "nan": (lambda folder: {"a": np.float32([np.nan])}, "loads a with values"),
    "a hang": (hang, "raises Hang"),
}


@pytest.mark.parametrize("read, message", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_fault_is_reported(tmp_path, read, message):
    if read is hang and not hasattr(signal, "setitimer"):
        pytest.skip("no alarm on this system")
    assert outcome(read, tmp_path, seconds=0.1).startswith(message)


@pytest.mark.skipif(memory("VmSize") is None, reason="no limit of memory on this system")
def test_a_reader_that_grows_is_reported(tmp_path):
    with little_memory():
        assert "MemoryError" in outcome(grow, tmp_path)


def test_planted_readers_that_do_right_are_not_reported(tmp_path):
    def warn(folder):
        warnings.warn("of the package", stacklevel=1)
        return {"a": np.ones(2, np.float32)}

    assert outcome(warn, tmp_path) == "loaded"
    for error in (ValueError, FileNotFoundError, IsADirectoryError, json.JSONDecodeError):
        arguments = ("", 0) if error is json.JSONDecodeError else ()
        assert outcome(fail_with(error(f"{tmp_path}/config.json: damaged", *arguments)), tmp_path) == "refused"


def test_a_case_is_decided_by_its_two_numbers(tmp_path):
    """The files of two folders are damaged alike, and repaired."""
    damages = []
    for name in ("a", "b"):
        reader = make_readers(tmp_path / name)["load_gpt2, shards"]
        for number in range(40):
            text = damage(np.random.default_rng((5, number)), reader)
            files = {p.name: p.read_bytes() for p in sorted(reader.folder.iterdir()) if p.is_file()}
            damages.append((text, files))
            repair(reader)
            assert {p: p.read_bytes() for p in reader.files} == reader.files
    assert damages[:40] == damages[40:]
    assert len({text for text, _ in damages}) > 15


if __name__ == "__main__":
    main(*sys.argv[1:])
