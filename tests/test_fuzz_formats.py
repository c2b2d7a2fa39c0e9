"""lora_np.formats, fuzzed: whatever is in a file, a reader loads it or refuses it by name, and stays small and quick.

A case is a valid folder with one damage. A damage is a change of a file's bytes, of its JSON (a configuration, or the
header of a file of tensors), of its tensors, or of what is in the folder. Two numbers, the seed and the case's own,
decide on everything, so that a failure can be repeated alone:

    python -m tests.test_fuzz_formats FOLDER SEED CASES FIRST READERS

READERS is a part of the names of some readers.

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
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lora_np import formats
from lora_np.adapters import Adapter
from lora_np.checked import errors_of
from lora_np.data import END_OF_TEXT, PAD, encode, load_tokenizer, new_files
from lora_np.data.normalizers import normalizer
from lora_np.formats.gguf import read_gguf
from lora_np.model import BertConfig, GPT2Config, LlamaConfig, forward
from lora_np.tasks.doctor import diagnose, format_diagnosis
from lora_np.tasks.exchange import export
from lora_np.tasks.inspection import format_inspection, inspect_file

from .chat_templates import metadata
from .tiny import edit_fields, edit_tensors, random_adapter, random_params, tiny_config, tiny_llama

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30  # of a reader, before it counts as hanging; a busy machine may stop a process for ten
MEMORY = 2**30  # bytes that a reader may take beyond what is there before it


# ------------------------------------------------------------------ safetensors by hand


class Entry(NamedTuple):
    """A tensor as it is in a file."""

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


# ------------------------------------------------------------------ valid folders, and their readers


class Reader(NamedTuple):
    """A reader, a folder that it can read, and the bytes of that folder's files."""

    read: Callable  # folder -> whatever it reads
    folder: Path
    files: dict[Path, bytes]


LLAMA = tiny_llama(vocab_size=len(metadata()["tokenizer.ggml.tokens"]), n_positions=64, d_model=96, d_ff=64)
CONFIGS = {**{n: tiny_config(n_classes=n) for n in (0, 2, 4)}, "llama": LLAMA}  # GPT-2s by their classes
BASES = {name: random_params(config, np.float32) for name, config in CONFIGS.items()}
PATTERNS = {"rank_pattern": {"blocks.0.mlp.*": 2}, "alpha_pattern": {"v_proj": 3.0}}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "##s", "é"]
WORD_PIECE = b'{"tokenizer_class": "BertTokenizer", "do_lower_case": true, "added_tokens_decoder": {}}'
NORMALIZED = {"model_type": "bert", "sentence_transformers": {"max_seq_length": 4, "normalize": True}}


def tiny_tokenizer():
    """A tokenizer of 13 tokens."""
    from tokenizers import Tokenizer, models

    tokens = [END_OF_TEXT, PAD, *"abcdefghi", "ab", "abc"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("a", "b"), ("ab", "c")]))
    tokenizer.normalizer = normalizer()
    tokenizer.add_special_tokens([END_OF_TEXT, PAD])
    return tokenizer


def make_adapter_and_base(folder, make, **settings):
    """An adapter in `adapter`, on a base of ours in `base`."""
    make_model(folder / "base")
    (folder / "adapter").mkdir()
    make(folder / "adapter", **settings)


def make_arrays(folder):
    """A file of many dtypes and shapes."""
    arrays = {f"of {dtype}": np.ones((2, 3), dtype) for dtype in ("f8", "f4", "f2", "i8", "i4", "u1", "?")}
    arrays |= {"empty": np.zeros((0, 3), np.float32), "number": np.array(1.5), "long": np.zeros(300, np.float16)}
    formats.write_tensors(folder / "t.safetensors", arrays, {"format": "pt", "note": "ümläut"})
    body = unpack((folder / "t.safetensors").read_bytes())
    (folder / "t.safetensors").write_bytes(pack([*body, Entry("of BF16", "BF16", [2, 3], bytes(range(12)))]))


def make_json(folder):
    """A JSON file of every type."""
    formats.write_json(folder / "v.json", {"ä": [1, -2.5e-7, None, True], "nested": {"α": [[1], []]}, "text": "[\n1]"})


def make_model(folder, dtype=None, n_classes=0):
    """A model of ours."""
    formats.save_model(folder, BASES[n_classes], CONFIGS[n_classes], dtype)


def make_hf(folder, config=tiny_config, n_classes=0, **changes):
    """A model in Hugging Face's files, in float32; a classifier has labels."""
    config = config(n_classes=n_classes, **changes)
    labels = [f"class {k}" for k in range(n_classes)] or None
    formats.save_hf(folder, random_params(config, np.float32), config, None, labels)


def make_bare_gpt2(folder):
    """A GPT-2 in bfloat16, as the bare model is saved: names without a prefix, no n_inner, old mask buffers."""
    make_hf(folder, d_ff=48)
    path = folder / "model.safetensors"
    bare = [
        Entry(name.removeprefix("transformer."), "BF16", shape, np.frombuffer(body, "<u2")[1::2].tobytes())
        for name, _, shape, body in unpack(path.read_bytes())  # BF16 is the upper half of float32
    ]
    masks = [Entry("h.0.attn.bias", "BOOL", [1, 1, 2, 2], bytes(4)), Entry("h.1.attn.masked_bias", "F32", [], bytes(4))]
    path.write_bytes(pack([*bare, *masks]))
    edit_fields(folder / "config.json", n_inner=None)


def shard(folder, names=("a.safetensors", "b.safetensors")):
    """Cut model.safetensors in two, with an index that gives them these names; return the index's path."""
    tensors, _ = formats.read_tensors(folder / "model.safetensors")
    keys = list(tensors)
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    for name, half in zip(("a.safetensors", "b.safetensors"), halves):
        formats.write_tensors(folder / name, {key: tensors[key] for key in half})
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    places = {key: name for name, half in zip(names, halves) for key in half}
    formats.write_json(index, {"metadata": {}, "weight_map": places})
    return index


def make_shards(folder):
    """A GPT-2 in two files and an index, one of float16 and one of float32."""
    make_hf(folder)
    shard(folder)
    edit_tensors(folder / "a.safetensors", lambda tensors: {n: a.astype(np.float16) for n, a in tensors.items()})


def make_peft(folder, base=0, fields=(), **settings):
    """An adapter of PEFT's, with a head if the base has classes."""
    formats.save_peft(folder, random_adapter(BASES[base], **settings), BASES[base], CONFIGS[base], "a/base")
    edit_fields(folder / "adapter_config.json", **dict(fields))


def make_adapter(folder, dtype=None, **settings):
    """An adapter of ours, with the head of a classifier."""
    formats.save_adapter(folder, random_adapter(BASES[4], **settings), dtype)


def make_gguf(folder):
    """A model in GGUF with a tokenizer, and an adapter for it."""
    formats.save_gguf(folder / "model.gguf", BASES["llama"], LLAMA, metadata(), "q8_0")
    formats.save_gguf_adapter(folder / "adapter.gguf", random_adapter(BASES["llama"]), BASES["llama"], LLAMA, {})


def make_task(folder, whole=False):
    """A task in `task`: a whole model, or an adapter on a language model in `base`."""
    about = {"method": "full" if whole else "lora", "seed": 0}
    task, base = formats.LoadedModel(BASES[2], CONFIGS[2], None, tiny_tokenizer(), ["no", "yes"]), None
    if not whole:
        base = folder / "base"
        make_model(base)
        tiny_tokenizer().save(str(base / "tokenizer.json"))
        params = {**BASES[0], "head.weight": np.zeros((2, 12), np.float32)}
        task = task._replace(params=params, adapter=random_adapter(params, targets=("q_proj",)))
    formats.save_task(folder / "task", task, base, about)


def make_tokenizer(folder, **settings):
    """A tokenizer with all the files that name tokens, in `base`."""
    token = {"content": "<s>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
    about = {"add_prefix_space": True, "split_special_tokens": False, "extra_special_tokens": ["<u>"], **settings}
    files = {"config": {"model_type": "gpt2", "vocab_size": 13}}
    files |= {"special_tokens_map": {"bos_token": token, "eos_token": "a"}, "added_tokens": {"<s>": 11}}
    files |= {"tokenizer_config": about, "tokenizer": json.loads(new_files(tiny_tokenizer())["tokenizer.json"])}
    files["tokenizer"]["model"]["vocab"] = {"a": 0, "b": 1, "c": 2, "ab": 6, "abc": 7}
    files["tokenizer"]["added_tokens"] = []
    for name, fields in files.items():
        formats.write_json(folder / "base" / f"{name}.json", fields)


def make_bert(folder, whole=False, **settings):
    """A BERT with its words in vocab.txt, or in a whole tokenizer.json."""
    config = BertConfig(len(WORDS), 9, 6, 2, 3, 8, **{"extra": NORMALIZED, **settings})
    files = {"vocab.txt": "\n".join(WORDS).encode("utf-8"), "tokenizer_config.json": WORD_PIECE}
    if whole:
        files["tokenizer.json"] = load_tokenizer("x", {"model_type": "bert"}, files).to_str().encode("utf-8")
        del files["vocab.txt"]
    formats.save_hf(folder, random_params(config, np.float32), config, files=files)


def arrays_of(loaded):
    """The arrays of an adapter, a model or a task, which must be finite; of other files {}."""
    if isinstance(loaded, Adapter):
        return loaded.weights
    if not (isinstance(loaded, tuple) and isinstance(loaded[1], GPT2Config | LlamaConfig | BertConfig)):
        return {}
    adapter = loaded.adapter.weights if isinstance(loaded, formats.LoadedModel) and loaded.adapter else {}
    return {**{f"base {name}": array for name, array in loaded[0].items()}, **adapter}


def read_encoder(folder):
    """Read a BERT with its tokenizer, and compute a text's vector."""
    loaded = formats.read_model(folder)
    with errors_of(folder):  # the text's tokens may also fail, and weights may be huge
        ids = encode(loaded.tokenizer, ["A films [SEP]"], loaded.config.n_positions)[0]
    if ids.size:
        with np.errstate(all="ignore"):
            forward(loaded.params, ids[None], loaded.config, head=False)
    return loaded


def ours(folder):
    return formats.load_adapter(folder, BASES[4])


def peft_onto(base=0):
    """A reader of PEFT's adapters onto a base."""
    return lambda folder: formats.load_peft(folder, BASES[base], CONFIGS[base])


def of(name, read):
    """A reader of one file or folder in its folder."""
    return lambda folder: read(folder / name)


def inspect(folder):
    format_inspection(inspect_file(folder))


def doctor(adapter, base):
    """A reader of an adapter and its base."""
    return lambda folder: format_diagnosis(diagnose(folder / adapter, folder / base))


def reexport(folder):
    """Write a model again, as GGUF; what is there beforehand stays if that fails."""
    out = folder.parent / f"{folder.name}.gguf"
    out.write_bytes(b"old")
    try:
        export(folder / "model.gguf", "gguf", out, format="q4_1")
    except BaseException:
        assert out.read_bytes() == b"old" and not list(folder.parent.glob("*.tmp"))
        raise
    read_gguf(out)


PEFT, TASK, DOCTOR = peft_onto(), of("task", formats.load_task), doctor("adapter", "base")
LAYERS = {"target_modules": ["c_attn"], "layers_to_transform": [0, 1], "layers_pattern": "h"}
LLAMA_LAYERS = {"targets": ("q_proj", "v_proj"), "fields": {"layers_to_transform": [0, 1], "layers_pattern": "layers"}}
HEADS = {"n_heads": 4, "n_kv_heads": 2}
READERS = {  # name: (reader, maker of its folder, the maker's settings)
    "read_tensors": (of("t.safetensors", formats.read_tensors), make_arrays, {}),
    "read_json": (of("v.json", formats.read_json), make_json, {}),
    "load_model": (formats.load_model, make_model, {}),
    "load_model, a classifier of float16": (formats.load_model, make_model, {"dtype": "float16", "n_classes": 4}),
    "load_adapter": (ours, make_adapter, {"targets": ("q_proj", "blocks.1.*")}),
    "load_adapter, patterns": (ours, make_adapter, {"dtype": "float16", "rslora": True, **PATTERNS}),
    "load_adapter, DoRA": (ours, make_adapter, {"kind": "dora", "norm_gradient": True}),
    "load_adapter, VeRA": (ours, make_adapter, {"kind": "vera", "projection_seed": 3}),
    "load_adapter, AdaLoRA": (ours, make_adapter, {"kind": "adalora", **PATTERNS}),
    "load_hf": (formats.load_hf, make_hf, {"n_classes": 4}),
    "load_hf, bfloat16": (formats.load_hf, make_bare_gpt2, {}),
    "load_hf, shards": (formats.load_hf, make_shards, {}),
    "load_peft": (PEFT, make_peft, {"targets": ("q_proj", "k_proj", "v_proj"), "fields": LAYERS}),
    "load_peft, patterns": (PEFT, make_peft, {"rslora": True, **PATTERNS}),
    "load_peft, head": (peft_onto(4), make_peft, {"base": 4, "targets": ("o_proj",)}),
    "load_peft, DoRA": (PEFT, make_peft, {"kind": "dora", "targets": ("q_proj", "v_proj")}),
    "load_task, adapter": (TASK, make_task, {}),
    "load_task, whole": (TASK, make_task, {"whole": True}),
    "load_tokenizer": (of("base", load_tokenizer), make_tokenizer, {}),
    "load_tokenizer, newer": (
        of("base", load_tokenizer),
        make_tokenizer,
        {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"9": {"content": "<x>"}}},
    ),
    "inspect_file, ours": (inspect, make_adapter, PATTERNS),
    "inspect_file, AdaLoRA": (inspect, make_adapter, {"kind": "adalora"}),
    "inspect_file, QA-LoRA": (inspect, make_adapter, {"kind": "qalora"}),
    "inspect_file, DoRA": (inspect, make_peft, {"kind": "dora", **PATTERNS}),
    "inspect_file, PEFT's": (inspect, make_peft, PATTERNS),
    "inspect_file, shards": (inspect, make_shards, {}),
    "inspect_file, any": (inspect, make_arrays, {}),
    "load_hf, Llama": (formats.load_hf, make_hf, {"config": tiny_llama, "n_classes": 4, **HEADS}),
    "load_peft, Llama": (peft_onto("llama"), make_peft, {"base": "llama", **LLAMA_LAYERS}),
    "load_peft, Llama with DoRA": (peft_onto("llama"), make_peft, {"base": "llama", "kind": "dora", **PATTERNS}),
    "diagnose, GGUF's": (doctor("adapter.gguf", "model.gguf"), make_gguf, {}),
    "export, GGUF": (reexport, make_gguf, {}),
    "read_model, BERT": (read_encoder, make_bert, {"pooling": "cls", "n_classes": 4}),
    "read_model, BERT with a mean": (read_encoder, make_bert, {}),
    "read_model, BERT with a Dense module": (read_encoder, make_bert, {"n_classes": 4, "whole": True}),
    "diagnose, PEFT's": (DOCTOR, make_adapter_and_base, {"make": make_peft, "fields": LAYERS, **PATTERNS}),
    "diagnose, ours": (DOCTOR, make_adapter_and_base, {"make": make_adapter, "kind": "dora"}),
}


def make_readers(root):
    """Every reader by name, each with a folder of its own in `root`."""
    readers = {}
    for i, (name, (read, make, settings)) in enumerate(READERS.items()):
        folder = root / f"{i:02d}"
        folder.mkdir(parents=True)
        make(folder, **settings)
        files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        readers[name] = Reader(read, folder, files)
    return readers


# ------------------------------------------------------------------ hostile values: texts of JSON, or of almost JSON

NUMBERS = """0 -0 1 -1 2 3 4 7 8 12 13 24 1.0 2.5 3.0 -0.0 -3 1e-320 1e30 1e31 1e308 1e999 -1e999 NaN Infinity
-Infinity 255 65536 1000000 12000000 1000000000 2147483648 9007199254740993 9223372036854775807 9223372036854775808
18446744073709551615 18446744073709551616 4611686018427387904 1e400 00 +1 .5 1e 0x10""".split()
NUMBERS += ["9" * 310, "12" + "0" * 400, "9" * 4300, "9" * 4301, "9" * 100_000, "-" + "9" * 400, "0." + "0" * 400 + "1"]
TEXTS = "12 nan true all-linear q_proj * [ é lora LORA dora vera adalora pissa gaussian none gpt2 ../x / [z-a] blocks.*"
TEXTS = [*TEXTS.split(), "", "\0", "\ud800", "a\nb", "x" * 100_000]
TEXTS += ["?" * 40, "[!" * 50, "*a" * 30 + "*", "*a" * 40 + "x"]
OTHERS = ["null", "true", "false", "", "[" + "1," * 10_000 + "1]", "\ufeff1", "'a'", "undefined"]

# Regular expressions grow from these; some take exponential time, some are no patterns, some warn.
ATOMS = r". .+ .* a h x c_attn [a-z.0-9] [^x] h\.0\.attn [ ( ) * ? | $ \\ \1 \8 \N{x} [[a] (?P<a"
ATOMS = [*ATOMS.split(), "", "\0", "\ud800", *"[a--b] (?i) (?# (?(1)a|b) (?L) (?a)(?u)".split()]
GROWN = r"(@) (?:@) (@)+ (@)* (@|.) (|@) (@)? (?=@) (?<=@) (?s:@) @@ @|.* .*@ (@){1,9} @{99999999999999999999} (@)\1\1"
GROWN = [*GROWN.split(), "(?x:@ )", "@{4294967294}", "@" * 40, "@?" * 40]

# Where an index may say that a tensor is, or a task that its base is.
PLACES = ["../x", "../../etc/passwd", "/etc/passwd", "..", ".", "", "/", "a/b", "a\\b", "\0", "\ud800", "x" * 300]
PLACES += ["no.safetensors", "a.safetensors", "b.safetensors", "./a.safetensors"]
PLACES += ["config.json", "model.safetensors.index.json", "a.safetensors/", "a.safetensors\n", "A.safetensors", "C:\\x"]

FIELDS = {  # to add to one kind of file
    "adapter_config": "rank_pattern alpha_pattern target_modules exclude_modules layers_pattern layers_to_transform",
    "adapter": "rank_pattern alpha_pattern targets",
    "tokenizer": "padding truncation normalizer pre_tokenizer post_processor continuing_subword_prefix "
    "end_of_word_suffix unk_token dropout fuse_unk byte_fallback ignore_merges vocab merges type",
    "tokenizer_config": "added_tokens_decoder extra_special_tokens tokenizer_class bos_token x_token unk_token",
    "header": "__metadata__",
    "sentence_bert_config": "max_seq_length do_lower_case",
    "any": "extra dropout n_inner n_classes n_layers d_model n_layer targets kind init rslora train_head alpha_pattern "
    "use_rslora use_dora bias peft_type base rate_factors norm_gradient projection_seed base_sha256 labels method "
    "id2label weight_map layer_norm_epsilon activation_function pruned_heads added_tokens decoder __metadata__ "
    "hidden_act position_embedding_type is_decoder type_vocab_size pooling sentence_transformers pooling_mode "
    "pooling_mode_max_tokens embedding_dimension use_residual",
}
SIZED = {  # values of a tokenizer's fields, with a size in them
    "padding": '{"strategy": {"Fixed": %s}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 1, '
    '"pad_type_id": 0, "pad_token": "a"}',
    "truncation": '{"direction": "Right", "max_length": %s, "strategy": "LongestFirst", "stride": 0}',
    "post_processor": '{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a", "type_id": 0}}], '
    '"pair": [], "special_tokens": {"a": {"id": "a", "ids": [%s], "tokens": ["a"]}}}',
    "normalizer": '{"type": "Replace", "pattern": {"Regex": "(a+)+(?=%s)"}, "content": ""}',
    "pre_tokenizer": '{"type": "Split", "pattern": {"Regex": "(?=x){%s}"}, "behavior": "Isolated", "invert": false}',
}


def pick(rng, values):
    """One of several, whatever they are."""
    return values[int(rng.integers(len(values)))]


def nested(rng):
    """A value that is nested: hardly, about as deep as Python's stack, or far deeper."""
    depth = int(rng.choice([3, 60, rng.integers(200, 1100), rng.integers(800, 1000), 5_000, 100_000]))
    opening, closing = pick(rng, [("[", "]"), ('{"a":', "}"), ('[{"b":', "}]")])
    return opening * depth + "1" + closing * depth


def hostile(rng, depth=0):
    """A value that no field should have."""
    kind = rng.random()
    if kind < 0.5:
        return pick(rng, NUMBERS)
    if kind < 0.7 or depth > 2:
        return json.dumps(pick(rng, TEXTS))
    if kind < 0.8:
        return pick(rng, [*OTHERS, nested(rng), nested(rng)])
    values = [hostile(rng, depth + 1) for _ in range(int(pick(rng, [0, 1, 1, 2])))]
    if kind < 0.9:
        return "[" + ", ".join(values) + "]"
    return "{" + ", ".join(f"{json.dumps(pick(rng, TEXTS[:12]))}: {value}" for value in values) + "}"


def regex(rng):
    """A regular expression, or almost one; at times a very long one."""
    text = pick(rng, ATOMS)
    for _ in range(int(rng.integers(5))):
        text = pick(rng, GROWN).replace("@", text + pick(rng, ["", "", pick(rng, ATOMS)]))[:20_000]
    return pick(rng, [text, text + "x", text, (text * 300)[:20_000]])


def size(rng):
    """A hostile size or offset."""
    return pick(rng, NUMBERS) if rng.random() < 0.6 else str(2 ** int(rng.integers(70)) + int(rng.integers(-1, 2)))


def hostile_for(rng, field, old=None):
    """A value that is hostile in this field, or in place of this one; a third are hostile anywhere."""
    if rng.random() < 0.33:
        return hostile(rng)
    patterns = [regex(rng) for _ in range(int(pick(rng, [1, 1, 2, 5])))]
    if field in ("rank_pattern", "alpha_pattern"):
        number = pick(rng, ["3", "6.0", hostile(rng)])
        return "{" + ", ".join(f"{json.dumps(pattern)}: {number}" for pattern in dict.fromkeys(patterns)) + "}"
    if field in ("targets", "target_modules", "exclude_modules", "layers_pattern"):
        return json.dumps(pick(rng, [patterns, patterns[0]]))
    if field == "layers_to_transform":
        return pick(rng, ["0", "[0, 1]", hostile(rng)])
    if field == "dtype":
        return json.dumps(pick(rng, [*BYTES, "F7", "f32", "", "\0", "F32 "]))
    if field in SIZED:
        return SIZED[field] % size(rng)
    if field in ("base", "path") or str(old).endswith(".safetensors"):
        return json.dumps(pick(rng, PLACES))
    return size(rng) if isinstance(old, int) else json.dumps(pick(rng, TEXTS))


# ------------------------------------------------------------------ changes of JSON: (rng, root, object or list, key)
#
# Each changes a value in place and returns texts for the marks that it leaves there.


def replaced(rng, root, inner, key):
    """A hostile value, in one place or throughout a list or an object."""
    text = hostile_for(rng, key, inner[key])
    for other in list(inner) if isinstance(inner, dict) and rng.random() < 0.1 else [key]:
        inner[other] = "@"
    return {"@": text}


def scaled(rng, root, inner, key):
    """A number, or every number like it, times a power of ten or of two: sizes that still divide one another."""
    numbers = [(v, k) for v, k in places_of(root) if isinstance(v[k], int) and not isinstance(v[k], bool)]
    chosen = numbers and pick(rng, [inner[key] for inner, key in numbers])
    factor = pick(rng, [2, 10**3, 10**5, 10**9, 2**31, 2**62, 10**40, 10**320, -1])
    alike = [(inner, key) for inner, key in numbers if inner[key] == chosen]
    for inner, key in alike if rng.random() < 0.5 else alike[:1]:
        inner[key] *= factor


def removed(rng, root, inner, key):
    """A field, or an element of a list, less."""
    del inner[key]


def other_names(name, others):
    """Names in place of one: of others, of none, or almost its own."""
    layer = name.rpartition(".")[0]
    names = [*others, *TEXTS, name + " ", name.upper(), "x" * 3000, "é" * 99, "__metadata__", "h.0.attn.bias"]
    names += ["lm_head.weight", "score.weight", "head.weight", "classifier.weight", "lora_A", ".lora_A.weight"]
    names += ["transformer." + name, "base_model.model." + name, name.removeprefix("transformer."), name + ".weight"]
    names += [f"{layer}.lora_A.weight", f"{layer}.lora_B.weight", "base_model.model." * 2 + name]
    names += [name.replace("0", "9" * 30), name.replace(".", ""), name.replace("0", "\u0660")]
    return [*names, "h.99999.attn.c_attn.lora_A.weight"]


def renamed(rng, root, inner, key):
    """A key that no object, or another value, has; or its own a second time, with another value."""
    if isinstance(inner, dict):
        twice, name = rng.random() < 0.3, pick(rng, other_names(key, inner))
        value = hostile(rng) if twice else json.dumps(inner.pop(key))
        inner["@"] = "@@"
        return {"@": json.dumps(key if twice else name), "@@": value}


CHANGES = [replaced] * 6 + [scaled] * 2 + [renamed] * 3 + [removed]


def places_of(value):
    """Every place in a JSON value, as (the object or list, the key or index)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from places_of(inner)


def place_in(rng, root):
    """A place, as likely one at the top as one of all."""
    tops = [(root, key) for key in (root if isinstance(root, dict) else range(len(root)))]
    return pick(rng, tops if rng.random() < 0.5 else list(places_of(root)))


def change_json(rng, text, kind):
    """A JSON text with one change, or with new fields that some kind of file may have."""
    root = json.loads(text)
    if rng.random() < 0.05:
        return pick(rng, [hostile, nested])(rng), "a whole text"
    if rng.random() < (0.45 if kind in FIELDS and kind != "header" else 0.2) and isinstance(root, dict):
        change, fields = "field added", FIELDS.get(kind, FIELDS["any"]).split()
        field = pick(rng, fields if rng.random() < 0.7 else [*FIELDS["any"].split(), pick(rng, TEXTS)])
        inner = root["model"] if kind == "tokenizer" and field not in SIZED else root
        inner[field], marks = "@", {"@": hostile_for(rng, field)}
    else:
        function = pick(rng, CHANGES)
        change, marks = function.__name__, function(rng, root, *place_in(rng, root)) or {}
    text = json.dumps(root, indent=pick(rng, [None, 2]))
    for mark, new in marks.items():
        text = text.replace(json.dumps(mark), new)
    return text, change


# ------------------------------------------------------------------ changes of tensors and of bytes


def recast(rng, entry):
    """A tensor of another shape, dtype or extreme values, with as many bytes as these need."""
    dtype, shape, n = pick(rng, [entry.dtype, entry.dtype, *BYTES]), entry.shape, int(np.prod(entry.shape))
    as_many = [shape, shape[::-1], [n], [1, *shape], [*shape, 1], [n, 1], [1] * 40 + [n], [1] * 70 + [n]]
    fewer = [[int(rng.integers(rows)), *shape[1:]] for rows in shape[:1] if rows] or [[0]]
    none = [[2**62, 0], [0, 2**63], [2**64 - 1, 0], [0], [2**31, 2**31, 0], [0, 12], [2**40, 2**40, 0], [0] * 1000]
    shape = pick(rng, [shape, shape, pick(rng, as_many), pick(rng, fewer), pick(rng, [*none, [0] + [1] * 64])])
    n = 0 if 0 in shape else int(np.prod(shape))
    bodies = [entry.body[: n * BYTES[dtype]].ljust(n * BYTES[dtype]), rng.bytes(n * BYTES[dtype])]
    if dtype in NUMPY:
        value = float(pick(rng, EXTREME))
        values = np.full(n, pick(rng, [value, 1.0]))
        values[: int(rng.integers(1, 4))] = value
        with np.errstate(over="ignore"):
            bodies += [values.astype(NUMPY[dtype]).tobytes()] * 2
    return entry._replace(dtype=dtype, shape=shape, body=pick(rng, bodies))


EXTREME = [np.nan, np.inf, -np.inf, 0.0, 5e-324, 1e-200, 1e-30, 1e4, 6e4, 1e20, 1e30, 3e38, 1e39, 1e150, 1e300, 1.7e308]


def change_tensors(rng, data):
    """One tensor recast, all with one extreme value, some missing or in another order, or one tensor twice."""
    entries = unpack(data)
    n, order, i = len(entries), rng.permutation(len(entries)), int(rng.integers(len(entries)))
    value = np.float64(pick(rng, [1e20, 1e150, 1e300, 1e-200, 0.0])).tobytes()
    name = pick(rng, [entries[i].name, *other_names(entries[i].name, [entry.name for entry in entries])])
    changes = {
        "recast": [*entries[:i], recast(rng, entries[i]), *entries[i + 1 :]],
        "all extreme": [entry._replace(dtype="F64", body=value * int(np.prod(entry.shape))) for entry in entries],
        "some in another order": [entries[k] for k in order[: int(pick(rng, [0, 1, n - 1, rng.integers(n), n, n]))]],
        "one tensor twice": [*entries, entries[order[0]]._replace(name=name)],
    }
    change = pick(rng, ["recast"] * 6 + ["some in another order"] * 2 + ["all extreme", "one tensor twice"])
    return pack(changes[change]), change


CUT = "cut off"


def change_bytes(rng, data):
    """The end cut off, bits flipped, a piece exchanged for something else, or all of it."""
    n, (other, *starts) = len(data), rng.integers(len(data) + 1, size=3)
    start = pick(rng, [0, *starts])
    # One bit anywhere; a few at the start, where the header of a file of tensors is; or many.
    last, count = pick(rng, [(n, 1), (n, 1), (pick(rng, [8, 100, 2000]), rng.integers(1, 4)), (n, 64)])
    flipped = np.frombuffer(data, np.uint8).copy()
    flipped[rng.integers(min(last, n), size=count)] ^= np.uint8(1 << int(rng.integers(8)))
    # At the start of a file of tensors is the length of its header.
    sizes = [0, 1, 2, 2**16, 2**20, 100_000_000, 100_000_001, 2**31, 2**32, 2**62, 2**63, 2**63 - 1, 2**64 - 1]
    sizes += [n, n - 8, n - 7, int.from_bytes(data[:8], "little") + int(rng.integers(-3, 4))]
    number = struct.pack("<Q", pick(rng, sizes) % 2**64)
    piece = data[start : start + int(rng.integers(1, 200))]
    k = len(piece)
    new = [b"", piece * 2, rng.bytes(int(rng.integers(1, 50))) + piece, *[number + piece[8:]] * 2]
    new += [pick(rng, [bytes(k), b" " * k, b"\xff" * k, b"9" * k, rng.bytes(k), data[other : other + k]])]
    text = data.decode("utf-8", "ignore")
    junk = [b"", b"\0" * 100, data * 2, b"\x80\x04\x8c\x05posix\x94.", b"PK\x03\x04", b"[" * 200_000]
    junk += [text.encode("utf-16"), text.encode("utf-8-sig"), ("é" + text).encode("latin-1", "ignore")]
    changes = {
        CUT: data[: max(0, int(pick(rng, (rng.integers(20), rng.integers(n), n - rng.integers(1, 20)))))],
        "bits flipped": flipped.tobytes(),
        "spliced": data[:start] + pick(rng, new) + data[start + k :],
        "something else": pick(rng, [*junk, nested(rng).encode(), rng.bytes(int(rng.integers(1, 3000)))]),
    }
    change = pick(rng, [CUT] * 2 + ["bits flipped"] * 3 + ["spliced"] * 4 + ["something else"])
    return changes[change], change


def change_lines(rng, lines, of_json):
    """One line changed: as JSON, or as people and programs change tables."""
    i = int(pick(rng, [0, rng.integers(len(lines))]))
    line, delimiter = lines[i], "\t" if "\t" in lines[0] else ","
    others = ['"' + line, line + '"', line.replace(delimiter, delimiter + '"', 1), line + delimiter, delimiter * 1000]
    others += [line.partition(delimiter)[0], "", "\0" + line, line + "\r", "x" * 200_000 + line, line.upper(), '"']
    others += ["\ufeff" + line, "\ud800", "a" + delimiter + "a", line + "\n" + line, "=1+1" + delimiter + line]
    lines[i] = change_json(rng, line, "row")[0] if of_json and line else pick(rng, others)
    return "\n".join(lines)


# ------------------------------------------------------------------ damages to folders


def put(path, data):
    """Write a file in place of whatever is there: a new one, as some file systems flush one that is cut to nothing."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def change_folder(rng, path, files):
    """In a file's place nothing, a folder, a pipe, a link or another file."""
    other, kind = pick(rng, list(files)), rng.random()
    if kind < 0.25:
        put(path, files[other])
        put(other, files[path])
        return "files exchanged"
    path.rename(path.parent.parent / "out")
    if os.name == "posix" and kind > 0.75:
        targets = ["nowhere", path.name, "../out", "/etc/passwd", "/dev/zero", *(file.name for file in files)]
        path.symlink_to(pick(rng, targets))
        return "a link"
    makers = [lambda path: None, Path.mkdir] + ([os.mkfifo] if os.name == "posix" else [])
    pick(rng, makers)(path)  # a pipe's readers wait for a writer
    return "no file"


def damage(rng, reader):
    """Damage one file of a reader's folder; say which one, and how."""
    path = pick(rng, list(reader.files))
    data, kind = reader.files[path], rng.random()
    if kind < 0.005 and path.suffix != ".gguf":  # which is mapped, as far as the limit of memory lets it
        os.truncate(path, 20 * 2**30)  # takes no place on the disk
        return f"{path.name}: 20 GB"
    if kind < 0.06:
        return f"{path.name}: {change_folder(rng, path, reader.files)}"
    if kind < 0.4 or path.suffix in (".gguf", ".npy", ".png", ".zip"):
        new, change = change_bytes(rng, data)
    elif path.suffix in (".json", ".ipynb"):
        new, change = change_json(rng, data.decode("utf-8"), path.stem)
    elif path.suffix in (".csv", ".tsv", ".jsonl", ".txt"):
        new, change = change_lines(rng, data.decode("utf-8").split("\n"), path.suffix == ".jsonl"), "a line changed"
    elif kind < 0.7:
        header, body = split(data)
        header, change = change_json(rng, header, "header")
        new = with_header(header, body)
    else:
        new, change = change_tensors(rng, data)
    put(path, new.encode("utf-8", "surrogatepass") if isinstance(new, str) else new)
    return f"{path.name}: {change}"


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
            loaded = read(folder)
    except KeyboardInterrupt:
        raise
    except (ValueError, OSError, MemoryError) as error:
        if str(folder) in str(error):
            return "refused"
        return f"names no file: {type(error).__name__}: {error}"
    except BaseException as error:  # a panic of a library in Rust is no Exception
        return f"raises {type(error).__name__}: {error}"
    for name, array in arrays_of(loaded).items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            return f"loads {name} with values that are not finite numbers of float32"
    return "loaded"


def memory(field):
    """Bytes that this process has, of a field such as VmSize; None on systems that do not say."""
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
    limits = {soft, memory("VmSize") + MEMORY} - {resource.RLIM_INFINITY}
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(root, seed, cases, first=0, journal=None, which="", make=make_readers, seconds=SECONDS):
    """Read damaged folders, the readers in turn; return sentences on what is wrong.

    A case is decided by the seed and its number, from `first` on. The journal, an open file, ends with the case that
    was read last. `which` is a part of the names of the readers to try; `make` is a function (root) -> {name: Reader}.
    A reader also fails if no damage keeps it from loading or, with 100 cases for each reader, if none leaves it alone.
    """
    readers, results = {name: r for name, r in make(root).items() if which in name}, Counter()
    failures, hung = [], set()
    with little_memory():
        for name, reader in readers.items():
            result = outcome(reader.read, reader.folder)
            assert result == "loaded", f"{name}, undamaged: {result}"
        for number in range(first, first + cases):
            name = list(readers)[number % len(readers)]
            if name in hung:  # once is enough to wait for
                continue
            change = damage(np.random.default_rng((seed, number)), readers[name])
            case = f"seed {seed}, case {number}: {name}: {change}"
            if journal:
                print(case, file=journal, flush=True)
            result = outcome(readers[name].read, readers[name].folder, seconds)
            results[name, result] += 1
            if result not in ("loaded", "refused"):
                failures.append(f"{case}: {ascii(result[:500])}")
            elif result == "loaded" and change.endswith(f".safetensors: {CUT}"):
                failures.append(f"{case}: loads a part of a file")
            if result.startswith("raises Hang"):
                hung.add(name)
            repair(readers[name])
    wanted = ("refused", "loaded") if cases >= 100 * len(readers) else ("refused",)  # some readers load little
    ends = [(name, end) for name in readers for end in wanted] if cases > 200 else []
    return failures + [f"{name}: no damaged folder is {end}" for name, end in ends if not results[name, end]]


def main(root, seed, cases, first=0, which="", **settings):
    """Fuzz as a program, which fails with what is wrong."""
    os.fsync = lambda descriptor: None  # as conftest.py has it
    shutil.rmtree(root, ignore_errors=True)
    Path(root).mkdir(parents=True)
    with open(Path(root, "journal"), "w", encoding="utf-8") as journal:
        before = memory("VmHWM")
        try:
            failures = fuzz(Path(root), int(seed), int(cases), int(first), journal, which, **settings)
        except Exception:  # of a reader that cannot read what is undamaged
            failures = [traceback.format_exc()]
    if before and memory("VmHWM") - before >= MEMORY:
        failures.append("the process grew too large")
    Path(root, "failures").write_text("\n".join(failures[:20]), "utf-8")
    sys.exit(bool(failures))


def fuzz_in_a_process(module, folder, seed, cases):
    """Fuzz in a process of its own: whatever crashes it, or lets it grow, is seen from here."""
    command = [sys.executable, "-m", module, str(folder), str(seed), str(cases)]
    try:
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
        problem = process.returncode and f"code {process.returncode}: {process.stderr[-3000:]}"
    except subprocess.TimeoutExpired:
        problem = "hangs where no alarm is heard"
    journal = (folder / "journal").read_text("utf-8").splitlines() if (folder / "journal").exists() else []
    if problem and (folder / "failures").exists():
        problem = (folder / "failures").read_text("utf-8")
    assert not problem, f"{problem}\nThe last case: {journal[-1:]}"
    assert len(journal) == cases


# ------------------------------------------------------------------ the tests


@pytest.mark.slow
def test_damaged_files_load_or_are_refused_by_name(tmp_path):
    failures = fuzz(tmp_path / "fuzz", seed=7, cases=500)
    assert failures == [], "\n".join(failures[:20])


@pytest.mark.stress
def test_ten_thousand_damaged_files(tmp_path):
    fuzz_in_a_process("tests.test_fuzz_formats", tmp_path / "fuzz", 1, 10_000)


def fail_with(kind, message=""):
    """A reader that raises; FOLDER in the message is its folder."""

    def read(folder):
        raise kind(message.replace("FOLDER", str(folder)))

    return read


def warn(folder):
    """A reader that warns as the package does."""
    warnings.warn("of the package", stacklevel=1)
    return Adapter(None, {"a": np.ones(2, np.float32)})


PLANTED = {
    "an exception that is not allowed": (fail_with(KeyError, "FOLDER"), "raises KeyError"),
    "a panic": (fail_with(type("PanicException", (BaseException,), {}), "FOLDER"), "raises PanicException"),
    "a message without the path": (fail_with(ValueError, "not a JSON file"), "names no file: ValueError: not a JSON"),
    "a warning that is not the package's": (lambda folder: np.float32([1]) / 0, "raises RuntimeWarning"),
    "nan": (lambda folder: Adapter(None, {"a": np.float32([np.nan])}), "loads a with values"),
    "a hang": (lambda folder: time.sleep(30), "raises Hang"),
    "four times the memory": (lambda folder: np.ones(MEMORY, np.float32), "names no file: "),
    "a warning of the package": (warn, "loaded"),
    "a refusal": (fail_with(ValueError, "FOLDER/config.json: damaged"), "refused"),
    "no such file": (fail_with(FileNotFoundError, "FOLDER/config.json"), "refused"),
}


@pytest.mark.skipif(memory("VmSize") is None, reason="needs a limit of memory")
@pytest.mark.parametrize("read, message", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_fault_is_reported(tmp_path, read, message):
    with little_memory():
        assert outcome(read, tmp_path, seconds=0.1).startswith(message)


if __name__ == "__main__":
    main(*sys.argv[1:])
