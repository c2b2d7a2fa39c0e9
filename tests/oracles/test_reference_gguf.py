"""The reference cases of blocks and of GGUF files against llama.cpp's own package for them, `gguf`."""

import numpy as np
import pytest

from lora_np.reference import load_case, load_manifest

gguf = pytest.importorskip("gguf")

pytestmark = pytest.mark.oracle

ENTRIES, FOLDER = load_manifest()
OURS = {"token_embd": "tok_emb", "output_norm": "norm_f", "attn_norm": "norm1", "ffn_norm": "norm2"}
OURS |= {"attn_output": "attn.o_proj", **{f"attn_{x}": f"attn.{x}_proj" for x in "qkv"}}
OURS |= {f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")}


def read(id, name, tmp_path):
    """The case, and its file as `gguf` reads it."""
    reference = load_case(ENTRIES[id], "float64", FOLDER)
    (tmp_path / name).write_bytes(reference[name].tobytes())
    return reference, gguf.GGUFReader(tmp_path / name)


def our_name(theirs):
    *block, part, _ = theirs.split(".")
    return f"blocks.{block[1]}.{OURS[part]}" if block else OURS[part]


def in_order(rows, n_heads):
    """Rows of q and k as Hugging Face has them: the way back from the permutation of convert_hf_to_gguf.py."""
    return rows.reshape(n_heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize("id", [id for id, entry in ENTRIES.items() if entry["kind"] == "blocks"])
def test_blocks(id):
    reference, form = load_case(ENTRIES[id], "float32", FOLDER), ENTRIES[id]["settings"]["format"].upper()
    kind = gguf.GGMLQuantizationType[form]
    packed = gguf.quants.quantize(reference["weight"], kind)
    assert np.array_equal(packed, reference["packed"])
    assert np.array_equal(gguf.quants.dequantize(packed, kind), reference["dequantised"])
    assert np.array_equal(gguf.quants.dequantize(reference["blocks"], kind), reference["expanded"])


def test_a_model(tmp_path):
    reference, file = read("gguf-read", "model.gguf", tmp_path)
    heads = {x: int(file.fields[f"llama.attention.{name}"].contents()) for x, name in
             (("q", "head_count"), ("k", "head_count_kv"))}  # fmt: skip
    found = {"model.gguf": reference["model.gguf"]}
    for tensor in file.tensors:
        weight, name = gguf.quants.dequantize(tensor.data, tensor.tensor_type), our_name(tensor.name)
        turned = name[-6:] in ("q_proj", "k_proj")
        found[f"{name}.weight"] = in_order(weight, heads[name[-6]]) if turned else weight
    assert found.keys() == reference.keys()
    assert all(np.array_equal(found[name], reference[name]) for name in found)


def test_an_adapter(tmp_path):
    """What llama.cpp adds to a weight, (alpha / r) B A, is s B A in GGUF's order of rows; with rsLoRA s is α/√r."""
    reference, file = read("gguf-adapter", "adapter.gguf", tmp_path)
    settings, alpha = ENTRIES["gguf-adapter"]["settings"], file.fields["adapter.lora.alpha"].contents()
    arrays, layers = {tensor.name: tensor.data for tensor in file.tensors}, {}
    for theirs in {name.rpartition(".")[0] for name in arrays}:
        A, B = arrays[f"{theirs}.lora_a"], arrays[f"{theirs}.lora_b"]
        name, delta = our_name(theirs), alpha / len(A) * B @ A
        head = {"q_proj": "n_heads", "k_proj": "n_kv_heads"}.get(name.rpartition(".")[2])
        layers[name] = in_order(delta, settings["model"][head]) if head else delta
    assert layers.keys() == settings["adapter"]["layers"].keys()
    for name, delta in layers.items():
        of = settings["adapter"]["layers"][name]
        right = of["alpha"] / np.sqrt(of["r"]) * reference[f"{name}.lora_B"] @ reference[f"{name}.lora_A"]
        assert np.abs(delta - right).max() < 1e-6 * np.abs(right).max(), name
