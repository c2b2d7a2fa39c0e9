"""GGUF files of ours: what is in them; `oracles/test_llama_cpp.py` runs them in llama.cpp."""

import numpy as np
import pytest

from lora_np.adapters import adapter_deltas, merge
from lora_np.cli import main
from lora_np.compress import quantise_q8_0
from lora_np.data import gguf_tokenizer_files, gguf_vocabulary, load_tokenizer
from lora_np.data.gguf_tokenizer import PATTERNS
from lora_np.formats import (
    PRETRAINED,
    load_gguf_adapter,
    load_pretrained,
    read_model,
    save_gguf,
    save_gguf_adapter,
    save_task,
)
from lora_np.formats.gguf import read_gguf
from lora_np.formats.model import fingerprint

from .adapter_files import linear_names
from .chat_templates import metadata
from .llama_files import in_gguf_order, small_llama, written_gguf
from .test_gguf import Q4_1, Q8_0
from .tiny import random_adapter, random_params, same_bits, tiny_config

SETTINGS = {  # with ranks and alphas that differ from layer to layer
    "lora": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"o_proj": 3.0, "blocks.1.*": 7.0}},
    "rslora": {"rslora": True, "rank_pattern": {"up_proj": 2, "k_proj": 5}},
    "some scales are 0": {"alpha_pattern": {"q_proj": 0.0, "blocks.0.*": 0.0}},
    "q and v": {"targets": ("q_proj", "v_proj")},
    "qalora": {"kind": "qalora"},
}


@pytest.fixture
def models():
    """Weights and configurations of a Llama and of a GPT-2."""
    llama, gpt2 = small_llama(rms_norm_eps=2.0**-10), tiny_config()  # a file has eps as a float32
    return {"llama": (random_params(llama, np.float32), llama), "gpt2": (random_params(gpt2, np.float32), gpt2)}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", SETTINGS)
def test_an_adapters_file_has_its_update(name, kind, models, tmp_path):
    """As llama.cpp computes it: alpha / r from the shape of B, times B A, for the rows of the base's file."""
    params, config = models[kind]
    adapter = random_adapter(params, **SETTINGS[name], train_head=False)
    save_gguf_adapter(tmp_path / "a.gguf", adapter, params, config, {"note": "ä"})
    fields, tensors = read_gguf(tmp_path / "a.gguf")
    assert fields["general.architecture"] == kind and fields["note"] == "ä"
    deltas = adapter_deltas(params, adapter)
    back = adapter_deltas(params, load_gguf_adapter(tmp_path / "a.gguf", params, config))
    assert back.keys() <= deltas.keys()
    for layer, delta in deltas.items():
        np.testing.assert_allclose(back.get(layer, np.zeros_like(delta)), delta, rtol=1e-5, atol=1e-6)
    for layer, ours in linear_names(params, "gguf").items():
        updates = [deltas.get(f"{n}.weight", np.zeros(params[f"{n}.weight"].shape, np.float32)) for n in ours]
        pair = [tensors.pop(f"{layer}.weight.lora_{x}", None) for x in "ab"]
        if pair[0] is None:
            assert not any(update.any() for update in updates)
            continue
        A, B = pair
        got = fields["adapter.lora.alpha"] / B.shape[1] * (B @ A)
        expected = in_gguf_order(layer if kind == "llama" else "", np.concatenate(updates), 6)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert not tensors


@pytest.mark.parametrize("format", ["f32", "f16", "q8_0", "q4_1"])
def test_a_model_is_read_back(format, models, tmp_path):
    params, config = models["llama"]
    save_gguf(tmp_path / "model.gguf", params, config, metadata(), format)
    task = read_model(tmp_path / "model.gguf", weights="blocks")
    assert task.config == config and task.files == gguf_tokenizer_files(metadata())
    if format == "f32":
        assert same_bits(task.params, params)
    formats = {name: getattr(weight, "format", weight.dtype) for name, weight in task.params.items()}
    wide, narrow = "blocks.0.attn.v_proj.weight", "blocks.0.attn.o_proj.weight"  # rows of 96 and of 36
    table = {"q4_1": "q8_0"}.get(format, format)
    for name, expected in {"tok_emb.weight": table, wide: format, narrow: "f16" if "q" in format else format}.items():
        if expected in ("q8_0", "q4_1"):
            assert formats[name] == expected
        digits = {"f32": 0.0, "f16": 1e-3, "q8_0": 0.02, "q4_1": 0.2}[expected]
        np.testing.assert_allclose(np.asarray(task.params[name]), params[name], rtol=0, atol=digits)


@pytest.mark.parametrize("matrices, format", [(Q4_1, "q4_1"), (Q8_0, "q8_0")])
def test_blocks_keep_their_bytes(matrices, format, tmp_path, run):
    """Of a model; and with an adapter merged, of the layers that it does not change."""
    written_gguf(tmp_path / "base.gguf", matrices=matrices)
    run("export", tmp_path / "base.gguf", "--to", "gguf", "--format", format, "--out", tmp_path / "again.gguf")
    task = read_model(tmp_path / "base.gguf", weights="blocks")
    adapter = random_adapter(task.params, targets=("v_proj",), train_head=False)
    save_task(tmp_path / "task", task._replace(adapter=adapter), tmp_path / "base.gguf", {"labels": None})
    run("export", tmp_path / "task", "--to", "gguf-merged", "--format", format, "--out", tmp_path / "merged.gguf")
    base, again, merged = (read_gguf(tmp_path / f"{name}.gguf")[1] for name in ("base", "again", "merged"))
    for name, weight in base.items():
        if getattr(weight, "format", None) == format:
            assert np.array_equal(weight.blocks, again[name].blocks)
            assert np.array_equal(weight.blocks, merged[name].blocks) == (".attn_v." not in name)
    run("export", tmp_path / "task", "--to", "gguf-merged", "--out", tmp_path / "f32.gguf")
    expected = merge(read_model(tmp_path / "base.gguf").params, adapter)
    assert same_bits(read_model(tmp_path / "f32.gguf").params, expected)


def test_an_update_that_rounding_swallows_is_told(tmp_path, run, capsys):
    """Codes are in the middle of a rounding interval. In another format than the base's, W + ΔW is rounded once."""
    params, config = written_gguf(tmp_path / "whole.gguf")
    run("export", tmp_path / "whole.gguf", "--to", "gguf", "--format", "q4_1", "--out", tmp_path / "base.gguf")
    task = read_model(tmp_path / "base.gguf", weights="blocks")
    assert task.params["tok_emb.weight"].format == "q8_0"
    for kind, format, is_lost in [("lora", "q4_1", True), ("lora", "q8_0", False), ("qalora", "q4_1", False)]:
        adapter = random_adapter(task.params, kind=kind, targets=("v_proj",), alpha=0.2, train_head=False)
        save_task(tmp_path / "task", task._replace(adapter=adapter), tmp_path / "base.gguf", {"labels": None})
        out = tmp_path / f"{kind}_{format}.gguf"
        arguments = ["export", tmp_path / "task", "--to", "gguf-merged", "--format", format, "--out", out]
        assert main([str(argument) for argument in arguments]) == 0
        assert ("of the adapter's update is left" in capsys.readouterr().err) == is_lost
        if format == "q8_0":
            expected = merge(task.params, adapter)["blocks.0.attn.v_proj.weight"]
            got = read_model(out, weights="blocks").params["blocks.0.attn.v_proj.weight"]
            assert np.array_equal(got.blocks, quantise_q8_0(expected).blocks)


def test_exports_say_what_they_were_trained_on(tmp_path, run):
    run("export", "licences", "--to", "gguf", "--out", tmp_path / "a.gguf")
    fields, tensors = read_gguf(tmp_path / "a.gguf")
    assert fields["lora_np.base_sha256"] == fingerprint(load_pretrained()[0]) and len(tensors) == 16


@pytest.mark.parametrize("pre", PATTERNS)
def test_the_name_of_a_splitting_is_found(pre):
    """Also of another tokenizer's vocabulary: tokens of digits and spaces tell the splittings apart."""
    fields = metadata()
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    more = ["1 2", "12 3", "123 4", "Ġ 1", "Ġ Ġ", "ĠĠ Ġ", "Ġ '", "' s", "Ġ A"]
    tokens = [*tokens, *(m.replace(" ", "") for m in more if m.replace(" ", "") not in tokens)]
    types = [*fields["tokenizer.ggml.token_type"], *[1] * (len(tokens) - len(fields["tokenizer.ggml.tokens"]))]
    fields = fields | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    fields |= {"tokenizer.ggml.merges": [*merges, *(m for m in more if m not in merges)], "tokenizer.ggml.pre": pre}
    files = gguf_tokenizer_files(fields)
    tokenizer = load_tokenizer("a.gguf", {"vocab_size": 400}, files)
    ids = {f"{name}_token_id": fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    found, is_plain = gguf_vocabulary(tokenizer, files, {name: i for name, i in ids.items() if i is not None}, 400)
    assert is_plain and PATTERNS[found["tokenizer.ggml.pre"]] == PATTERNS[pre]
    assert found["tokenizer.ggml.tokens"][: len(tokens)] == tokens
    assert found["tokenizer.ggml.token_type"][len(tokens) :] == [5] * (400 - len(tokens))  # there are no such


def test_ids_of_the_first_token_that_disagree():
    task = read_model(PRETRAINED)
    with pytest.raises(ValueError, match="adds the token 0 before each text, but bos_token_id is 5; in a GGUF"):
        gguf_vocabulary(task.tokenizer, task.files, {"bos_token_id": 5, "eos_token_id": 6}, 8000)


REFUSED = [  # export's arguments, and what it says
    (["classes", "--to", "gguf", "--out", "a.gguf"], "trained head.*--as-words"),
    (["classes", "--to", "gguf-merged", "--out", "a.gguf"], "expected a language model.*--as-words"),
    (["dora", "--to", "gguf", "--out", "a.gguf"], "kind 'dora', expected 'lora'.*gguf-merged"),
    (["dora", "--to", "gguf-merged", "--out", "a"], "expected a file that ends in .gguf"),
    (["dora", "--to", "merged", "--format", "f16", "--out", "a"], "format: .*--to gguf"),
]


def test_what_llama_cpp_has_not_is_refused(tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = read_model(PRETRAINED)
    dora = random_adapter(task.params, kind="dora", targets=("v_proj",))
    save_task("dora", task._replace(adapter=dora), PRETRAINED, {"labels": None})
    params = {**task.params, "head.weight": np.zeros((2, 256), np.float32)}
    adapter = random_adapter(params, targets=("v_proj",))
    save_task("classes", task._replace(adapter=adapter, labels=["a", "b"]), PRETRAINED, {})
    for arguments, says in REFUSED:
        fails("export", *arguments, says=says.split(".*"))
    assert not (tmp_path / "a").exists() and not (tmp_path / "a.gguf").exists()
