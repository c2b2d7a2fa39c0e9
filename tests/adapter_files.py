"""Adapters of tiny models as PEFT's folders and as GGUF files, written without these libraries."""

import numpy as np

from lora_np.adapters.dora import MAGNITUDE, row_norms
from lora_np.formats import write_json, write_tensors

from .llama_files import in_gguf_order, theirs, typed
from .test_gguf import F32, container

BASE = "base_model.model."
R, ALPHA = 4, 8.0


GPT2 = {f"attn.{x}_proj": ("attn.c_attn", "attn_qkv") for x in "qkv"} | {  # our layer: Hugging Face's, GGUF's
    "attn.o_proj": ("attn.c_proj", "attn_output"),
    "mlp.up_proj": ("mlp.c_fc", "ffn_up"),
    "mlp.down_proj": ("mlp.c_proj", "ffn_down"),
}


def linear_names(params, file):
    """{linear layer in a file of Hugging Face ("hf") or in a GGUF file ("gguf"): our layers in it}."""
    names = {}
    for layer in [name.removesuffix(".weight") for name in params if name.endswith("_proj.weight")]:
        _, i, end = layer.split(".", 2)
        if "blocks.0.mlp.gate_proj.weight" in params:
            name = theirs(f"{layer}.weight", file).removesuffix(".weight")
        else:
            name = f"transformer.h.{i}.{GPT2[end][0]}" if file == "hf" else f"blk.{i}.{GPT2[end][1]}"
        names.setdefault(name, []).append(layer)
    return names


def random_factors(params, ends, seed=0, file="hf", r=R, dora=False):
    """{layer in the file: {"lora_A": (r, in), "lora_B": (out, r)}} for names that end so; for DoRA also m."""
    rng, factors = np.random.default_rng(seed), {}
    for name, ours in linear_names(params, file).items():
        if name.endswith(tuple(ends)):
            weight = np.concatenate([params[f"{layer}.weight"] for layer in ours])
            shapes = {"lora_A": (r, weight.shape[1]), "lora_B": (len(weight), r)}
            factors[name] = {leaf: 0.1 * rng.standard_normal(s).astype(np.float32) for leaf, s in shapes.items()}
            if dora:
                factors[name][MAGNITUDE] = row_norms(weight) * rng.uniform(0.9, 1.1, len(weight)).astype(np.float32)
    return factors


def peft_tensors(factors):
    """Factors under PEFT's names."""
    end = {"lora_A": ".weight", "lora_B": ".weight", MAGNITUDE: ""}
    return {f"{BASE}{n}.{leaf}{end[leaf]}": a for n, own in factors.items() for leaf, a in own.items()}


def write_peft(folder, tensors, metadata=None, **fields):
    """A folder of PEFT's; `fields` are those of its configuration that are not the usual ones, "absent" for none."""
    folder.mkdir(parents=True)
    usual = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": R, "lora_alpha": ALPHA}
    fields = usual | fields
    write_json(folder / "adapter_config.json", {name: fields[name] for name in fields if fields[name] != "absent"})
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt", **(metadata or {})})
    return folder


def gguf_tensors(factors, head_size):
    """Factors under GGUF's names, with the rows of q's and k's B in its order."""
    tensors = {f"{name}.weight.lora_a": own["lora_A"] for name, own in factors.items()}
    return tensors | {f"{n}.weight.lora_b": in_gguf_order(n, own["lora_B"], head_size) for n, own in factors.items()}


def write_gguf_adapter(path, tensors, **fields):
    """A GGUF adapter; `fields` change its metadata, with _ for the dots in their names; None takes one out."""
    usual = {"general_type": "adapter", "general_architecture": "llama", "adapter_type": "lora"}
    fields = {**usual, "adapter_lora_alpha": ALPHA, **fields}
    names = {name: name if "." in name else name.replace("_", ".") for name in fields}
    pairs = [(names[name], typed(value)) for name, value in fields.items() if value is not None]
    arrays = {name: np.asarray(array, np.float32) for name, array in tensors.items()}
    path.write_bytes(container(pairs, [(n, a.shape[::-1], F32, a.tobytes()) for n, a in arrays.items()]))
    return path
