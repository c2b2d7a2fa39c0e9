"""Files that are damaged, foreign or do not belong together are refused by name: models, adapters, GPT-2 and PEFT.

Each table has the changes of one file and what the error must say; one test carries out all of them.
"""

import os
import shutil
import struct
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig
from lora_np.adapters.starts import STARTS
from lora_np.data import load_tokenizer, new_files
from lora_np.data.tokenizer_files import FILES
from lora_np.formats import load_hf, load_model, read_json, save_adapter, save_hf, save_model, save_peft, write_json
from lora_np.formats.paths import PRETRAINED
from lora_np.model import GPT2Config

from . import test_fuzz_formats as fuzz
from .test_fuzz_formats import Entry, pack, peft_onto, shard
from .tiny import edit_fields, edit_tensors


class Saved(NamedTuple):
    """A folder of one format, not yet damaged."""

    kind: str
    fields: Path  # its configuration
    tensors: Path
    read: Callable  # () -> what is read
    save: Callable  # (folder, what was read) -> None


OF_FOUR, OF_PEFT = {"n_classes": 4}, (fuzz.BASES[4], fuzz.CONFIGS[4])
DORA = {"base": 4, "kind": "dora", "targets": ("q_proj", "v_proj", "up_proj")}
PATTERNS = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"blocks.0.*": 3.0}}
OURS, PEFTS = ("adapter.json", "adapter.safetensors"), ("adapter_config.json", "adapter_model.safetensors")
HF = ("config.json", "model.safetensors")
KINDS = {  # kind: (its maker, the maker's settings, its reader, (folder, what was read) -> None, its two files)
    "model": (fuzz.make_model, OF_FOUR, load_model, lambda out, loaded: save_model(out, *loaded), HF),
    "adapter": (fuzz.make_adapter, {"dropout": 0.1, **PATTERNS}, fuzz.ours, save_adapter, OURS),
    "gpt2": (fuzz.make_hf, OF_FOUR, load_hf, lambda out, loaded: save_hf(out, *loaded[:2], labels=loaded.labels), HF),
    "peft": (fuzz.make_peft, {"base": 4}, peft_onto(4), lambda out, got: save_peft(out, got, *OF_PEFT), PEFTS),
    "dora": (fuzz.make_peft, DORA, peft_onto(4), None, PEFTS),
}


@pytest.fixture
def saved(request, tmp_path):
    """A folder of the kind that the parameter names, of a classifier of 4 classes."""
    make, settings, read, save, files = KINDS[request.param]
    folder = tmp_path / request.param
    make(folder, **settings)
    return Saved(request.param, *(folder / name for name in files), partial(read, folder), save)


def every(*kinds):
    """Run a test for each of these kinds of folders."""
    return pytest.mark.parametrize("saved", kinds, indirect=True)


def rows(*tables):
    """Run a test for each row of {kind: [(change, message), …]}, as the arguments `saved`, `change` and `message`."""
    cases = [(kind, *row) for table in tables for kind, of_kind in table.items() for row in of_kind]
    ids = [f"{kind}-{message[:40] if callable(change) else str(change)[:40]}" for kind, change, message in cases]
    return pytest.mark.parametrize("saved, change, message", cases, indirect=["saved"], ids=ids)


def put(name, make):
    """A change: one tensor becomes what `make` makes of it; None takes it out."""

    def change(tensors):
        return {**{n: a for n, a in tensors.items() if n != name}, **({name: make(tensors[name])} if make else {})}

    return change


# ------------------------------------------------------------------ configurations
#
# tests/test_refusals.py has every number of our own ones.

FIELDS = {
    "model": [
        ({"d_model": "absent"}, "config.json: .*d_model"),
        *[({f.name: ["x"]}, rf"config.json: {f.name}: got \['x'\], expected") for f in fields(GPT2Config)[:-1]],
        ({"n_layers": 10**9}, "n_layers: got 1000000000, expected an integer from 1 to 1000, more than any"),
        ({"n_layers": 3}, "model.safetensors: blocks.2.* is missing"),
        ({"n_classes": 0}, "model.safetensors: unexpected tensor head.weight"),
        ({"d_ff": 24}, "model.safetensors: .* has shape"),
    ],
    "adapter": [
        ({"r": 4}, r"adapter.safetensors: .*lora_A has shape \(3, 12\), expected \(4, 12\)"),
        ({"targets": ["q_proj"], "rank_pattern": {}}, "adapter.safetensors: "),
        ({"targets": ["c_attn"]}, "adapter.json: targets: 'c_attn' matches no layer"),
        ({"targets": [1]}, r"adapter.json: targets: got \[1\], expected a tuple of strings"),
        *[({f.name: {"q_proj": []}}, f"adapter.json: {f.name}.*: got") for f in fields(AdapterConfig)[:-1]],
        ({"alpha": 1e300}, r"adapter.json: alpha: got 1e[+]300, expected -1e[+]30 <"),
        ({"alpha_pattern": {"q_proj": -1e30}}, r"adapter.json: alpha_pattern\['q_proj'\]: got -1e[+]30"),
        ({"rank_pattern": {"x": 2}}, "adapter.json: rank_pattern: 'x' matches no layer"),
        ({"rank_pattern": [2]}, "adapter.json: rank_pattern"),
        *[({"init": i}, f"adapter.json: init: got '{i}', .*expected one of kaiming, gaussian") for i in STARTS],
        ({"train_head": False}, "adapter.safetensors: unexpected tensor head.weight"),
        ({"kind": "dora"}, "adapter.safetensors: blocks.0.attn.q_proj.lora_magnitude_vector is missing"),
        ({"rate_factors": {"lora_B": -1}}, r"adapter.json: rate_factors\['lora_B'\]: got -1"),
    ],
    "gpt2": [
        ({"model_type": "roberta"}, "model_type: got 'roberta', expected one of gpt2, bert, llama, qwen2"),
        ({"n_embd": "absent"}, "n_embd is missing"),
        ({"n_embd": "12"}, "d_model: got '12'"),
        ({"n_head": 5}, "n_heads: 5 does not divide d_model = 12"),
        ({"n_layer": 10**9}, "n_layer is 1000000000, but the model has only 29 tensors"),
        ({"n_layer": 1}, "unexpected tensor h.1"),
        ({"n_layer": 3}, "h.2.ln_1.weight is missing"),
        ({"n_inner": 10**9}, r"h.0.mlp.c_fc.weight has shape \(12, 20\), expected \(12, 1000000000\)"),
        ({"layer_norm_epsilon": 1e300}, r"layer_norm_eps: got 1e.300, expected 0 < layer_norm_eps < 1"),
        ({"n_inner": None}, r"h.0.mlp.c_fc.weight has shape \(12, 20\), expected \(12, 48\)"),
        ({"id2label": {"0": "a"}}, "id2label is .*, expected 4 distinct class names"),
        ({"id2label": dict(zip("0123", "wxyx"))}, "id2label is .*, expected 4 distinct class names"),
        ({"label2id": {f"class {k}": 3 - k for k in range(4)}}, "label2id is .*, which contradicts id2label"),
        ({"problem_type": "regression"}, "problem_type is 'regression', expected"),
        # tests/oracles has the fields with which transformers computes something else.
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types is .*, expected 'full_attention' in every layer"),
        ({"num_attention_heads": 4}, "num_attention_heads is 4, but n_head is 3; they must be equal"),
        ({"hidden_size": 24}, "hidden_size is 24, but n_embd is 12"),
        ({"max_position_embeddings": 6}, "max_position_embeddings is 6, but n_positions is 7"),
    ],
    "peft": [
        ({"peft_type": "absent"}, "peft_type is missing, expected 'LORA'"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16', which changes the base's weights; in PEFT"),
        ({"rank_pattern": {"c_attn": 4}}, "attn.c_attn: .*: they have rank 9, but the configuration says 4"),
        ({"lora_alpha": "6"}, "the alpha: got '6', expected -1e[+]30 <"),
        ({"lora_alpha": float("nan")}, "the alpha: got nan, expected -1e[+]30 <"),
        ({"rank_pattern": [1]}, r"rank_pattern is \[1\], expected an object"),
        ({"alpha_pattern": {"(c_attn": 1}}, r"alpha_pattern has '\(c_attn', which is not a valid pattern"),
        ({"rank_pattern": {"(" * 5000: 1}}, r"rank_pattern has '\(\(\(.*…, which is not a valid pattern"),
        ({"layers_to_transform": 0, "layers_pattern": "a{9,1}"}, "layers_pattern has 'a.9,1.', which is not a valid"),
        ({"lora_dropout": 1.5}, "dropout: got 1.5"),
        ({"target_modules": 5}, "target_modules is 5, expected a string or a list of strings"),
        ({"target_modules": "(a+)+"}, "transformer.h.0.attn.c_attn: not a target"),
        ({"target_modules": None}, "transformer.h.0.attn.c_proj: not a target"),
        ({"exclude_modules": ["mlp.c_fc"]}, "transformer.h.0.mlp.c_fc: not a target"),
        ({"modules_to_save": ["score", "m.p"]}, "transformer.h.0.mlp.c_fc: not a target"),
        ({"modules_to_save": [3]}, "modules_to_save is .*, expected a string or a list of strings"),
        ({"layers_to_transform": "1"}, "layers_to_transform is '1', expected an integer"),
        ({"rank_pattern": {r"((\w|\.|[a-z])+)+X": 3}}, "rank_pattern has .*X', which takes too long to match"),
        ({"target_modules": r"(.+.+)+\1\d\dX"}, "target_modules has .*X', which takes too long to match"),
    ],
    "dora": [({"use_dora": False}, "c_attn: lora_magnitude_vector is ignored")],
}


CONTENTS = [
    (b"", "not a JSON file"),
    (b'{"d_model": 12', "not a JSON file"),
    (b"d_model = 12", "not a JSON file"),
    (b'{"d_model": "\xff"}', "not a JSON file"),
    (b"[" * 100_000, "not a JSON file"),
    (b'{"n_head": 4, "n_head": 4}', "not a JSON file .repeated name 'n_head'"),
    (b"[1, 2]", "got a JSON list, expected an object"),
    (b"null", "got a JSON NoneType, expected an object"),
    *[(b'{"r": %s}' % n, "not a JSON file .*is too large") for n in (b"1" + 400 * b"0", b"%d" % 2**63, 5000 * b"1")],
]


@every("model", "adapter", "gpt2", "peft")
def test_configurations_that_are_no_json_object(saved):
    for content, message in CONTENTS:
        saved.fields.write_bytes(content)
        with pytest.raises(ValueError, match=f"{saved.fields.name}: .*{message}"):
            saved.read()
    os.truncate(saved.fields, 20 * 10**9)  # without a byte on the disk
    with pytest.raises(ValueError, match=f"{saved.fields.name} is 20.0 GB, expected at most 1.1 GB"):
        saved.read()
    saved.fields.write_bytes(b"{}")
    with pytest.raises(ValueError, match="vocab_size|peft_type|adapter.safetensors: .*has shape"):
        saved.read()


@pytest.mark.parametrize("name", FILES)
def test_tokenizer_files_that_are_too_large(name, tmp_path):
    for file, content in new_files(load_tokenizer(PRETRAINED)).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 20 * 10**9)
    with pytest.raises(ValueError, match=f"{name} is 20.0 GB, expected at most 1.1 GB"):
        load_tokenizer(tmp_path)


@every("model", "adapter", "gpt2", "peft")
def test_unknown_fields_are_saved_again(saved, tmp_path):
    """They are of a later version, or none of ours: without effect, and written again."""
    known = {"gpt2": {"attn_pdrop": 0.1}, "peft": {"revision": "main"}}.get(saved.kind, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit_fields(saved.fields, **known)
        saved.read()
    edit_fields(saved.fields, colour="red")
    with pytest.warns(UserWarning, match=f"{saved.fields.name}: unknown fields colour have no effect"):
        loaded = saved.read()
    saved.save(tmp_path / "again", loaded)
    fields = read_json(tmp_path / "again" / saved.fields.name)
    own = saved.kind in ("model", "adapter")
    assert (fields["extra"] if own else {n: fields[n] for n in ("colour", *known)}) == {"colour": "red"} | known
    if saved.kind == "gpt2":
        assert fields == read_json(saved.fields)


# ------------------------------------------------------------------ tensors

DOWN, LORA_B = "blocks.1.mlp.down_proj.weight", "blocks.1.attn.v_proj.lora_B"
WTE, SCORE = "transformer.wte.weight", "score.weight"
BASE = "base_model.model."
C_ATTN, C_FC, C_PROJ = (f"{BASE}transformer.h.0.{name}" for name in ("attn.c_attn", "mlp.c_fc", "attn.c_proj"))
FC_A, FC_B, FC_M = f"{C_FC}.lora_A.weight", f"{C_FC}.lora_B.weight", f"{C_FC}.lora_magnitude_vector"
NOT_FINITE = "has values that are too large for float32 or not finite"


def exchange(layer):
    """A change: A in B's place and B in A's."""
    a, b = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
    return lambda tensors: tensors | {a: tensors[b], b: tensors[a]}


TENSORS = {
    "model": [
        (put(DOWN, None), f"model.safetensors: {DOWN} is missing"),
        (lambda t: t | {"lm_head.weight": np.ones(2)}, "model.safetensors: unexpected tensor lm_head.weight"),
        (put(DOWN, np.transpose), rf"model.safetensors: {DOWN} has shape \(20, 12\), expected \(12, 20\)"),
        (put(DOWN, lambda a: a.astype(np.int32)), f"model.safetensors: {DOWN} has dtype int32"),
        (put(DOWN, lambda a: np.where(a == a[11, 19], np.nan, a)), f"model.safetensors: {DOWN} {NOT_FINITE}"),
        (put("ln_f.weight", lambda a: np.full(12, 1e300)), f"model.safetensors: ln_f.weight {NOT_FINITE}"),
    ],
    "adapter": [
        (put(LORA_B, None), f"adapter.safetensors: {LORA_B} is missing"),
        (put("head.weight", None), "adapter.safetensors: head.weight is missing"),
        (lambda t: t | {f"{LORA_B}.weight": t[LORA_B]}, f"adapter.safetensors: unexpected tensor {LORA_B}.weight"),
        (put(LORA_B, np.transpose), rf"adapter.safetensors: {LORA_B} has shape \(2, 12\), expected \(12, 2\)"),
        (put(LORA_B, lambda a: np.full(a.shape, 1e300)), f"adapter.safetensors: {LORA_B} {NOT_FINITE}"),
    ],
    "gpt2": [
        (put("transformer.wpe.weight", None), "wpe.weight is missing"),
        (lambda t: t | {"wte.weight": t[WTE]}, "repeated name wte.weight, with and without"),
        (put(WTE, np.transpose), r"wte.weight has shape \(12, 13\)"),
        (put(WTE, lambda a: a * np.inf), f"wte.weight {NOT_FINITE}"),
        (put(SCORE, lambda a: a.astype(np.int32)), "score.weight has dtype int32"),
        (put(SCORE, lambda a: np.float32(1)), r"score.weight has shape \(\), expected"),
        (put(SCORE, lambda a: a[:1]), r"score.weight has shape \(1, 12\), expected \(n_classes ≥ 2"),
        (lambda t: t | {"lora": t[SCORE]}, "unexpected tensor lora"),
    ],
    "peft": [  # tests/test_doctor.py has more; both go by the same report
        (exchange(C_FC), r"c_fc: lora_A \(20, 3\) and lora_B \(3, 12\), .*they look swapped"),
        (exchange(C_PROJ), "they look swapped or they look transposed"),
        (put(FC_A, lambda a: a[0]), r"c_fc: lora_A \(12,\)"),
        (lambda t: t | {f"{C_FC}.bias": np.zeros(3, np.float32)}, "transformer.h.0.mlp.c_fc: "),
        (lambda t: t | {FC_A.removeprefix(BASE): t[FC_A]}, "repeated name .*transformer.h.0"),
        (put(FC_A, lambda a: np.full(a.shape, 1e300)), NOT_FINITE),
        (lambda t: {n: a for n, a in t.items() if "h.0.m" not in n}, "c_fc: a target without tensors"),
        (lambda t: t | {SCORE: np.ones((4, 12), np.float32)}, "repeated name .*score.weight"),
        (put(BASE + SCORE, lambda a: np.float32(1)), r"score: weight \(\), expected"),
        (lambda t: t | {n.replace("transformer.", ""): t[n] for n in (FC_A, FC_B)}, "h.0.mlp.c_fc: the name begins"),
    ],
    "dora": [
        (put(FC_M, lambda a: a[:, None]), r"c_fc: lora_magnitude_vector \(20, 1\), expected \(20,\)"),
        (put(f"{C_ATTN}.lora_magnitude_vector", lambda a: a[:12]), r"lora_magnitude_vector \(12,\), expected \(36,\)"),
        (put(FC_M, lambda a: a * np.nan), NOT_FINITE),
    ],
}


@rows(FIELDS, TENSORS)
def test_what_does_not_fit(saved, change, message, monkeypatch):
    monkeypatch.setattr("lora_np.formats.patterns.SECONDS", 1.0)
    if callable(change):
        edit_tensors(saved.tensors, change)
    else:
        edit_fields(saved.fields, **change)
    with pytest.raises(ValueError, match=message):
        saved.read()


def test_float64_reads_what_float32_cannot_hold(classifier, random_params, tmp_path):
    params = random_params(classifier) | {"ln_f.weight": np.full(12, 1e300)}
    save_model(tmp_path, params, classifier)
    assert load_model(tmp_path, np.float64)[0]["ln_f.weight"][0] == 1e300


@every("model", "adapter", "gpt2", "peft")
def test_missing_files_are_named(saved):
    for path in (saved.fields, saved.tensors):
        path.rename(path.with_suffix(".away"))
        with pytest.raises(FileNotFoundError, match=path.name):
            saved.read()
        path.with_suffix(".away").rename(path)
    shutil.rmtree(saved.fields.parent)
    with pytest.raises(FileNotFoundError, match=saved.fields.parent.name):
        saved.read()


# ------------------------------------------------------------------ files that are not safetensors


FOREIGN = {
    "half": lambda whole: whole[: len(whole) // 2],
    "bytes on top": lambda whole: whole + b"x",
    "header of a gigabyte": lambda whole: struct.pack("<Q", 2**30) + whole[8:],
    "header that is no JSON": lambda whole: whole[:8] + b"!" + whole[9:],
    "offsets that do not fit the shape": lambda whole: pack([Entry("w", "F32", [3], bytes(8))]),
    "float8": lambda whole: pack([Entry("w", "F8_E4M3", [8], bytes(8))]),
    "the same name twice": lambda whole: pack([Entry("w", "F32", [2], bytes(8))] * 2),
    "pickle": lambda whole: b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}


@every("model")
@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_files_are_refused(saved, change):
    """The fuzzer cuts off the files of all formats at every length."""
    edit_fields(saved.fields, n_layers=1)
    saved.tensors.write_bytes(change(saved.tensors.read_bytes()))
    with pytest.raises(ValueError, match="model.safetensors: "):
        saved.read()


def test_pickle_is_never_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(FileNotFoundError, match=r"\(pytorch_model.bin found\); pickle files are never"):
        load_hf(tmp_path)
    with pytest.raises(ValueError, match="expected a file ending in .safetensors"):
        load_hf(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_hf(tmp_path / "nowhere")


# ------------------------------------------------------------------ an index of several files


@every("gpt2")
def test_an_index_that_does_not_hold(saved):
    expected = saved.read().params
    index = shard(saved.fields.parent)
    for path in (index.parent, index):
        params = load_hf(path).params
        assert all(np.array_equal(params[name], expected[name]) for name in expected)
    places = read_json(index)["weight_map"]
    first = next(iter(places))
    for change, message in [
        ({first: "b.safetensors"}, f"unexpected tensor {first}; model.safetensors.index.json lists it in b"),
        ({"ghost": "a.safetensors"}, "ghost is not in a.safetensors"),
        ({first: "c.safetensors"}, "c.safetensors: there is no such file"),
        ({first: 3}, "expected an object that maps tensors to files"),
    ]:
        write_json(index, {"weight_map": places | change})
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            saved.read()
    for broken in ({}, {"weight_map": []}, {"weight_map": {}}):
        write_json(index, broken)
        with pytest.raises(ValueError, match="weight_map is"):
            saved.read()


@every("gpt2")
@pytest.mark.parametrize("place", ["../a", "ABSOLUTE", "sub/a", "..", ".", "LINK", "", "../gpt2/a"])
def test_an_index_stays_in_its_directory(saved, place):
    """What would load there, were it not outside, is refused."""
    folder = saved.fields.parent
    outside = folder.parent / "a.safetensors"
    if place == "LINK":
        if os.name != "posix":
            pytest.skip("links need rights on this system")
        (folder / place).symlink_to(outside)
    shard(folder, (str(outside) if place == "ABSOLUTE" else place.replace("/a", "/a.safetensors"), "b.safetensors"))
    shutil.copy(folder / "a.safetensors", outside)
    with pytest.raises(ValueError, match="model.safetensors.index.json: lists the file '.*', which is not in its dir"):
        saved.read()
