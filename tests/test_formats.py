"""Files of all formats: what is saved comes back, and nothing is half-written."""

import os
import re
import stat
import time
import tracemalloc
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest

from lora_np import formats
from lora_np.adapters import KINDS, AdapterConfig, adapter_deltas, compress, init_adapter
from lora_np.adapters.starts import STARTS
from lora_np.compress import quantise
from lora_np.formats.fused import join_factors, split_factors
from lora_np.formats.patterns import match_patterns
from lora_np.formats.tensors import DTYPES, tensor_bytes
from lora_np.model import cache_bytes, forward, parameter_shapes

from .test_fuzz_formats import BASES, Entry, make_adapter, make_peft, pack
from .tiny import CONFIGS, edit_fields, edit_tensors, random_adapter

CLASSIFIER = CONFIGS["classifier"]


@pytest.fixture
def saved_peft(tmp_path):
    """A PEFT directory of rank 3, the base's parameters and its configuration."""
    make_peft(tmp_path / "peft", base=4)
    return tmp_path / "peft", BASES[4], CLASSIFIER


# ------------------------------------------------------------------ round trips


def assert_same_arrays(got, expected, dtype=np.float32):
    """The same names in the same order, and the same bytes after a conversion to `dtype`."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == dtype and got[name].tobytes() == array.astype(dtype).tobytes(), name
        assert got[name].flags.writeable, name


def rounded(arrays):
    """The numbers that a file of float16 has."""
    return {name: array.astype(np.float16) for name, array in arrays.items()}


MODELS = {  # save, load
    "ours": (formats.save_model, formats.load_model),
    "ours in float16": (partial(formats.save_model, dtype="float16"), formats.load_model),
    "GPT-2": (formats.save_hf, formats.load_hf),
}


OF_GPT2 = ("language", "classifier")  # Hugging Face's files are written for no other architecture


@pytest.mark.parametrize(
    "kind, config", [(k, c) for k in MODELS for c in (CONFIGS if "ours" in k else OF_GPT2)], indirect=["config"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_comes_back(kind, dtype, config, random_params, random_batch, tmp_path):
    """Bit for bit, also where it replaces another, and from transposed views, whose bytes are in another order."""
    save, load = MODELS[kind]
    params, folder = random_params(config, dtype), tmp_path / "a" / "b"
    views = {name: np.asfortranarray(array) for name, array in params.items()}
    save(folder, random_params(config, dtype, seed=7), config)
    save(folder, views, config)
    assert_same_arrays(views, params, dtype)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    half = "float16" in kind
    types = {array.dtype for array in formats.read_tensors(folder / "model.safetensors")[0].values()}
    assert types == {np.dtype("f2") if half else np.dtype(dtype)}
    saved, batch = rounded(params) if half else params, random_batch(config)
    for wanted in (np.float32, np.float64):
        loaded, loaded_config = load(folder, wanted)[:2]
        assert loaded_config == config and list(loaded) == list(parameter_shapes(config)), "in execution order"
        assert_same_arrays(loaded, saved, wanted)
    expected = {name: array.astype(wanted) for name, array in saved.items()}
    logits = [forward(p, batch.ids, config, lengths=batch.lengths)[0] for p in (expected, loaded)]
    assert logits[0].tobytes() == logits[1].tobytes()


def test_every_setting_of_an_adapter_survives(classifier, random_params, tmp_path):
    params = random_params(classifier, np.float32)
    settings = {"r": 2, "alpha": 3.5, "targets": ("blocks.1.*", "q_proj"), "rslora": True, "dropout": 0.05}
    settings |= {"rank_pattern": {"blocks.1.attn.*": 3}, "alpha_pattern": {"q_proj": 0.25}, "init": "gaussian"}
    settings |= {"rate_factors": {"lora_B": 16.0, "lora_A": 0.0}, "norm_gradient": True, "projection_seed": 2**63 - 1}
    settings = AdapterConfig(**settings, train_head=False, kind="dora")
    changed = {f.name for f in fields(settings) if getattr(settings, f.name) != getattr(AdapterConfig(), f.name)}
    assert changed == {f.name for f in fields(settings)} - {"extra"}, "a field that is not tested"
    formats.save_adapter(tmp_path, init_adapter(params, settings, np.random.default_rng(0)))
    assert formats.load_adapter(tmp_path, params).config == settings


PATTERNS = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"blocks.0.*": 3.0}}
OURS = [{"kind": kind, "dropout": 0.1, **PATTERNS} for kind in KINDS if kind != "vera"]
OURS += [{"targets": ()}]
OURS += [{"kind": "vera", "dropout": 0.1, "projection_seed": 5, "rank_pattern": PATTERNS["rank_pattern"]}]
PEFTS = [
    {},
    {"targets": ("q_proj", "v_proj")},
    {"rslora": True, "alpha": 16.0},
    {"rank_pattern": {"up_proj": 5}},
    {"targets": ("q_proj", "k_proj", "v_proj"), "rank_pattern": {"k_proj": 5}, "alpha_pattern": {"k_proj": 10.0}},
    {"targets": ("k_proj",)},
    {"targets": ()},  # a head alone
    {"targets": ("o_proj",), "r": 12},  # all is square: no shape tells A from B
]
PEFTS = [{"kind": kind, **s} for kind in ("lora", "dora") for s in PEFTS]
ADAPTERS = [("ours", False, settings, name) for settings in OURS for name in CONFIGS]
ADAPTERS += [("PEFT", False, settings, name) for settings in PEFTS for name in OF_GPT2]
ADAPTERS += [("ours", True, {"kind": "dora", **PATTERNS}, "classifier"), ("PEFT", True, {}, "classifier")]
ADAPTERS = [  # a head alone is LoRA on a classifier
    case for case in ADAPTERS if case[2].get("targets") != () or "class" in case[3] and case[2].get("kind") != "dora"
]


@pytest.mark.parametrize("form, half, settings, config", ADAPTERS, ids=str, indirect=["config"])
def test_an_adapter_comes_back(form, half, settings, config, random_params, tmp_path):
    """The same arrays, in the base's dtype, and so the same logits."""
    params = random_params(config, np.float32)
    adapter = random_adapter(params, train_head=bool(config.n_classes), **settings)
    if half:
        weights = {name: array.astype(np.float32) for name, array in rounded(adapter.weights).items()}
        adapter = adapter._replace(weights=weights)
    if form == "ours":
        formats.save_adapter(tmp_path, adapter, "float16" if half else None)
        names, load = ["adapter.json", "adapter.safetensors"], formats.load_adapter
    else:
        formats.save_peft(tmp_path, adapter, params, config)
        names = ["adapter_config.json", "adapter_model.safetensors"]
        load = partial(formats.load_peft, config=config)
        edit_tensors(tmp_path / names[1], rounded if half else dict)
    assert sorted(os.listdir(tmp_path)) == names
    loaded = load(tmp_path, params)
    assert loaded.config == adapter.config or form == "PEFT" and loaded.config.kind == adapter.config.kind
    assert ("head.weight" in loaded.weights) == bool(config.n_classes), "the trained head is part of the adapter"
    assert_same_arrays(loaded.weights, adapter.weights)
    wide = load(tmp_path, {name: array.astype(np.float64) for name, array in params.items()})
    assert_same_arrays(wide.weights, adapter.weights, np.float64)
    assert_same_arrays(adapter_deltas(params, loaded), adapter_deltas(params, adapter))
    ids = np.random.default_rng(0).integers(0, 13, (2, 5))
    logits = [forward(params, ids, config, adapter=a)[0] for a in (adapter, loaded, None)]
    assert logits[0].tobytes() == logits[1].tobytes()
    assert (logits[0].tobytes() != logits[2].tobytes()) == bool(adapter.weights)


def test_an_adapter_without_a_task_is_not_put_on_a_model(tmp_path):
    make_adapter(tmp_path)
    with pytest.raises(ValueError, match="got no task.json, expected an adapter that finetune"):
        formats.attach_adapter(tmp_path, None)


AWKWARD = {
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "column-major": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "every second": np.arange(20, dtype=np.float32)[::2],
    "backwards": np.arange(5, dtype=np.float32)[::-1],
    "broadcast": np.broadcast_to(np.float32([1, 2, 3]), (4, 3)),
    "heads": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 0, 2),
    "big-endian": np.arange(4, dtype=">f4"),
    "scalar": np.array(1.5),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "int64": np.array([[-1], [2**40]]),
    "bool": np.array([True, False]),
    "float16": np.array([0.1, -65504], dtype=np.float16),
    "special": np.array([np.nan, np.inf, -0.0, 5e-324]),
}


def test_the_bytes_are_those_of_the_library_and_come_back(tmp_path):
    from safetensors.numpy import save

    arrays = {**AWKWARD, **{kind: np.arange(3).astype(kind) for kind in DTYPES.values()}, "näme/ x.y": np.ones(2)}
    metadata = {"näme": 'ümläut "quoted"\n'}  # one field: the library has no order of them
    plain = {name: a.astype(a.dtype.newbyteorder("="), order="C") for name, a in arrays.items()}
    assert tensor_bytes(arrays, metadata) == save(plain, metadata)
    formats.write_tensors(tmp_path / "t", arrays, metadata)
    loaded, its_metadata = formats.read_tensors(tmp_path / "t")
    assert its_metadata == metadata and loaded.keys() == arrays.keys()
    for name, array in plain.items():
        assert loaded[name].shape == array.shape and loaded[name].dtype == array.dtype, name
        assert np.ascontiguousarray(loaded[name]).tobytes() == array.tobytes(), name
    formats.write_tensors(tmp_path / "t", {})
    assert formats.read_tensors(tmp_path / "t") == ({}, {})


def test_large_arrays_are_not_copied(tmp_path):
    array = np.ones(10**6)
    tracemalloc.start()
    try:
        formats.write_tensors(tmp_path / "t", {"a": array})
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_json_round_trips(tmp_path):
    value = {"ä": [1, -2.5e-7, 3], "nested": {"α": [[1], []]}, "mixed": [1, None, "[\n1,\n2\n]"]}
    formats.write_json(tmp_path / "v.json", value)
    assert formats.read_json(tmp_path / "v.json") == value
    text = (tmp_path / "v.json").read_text("utf-8")
    assert text.endswith("}\n") and '\n  "ä": [1, -2.5e-07, 3],\n' in text, "readable, letters too"


def test_the_files_can_be_read_by_the_group(tmp_path):
    """A temporary file is private; what it becomes has the mode that any new file has."""
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    formats.write_json(tmp_path / "v.json", 1)
    assert stat.S_IMODE((tmp_path / "v.json").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


# ------------------------------------------------------------------ nothing is half-written; see also test_saving.py


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """A rename that overtakes its data leaves an empty file when the power fails."""
    path, events, rename = tmp_path / "v.json", [], os.replace

    def flush(descriptor):
        events.append(("flush", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def note(source, target):
        events.append(("rename", os.stat(source).st_ino, os.stat(source).st_size))
        assert tmp_path in source.parents, "a rename is in one piece within a file system alone"
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", note)
    formats.write_json(path, "whole")
    file = (path.stat().st_ino, len('"whole"\n'))
    assert events == [("flush", *file), ("rename", *file)]


BASE, ADAPTER = BASES[4], random_adapter(BASES[4])
UP = "blocks.1.mlp.up_proj"
QUANTISED, LARGE = quantise(BASE, [f"{UP}.weight"], "int8"), BASE | {"ln_f.weight": np.full(12, 1e5, np.float32)}
FOREIGN = [random_adapter(BASE, kind=kind) for kind in ("vera", "adalora")]
NAN = ADAPTER._replace(weights=ADAPTER.weights | {f"{UP}.lora_B": np.full((20, 3), np.nan)})


def started(init):
    """An adapter that needs a base of its own: on the base as it was given it would be another model."""
    return ADAPTER._replace(config=replace(ADAPTER.config, init=init))


UNSAVED = [  # what the error says, and what raises it: a function, and its arguments after a path
    ("ln_f.weight", formats.save_model, LARGE, CLASSIFIER, "float16"),
    (f"params: {UP}.weight is a .*, expected an array; dequantise", formats.save_model, QUANTISED, CLASSIFIER),
    ("lora_B has values", formats.save_adapter, NAN),
    ("not JSON serializable", formats.write_json, {"a": object()}),
    ("dtype|type", formats.write_tensors, {"a": np.array([object()])}),
    *[(f"init: got '{i}', .*expected one of kaiming, .*for_orig", formats.save_adapter, started(i)) for i in STARTS],
    *[(f"init: got '{i}', .*expected", formats.save_peft, started(i), BASE, CLASSIFIER) for i in STARTS],
    *[(f"adapter: got kind '{a.config.kind}'.* --to merged", formats.save_peft, a, BASE, CLASSIFIER) for a in FOREIGN],
]


@pytest.mark.parametrize("message, save, arguments", [(says, save, rest) for says, save, *rest in UNSAVED])
def test_what_cannot_be_saved_is_refused_and_leaves_what_is_there(message, save, arguments, tmp_path):
    out = tmp_path / "out"
    for exists in (False, True):
        if exists and save in (formats.write_json, formats.write_tensors):
            out.write_bytes(b"old")
        elif exists:
            formats.save_adapter(out, ADAPTER)
        before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        with pytest.raises((TypeError, ValueError), match=message):
            save(out, *arguments)
        assert before == {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}


# ------------------------------------------------------------------ GPT-2 and PEFT; tests/oracles has those libraries


def test_a_file_or_its_folder(classifier, random_params, tmp_path):
    """And the labels of a classifier, which have names if they are not given."""
    params = random_params(classifier, np.float32)
    for labels in (None, list("wxyz")):
        formats.save_hf(tmp_path, params, classifier, labels=labels)
        for path in (tmp_path, tmp_path / "model.safetensors"):
            back = formats.load_hf(path)
            assert back.labels == (labels or [f"LABEL_{k}" for k in range(4)])
            assert_same_arrays(back.params, params)


def test_a_head_that_is_not_tied(language, random_params, tmp_path):
    params, path = random_params(language, np.float32), tmp_path / "model.safetensors"
    formats.save_hf(tmp_path, params, language)
    edit_tensors(path, lambda t: t | {"lm_head.weight": params["tok_emb.weight"]})
    assert_same_arrays(formats.load_hf(tmp_path).params, params)
    edit_tensors(path, lambda t: t | {"lm_head.weight": 2 * params["tok_emb.weight"]})
    with pytest.raises(ValueError, match="lm_head.weight differs from wte.weight; expected a head tied to the emb"):
        formats.load_hf(tmp_path)
    edit_tensors(path, lambda t: {name: array for name, array in t.items() if name != "lm_head.weight"})
    edit_fields(tmp_path / "config.json", tie_word_embeddings=False)
    with pytest.raises(ValueError, match="lm_head.weight|tie_word_embeddings"):
        formats.load_hf(tmp_path)


def test_bfloat16_is_read_to_the_last_bit(tmp_path):
    """Every one of the 65,536 patterns, as float32's upper half."""
    bits, path = np.arange(2**16, dtype="<u2"), tmp_path / "bf16.safetensors"
    path.write_bytes(pack([Entry("w", "BF16", [2**16], bits.tobytes())]))
    expected = np.stack([np.zeros_like(bits), bits], axis=1).view("<f4")[:, 0]
    loaded = formats.read_tensors(path)[0]["w"]
    assert loaded.dtype == np.float32 and loaded.tobytes() == expected.tobytes()


NO_HEAD = {"modules_to_save": None, "task_type": None}


@pytest.mark.parametrize("kind, targets", [("lora", ("q_proj",)), ("dora", ("q_proj", "v_proj", "up_proj"))])
def test_our_own_names_are_read_too(kind, targets, saved_peft):
    """PEFT on a port of this model that kept its names."""
    folder, params, config = saved_peft
    adapter = random_adapter(params, kind=kind, targets=targets, train_head=False)
    suffix = {"lora_magnitude_vector": ""}
    tensors = {
        f"base_model.model.{n}{suffix.get(n.rpartition('.')[2], '.weight')}": a for n, a in adapter.weights.items()
    }
    formats.write_tensors(folder / "adapter_model.safetensors", tensors)
    changes = {"rank_pattern": {}, "alpha_pattern": {}, "r": 3, "lora_alpha": 6, "use_dora": kind == "dora", **NO_HEAD}
    edit_fields(folder / "adapter_config.json", target_modules=list(targets), **changes)
    back = formats.load_peft(folder, params, config)
    assert (back.config.kind, back.config.targets, back.config.r) == (kind, targets, 3)
    assert_same_arrays(back.weights, adapter.weights)


def test_targets_that_are_not_named(saved_peft):
    """The oracle tests have all that PEFT itself writes."""
    folder, params, config = saved_peft
    edit_tensors(folder / "adapter_model.safetensors", lambda t: {n: a for n, a in t.items() if "c_attn" in n})
    edit_fields(folder / "adapter_config.json", target_modules=["c_attn"], **NO_HEAD)
    expected = formats.load_peft(folder, params, config).weights
    for changes in ({"layers_to_transform": []}, {"target_modules": None}, {"target_modules": "absent"}):
        edit_fields(folder / "adapter_config.json", **changes)
        assert_same_arrays(formats.load_peft(folder, params, config).weights, expected)
    # Nor do all of PEFT's default targets have to be in the file: without tensors, B stays zero.
    edit_tensors(folder / "adapter_model.safetensors", lambda t: {n: a for n, a in t.items() if ".h.0." in n})
    first = {name: array for name, array in expected.items() if ".0." in name}
    assert_same_arrays(formats.load_peft(folder, params, config).weights, first)


IGNORED = [  # what is changed in the names of the file and in its fields, and what PEFT would ignore then
    ({"base_model.model.transformer.h.1": "transformer.h.1"}, {}, "ignore transformer.h.1.attn.c_attn.lora_A.weight, "),
    ({"base_model.model.score": "score"}, {}, "ignore score.weight; expected the prefix 'base_model.model.'"),
    ({"score": "classifier"}, {}, "ignore base_model.model.classifier.weight; "),
    ({}, {"task_type": None, "modules_to_save": None}, "ignore base_model.model.score.weight; .*modules_to_save"),
]


@pytest.mark.parametrize("names, changes, message", IGNORED)
def test_what_peft_would_ignore_is_said(names, changes, message, saved_peft):
    folder, params, config = saved_peft
    expected = formats.load_peft(folder, params, config).weights
    (old, new), *_ = [*names.items(), ("", "")]
    edit_tensors(folder / "adapter_model.safetensors", lambda t: {n.replace(old, new): a for n, a in t.items()})
    edit_fields(folder / "adapter_config.json", **changes)
    with pytest.warns(UserWarning, match=message):
        assert_same_arrays(formats.load_peft(folder, params, config).weights, expected)


NAMES = [f"transformer.h.{i}.{layer}" for i in range(12) for layer in ("attn.c_attn", "mlp.c_fc", "mlp.c_proj")]
EXPRESSIONS = [
    "c_attn", r"h\.1\.mlp.c_fc", ".*", "(?:.*)c_(fc|attn)", "(?i).*C_FC", r".*\.(?=mlp).*", r".*(1)\1.*", "|",
    r"(?<!mlp\.)c_proj", r".*h\.(?!1)\d+\..{4}\.(c_(?:fc|proj))", "[^m]{5,}(mlp)?.*", "((((.)*)))", "x" * 10_000, "é",
]  # fmt: skip


@pytest.mark.parametrize("how", ["match", "fullmatch"])
@pytest.mark.parametrize("patterns", [EXPRESSIONS, EXPRESSIONS[:2]], ids=["in a child process", "literals, here"])
def test_patterns_match_as_pythons_do(patterns, how):
    keys = [(p, *(("", "") if p.startswith("(?i)") else (r"(.*\.)?(", ")$")), how) for p in patterns]
    for (pattern, before, after, _), found in zip(keys, match_patterns(keys, NAMES), strict=True):
        assert list(found) == [name for name in NAMES if getattr(re, how)(before + pattern + after, name)], pattern


def test_many_patterns_do_not_take_long(saved_peft):
    folder, params, config = saved_peft
    edit_fields(folder / "adapter_config.json", alpha_pattern={f"c_{i}": 1 for i in range(5000)})
    started = time.monotonic()
    formats.load_peft(folder, params, config)
    assert time.monotonic() - started < 4


WEIGHTS = [np.zeros((4, 5))] * 3  # of q, k and v: only their shapes matter here


@pytest.mark.parametrize("seed", range(60))
def test_a_fused_adapter_is_taken_apart_and_joined_again(seed):
    """To the same arrays, whichever columns of B reach which layers, in whatever order, or none.

    A column of zeros belongs to no layer by its numbers, and goes with the one before it, or with the first.
    """
    rng = np.random.default_rng(seed)
    r = int(rng.integers(1, 7))
    owners = rng.integers(-1, 3, r)  # a layer for each column of B, or none
    owners = np.sort(owners) if seed % 4 == 0 else owners
    reaches = rng.random((3, r)) < 0.8 if seed % 4 == 1 else owners == np.arange(3)[:, None]
    lora_A, lora_B = rng.standard_normal((r, 5)), rng.standard_normal((12, r)) * np.repeat(reaches, 4, axis=0)
    split = split_factors({"lora_A": lora_A, "lora_B": lora_B}, list("qkv"))
    known = owners[owners >= 0]
    if seed % 4 != 1 and known.size and (np.diff(known) >= 0).all():
        filled = known[np.maximum(np.cumsum(owners >= 0) - 1, 0)]
        ranks = [len(split[name]["lora_A"]) if name in split else 0 for name in "qkv"]
        assert ranks == np.bincount(filled, minlength=3).tolist()
    for i, name in enumerate("qkv"):
        update = split[name]["lora_B"] @ split[name]["lora_A"] if name in split else np.zeros((4, 5))
        np.testing.assert_allclose(update, lora_B[4 * i : 4 * i + 4] @ lora_A, rtol=0, atol=1e-15)
    joined, scale = join_factors([(split[name], 2.0) if name in split else None for name in "qkv"], WEIGHTS)
    assert np.array_equal(joined["lora_A"], lora_A) and np.array_equal(joined["lora_B"], lora_B) and scale == 2.0


def test_a_fresh_adapter_goes_across_at_any_rank(language, random_params, tmp_path):
    """B = 0, and three times r is more than the layer's width: the same function, nothing."""
    params = random_params(language, np.float32)
    config = AdapterConfig(r=5, targets=("q_proj", "k_proj", "v_proj"), train_head=False)
    formats.save_peft(tmp_path, init_adapter(params, config, np.random.default_rng(0)), params, language)
    loaded = formats.load_peft(tmp_path, params, language)
    assert loaded.config.r == 15 and loaded.config.targets == config.targets
    assert not any(delta.any() for delta in adapter_deltas(params, loaded).values())


@pytest.mark.parametrize("kind", ["vera", "adalora", "qalora"])
def test_an_adapter_of_another_kind_is_written_as_lora(kind, tmp_path):
    """PEFT's VeRA takes its factors from another generator, and its AdaLoRA divides by r + 1e-5.

    Compressed at its own rank, as the message says, nothing is lost. QA-LoRA, which needs a base in GPTQ's format
    there, is written as LoRA at once.
    """
    params = BASES[4]
    adapter = random_adapter(params, kind=kind)
    cut = adapter if kind == "qalora" else compress(params, adapter, adapter.config.r).adapter
    formats.save_peft(tmp_path, cut, params, CLASSIFIER)
    loaded = formats.load_peft(tmp_path, params, CLASSIFIER)
    assert loaded.config.kind == "lora" and loaded.config.r == adapter.config.r
    deltas = adapter_deltas(params, loaded)
    for name, delta in adapter_deltas(params, adapter).items():
        np.testing.assert_allclose(deltas[name], delta, rtol=0, atol=1e-5 * np.abs(delta).max())


def test_lengths_that_were_trained_alone(classifier, random_params, tmp_path):
    """B of q is zero, and so are its components; its lengths are not its base's: it is a layer all the same."""
    folder, params = tmp_path / "dora", random_params(classifier, np.float32)
    adapter = random_adapter(params, kind="dora", targets=("q_proj", "v_proj", "up_proj"))
    zero = {name: np.zeros_like(a) for name, a in adapter.weights.items() if name.endswith("q_proj.lora_B")}
    adapter = adapter._replace(weights=adapter.weights | zero)
    formats.save_peft(folder, adapter, params, classifier)
    back = formats.load_peft(folder, params, classifier)
    expected, loaded = adapter_deltas(params, adapter), adapter_deltas(params, back)
    for name, delta in expected.items():
        np.testing.assert_allclose(loaded[name], delta, rtol=0, atol=1e-6)
    assert np.abs(loaded["blocks.0.attn.k_proj.weight"]).max() < 1e-6
    formats.save_peft(tmp_path / "again", back, params, classifier)
    first, again = (formats.read_tensors(f / "adapter_model.safetensors")[0] for f in (folder, tmp_path / "again"))
    assert all(again[name].tobytes() == array.tobytes() for name, array in first.items())


# ------------------------------------------------------------------ the model that ships


def test_the_shipped_model_and_adapters_load():
    params, config = formats.load_pretrained()
    assert list(params) == list(parameter_shapes(config))
    assert {array.dtype for array in params.values()} == {np.dtype(np.float32)}
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, config.n_positions))
    logits, _ = forward(params, ids, config)
    assert np.isfinite(logits).all() and config.n_classes == 0
    tasks = [formats.load_task(name) for name in formats.shipped_adapters()]
    assert tasks and all(task.labels is None and task.adapter for task in tasks)


def test_what_a_pass_holds_of_a_model_from_a_file(language, random_params, tmp_path):
    """The memory of arrays from a file is no array."""
    formats.save_model(tmp_path / "model", random_params(language, np.float32), language)
    params, config = formats.load_model(tmp_path / "model")
    _, cache = forward(params, np.zeros((2, 3), dtype=int), config, wanted=tuple(params))
    assert cache_bytes(cache) > 0
