"""Tier 4, second half: llama.cpp's block formats, QA-LoRA (mergeable into these blocks), and byte layouts of files."""

import numpy as np

from ...adapters import AdapterConfig, linear_layers, qalora
from ...compress import BLOCK, FORMATS, BlockWeight, with_offsets_added
from ...compress.ggml import LAYOUTS
from ...formats.gguf import read_gguf
from ...formats.model import model_from_gguf
from ...formats.names import gguf_rows, layer_names
from ...formats.to_gguf import encoded, save_gguf_adapter
from ..plain.files import gguf_write
from .case import ReferenceCase
from .draws import as_float32, bell, bits_of, mask, uniform
from .files import from_files, to_files
from .llama import SIZES, of_llama
from .model import config_of, draw_model, model_case, objects

MODEL, ADAPTER = "model.gguf", "adapter.gguf"
WIDE = {"d_model": 32, "d_ff": 64, "n_layers": 1}  # rows consist of complete blocks, except in o_proj (H · D)
HEADERS = [0x3C00, 0x0001, 0x8001, 0x83FF, 0xB555, 0x7BFF, 0x8000]  # float16 values: 1, ± the smallest, …, 65504, −0

# ---------------------------------------------------------------- what the package computes


def blocks(settings, t):
    name, weight = settings["format"], t["weight"]
    own, stored = FORMATS[name](weight), BlockWeight(t["blocks"], name, weight.dtype)
    return {"packed": own.blocks, "dequantised": own.dequantise(), "expanded": stored.dequantise()}


def qalora_layer(settings, t):
    base = BlockWeight(t["blocks"], "q4_1", t["x"].dtype)
    config = AdapterConfig(r=settings["r"], alpha=settings["alpha"], rslora=settings["rslora"], kind="qalora")
    arrays, weight = {name: t[name] for name in ("lora_A", "lora_B")}, base.dequantise()
    wanted = "x", "bias", "lora_A", "lora_B"
    y, cache = qalora.forward(t["x"], weight, t["bias"], arrays, config, wanted, t["mask"])
    delta = qalora.delta(weight, arrays, config)
    outputs = {"weight": weight, "pooled": cache.update.x, "y": y}
    dx, grads = qalora.backward(t["grad.y"], cache)
    outputs |= {f"grad.{name}": grads[name] for name in ("bias", "lora_B", "lora_A")}
    return {**outputs, "grad.x": dx, "delta": delta, "merged": with_offsets_added(base, delta[:, ::BLOCK]).blocks}


def gguf_read(settings, t):
    def read(folder):
        return model_from_gguf(MODEL, *read_gguf(f"{folder}/{MODEL}"), np.float64)[0]

    return {name: np.asarray(weight) for name, weight in from_files(t, read).items()}


def gguf_adapter(settings, t):
    config, params, adapter = objects(settings, t)

    def write(folder):
        save_gguf_adapter(f"{folder}/{ADAPTER}", adapter, params, config, {})

    return to_files([ADAPTER], write)


# ---------------------------------------------------------------- the cases


def blocks_case(name, *about):
    """Make the reference case of one block format.

    The blocks contain random weights, weights halfway between two codes of each format, zeros, a weight so small that
    the scale d is 0 in float16, large weights, and two weights of equal magnitude and opposite sign. In the last block,
    rounding the offset m to float16 causes an error of several times the step between codes.
    """
    bits, steps = bits_of("blocks"), np.arange(32)
    halves = (steps % 15 + 0.5) / 16
    rows = [
        bell(bits, (32,), 0.05),
        np.where(steps, (steps - 15.5) / 64, 127 / 64),
        np.where(steps, halves - 0.5, -0.5),
        np.where(steps, halves - 0.5, 0.5),
        np.where(steps < 2, 15 / 16 * steps, halves),
        np.zeros(32),
        np.full(32, -0.375),
        np.where(steps == 7, 1e-8, 0.0),
        bell(bits, (32,), 3e4),
        uniform(bits, (32,), 0.5, 0.75),
        np.where(steps == 5, -0.75, np.where(steps == 9, 0.75, bell(bits, (32,), 0.2))),
        1000.3 + 0.02 * steps,
    ]
    packed = (bits.random_raw((7, LAYOUTS[name].bytes)) % np.uint64(256)).astype(np.uint8)
    packed[:, :2] = np.array(HEADERS, "<u2").view(np.uint8).reshape(-1, 2)
    if name == "q4_1":
        packed[:, 2:4] = np.array(HEADERS[::-1], "<u2").view(np.uint8).reshape(-1, 2)
    inputs = {"weight": as_float32(rows).reshape(-1, 64), "blocks": packed}
    id = f"blocks-{name.replace('_', '-')}"
    return ReferenceCase(id, 4, "blocks", {"format": name}, inputs, blocks, *about, ("exact", "edge"))


def qalora_case(id, *about):
    bits = bits_of(id)
    base = FORMATS["q4_1"](bell(bits, (7, 128), 0.3).astype(np.float32))
    inputs = {"x": bell(bits, (2, 3, 128)), "blocks": base.blocks, "bias": bell(bits, (7,))}
    inputs |= {"lora_A": bell(bits, (3, 4)), "lora_B": bell(bits, (7, 3))}
    inputs |= {"mask": mask(bits, (2, 3, 128), 0.25), "grad.y": bell(bits, (2, 3, 7))}
    settings = {"r": 3, "alpha": 4.5, "rslora": False}
    return ReferenceCase(id, 4, "qalora", settings, inputs, qalora_layer, *about)


def on_blocks(id, *about, **changes):
    """A model case in which the weights of linear layers are stored in blocks."""
    case = of_llama(model_case, id, *about, **changes)
    names = [f"{layer}.weight" for layer in linear_layers(case.inputs)]
    packed = {name: FORMATS["q4_1"](case.inputs[name].astype(np.float32)).blocks for name in names}
    return case._replace(settings={**case.settings, "blocks": "q4_1"}, inputs={**case.inputs, **packed})


def gguf_case(id, *about):
    sizes = {**SIZES, **WIDE, "n_heads": 6, "n_kv_heads": 2}
    params, tensors = draw_model(bits_of(id), sizes)[1], {}
    for layer, (ours,) in layer_names(config_of(sizes), "gguf").items():
        weight = gguf_rows(config_of(sizes), ours, params[f"{ours}.weight"].astype(np.float32))
        tensors[f"{layer}.weight"] = encoded(layer, weight, "q4_1")
    tensors["token_embd.weight"] = FORMATS["q8_0"](params["tok_emb.weight"].astype(np.float32))
    tensors["blk.0.ffn_up.weight"] = FORMATS["q4_0"](params["blocks.0.mlp.up_proj.weight"].astype(np.float32))
    fields = {
        "general.architecture": "llama",
        "general.name": "Llama",
        "general.alignment": 64,
        "tokenizer.ggml.tokens": ["a", "Ġb", ""],
        "llama.block_count": sizes["n_layers"],
        "tokenizer.ggml.scores": np.array([0.5, -1.0], "<f4"),
        "tokenizer.ggml.add_bos_token": True,
        "llama.context_length": sizes["n_positions"],
        "llama.embedding_length": sizes["d_model"],
        "llama.feed_forward_length": sizes["d_ff"],
        "llama.attention.head_count": sizes["n_heads"],
        "llama.attention.head_count_kv": sizes["n_kv_heads"],
        "llama.attention.key_length": sizes["head_size"],
        "llama.attention.layer_norm_rms_epsilon": sizes["rms_norm_eps"],
        "llama.rope.freq_base": sizes["rope_theta"],
    }
    stored = {}
    for name, weight in sorted(tensors.items()):
        in_blocks = isinstance(weight, BlockWeight)
        form, array = (weight.format, weight.blocks) if in_blocks else (f"f{8 * weight.itemsize}", weight)
        stored[name] = form, weight.shape, array
    file = gguf_write(fields, stored, fields["general.alignment"])
    return ReferenceCase(id, 4, "gguf_read", {}, {MODEL: file}, gguf_read, *about, ("exact",))


def gguf_adapter_case(id, *about):
    layers = {"attn.q_proj": (2, 3.0), "attn.k_proj": (1, 3.0), "mlp.down_proj": (3, 4.5)}
    layers |= {"mlp.up_proj": (4, 1.5)}  # A's size is a multiple of the alignment; s · r is the same as for k_proj
    layers = {f"blocks.{i}.{name}": of for i in (0, 1) for name, of in layers.items()}
    settings, inputs = draw_model(bits_of(id), SIZES, layers=layers, rslora=True)
    return ReferenceCase(id, 4, "gguf_adapter", settings, inputs, gguf_adapter, *about, ("exact",))


def ggml_cases():
    """The cases for blocks and for llama.cpp's files."""
    return [
        blocks_case("q8_0", "32 weights in 8 bits each, with a scale",
                    "a half rounded to even or up; d read as float32"),
        blocks_case("q4_0", "32 weights in 4 bits each, with a scale, which may be negative",
                    "neighbours in one byte; d that is always positive; the scale that is stored used for the codes"),
        blocks_case("q4_1", "32 weights in 4 bits each, with a scale and an offset",
                    "d and m exchanged; codes with a sign"),
        qalora_case("qalora", "QA-LoRA on a base in Q4_1, with dropout; merged into its offsets",
                    "sums in the place of means; A's gradient without L; codes or d that change in merging"),
        on_blocks("llama-blocks", "loss, gradients and merge of LoRA on a base in Q4_1",
                  "blocks that run down a column; merged weights that are quantised again",
                  adapter={"names": ("q_proj", "gate_proj", "down_proj")}, n_heads=8, n_kv_heads=2, head_size=8,
                  **WIDE),
        gguf_case("gguf-read", "a Llama's GGUF file in Q4_1, Q4_0, Q8_0, F16 and F32; its head size is 6",
                  "the rows of q and k left in GGUF's order, or put in the inverse one; an alignment of 32 written "
                  "into the code; fields in another order than the usual one"),
        gguf_adapter_case("gguf-adapter", "rsLoRA on q_proj, k_proj, up_proj and down_proj as llama.cpp's file",
                          "B's rows in our order; one alpha for all scales, or the first layer's; α for s r; "
                          "zeros where none are needed"),
    ]  # fmt: skip
