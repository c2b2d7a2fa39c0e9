"""The file formats of SPEC.md: safetensors for GPT-2 and PEFT, and llama.cpp's GGUF with blocks of 32 weights."""

import json
import struct

import numpy as np

from . import operations as op

# ---------------------------------------------------------------- safetensors, GPT-2 and PEFT

DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "U8": "u1"}
GPT2 = {  # layer of a GPT-2 block -> the specification's layers that it combines
    **{"ln_1": ("ln1",), "ln_2": ("ln2",), "attn.c_attn": ("attn.q_proj", "attn.k_proj", "attn.v_proj")},
    **{"attn.c_proj": ("attn.o_proj",), "mlp.c_fc": ("mlp.up_proj",), "mlp.c_proj": ("mlp.down_proj",)},
}
PEFT = "base_model.model.transformer."


def safetensors_read(file):
    """The arrays in the bytes of a safetensors file, keyed by name."""
    data = file.tobytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header, arrays = json.loads(data[8:start]), {}
    header.pop("__metadata__", None)
    for name, about in header.items():
        begin, end = about["data_offsets"]
        arrays[name] = np.frombuffer(data[start + begin : start + end], DTYPES[about["dtype"]]).reshape(about["shape"])
    return arrays


def safetensors_write(arrays):
    """The bytes of a safetensors file, with the tensors sorted by name."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(arrays):
        array = arrays[name]
        dtype = "F64" if array.dtype == np.float64 else "F32"
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data = data + array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text + b" " * (-len(text) % 8)
    return np.frombuffer(struct.pack("<Q", len(text)) + text + data, np.uint8)


def gpt2_arrays(n_layers):
    """A dict, name of a GPT-2 array -> names of the specification's arrays that are concatenated in it."""
    names = {"wte.weight": ["tok_emb.weight"], "wpe.weight": ["pos_emb.weight"]}
    for leaf in ("weight", "bias"):
        names[f"ln_f.{leaf}"] = [f"ln_f.{leaf}"]
        for i in range(n_layers):
            for theirs, ours in GPT2.items():
                names[f"h.{i}.{theirs}.{leaf}"] = [f"blocks.{i}.{layer}.{leaf}" for layer in ours]
    return names


def is_turned(name):
    """Whether GPT-2 stores an array as (in, out), which it does for the weights of linear layers."""
    return ".c_" in name and name.endswith(".weight")


def gpt2_read(settings, t):
    arrays, params = safetensors_read(t["model.safetensors"]), {}
    prefix = "" if "wte.weight" in arrays else "transformer."
    for theirs, ours in gpt2_arrays(json.loads(t["config.json"].tobytes())["n_layer"]).items():
        whole = arrays[prefix + theirs]
        if is_turned(theirs):
            whole = whole.T
        for name, part in zip(ours, np.split(whole, len(ours), axis=0)):
            params[name] = part
    return params


def gpt2_write(settings, t):
    arrays = {}
    for theirs, ours in gpt2_arrays(settings["model"]["n_layers"]).items():
        whole = np.concatenate([t[name] for name in ours], axis=0)
        if is_turned(theirs):
            whole = whole.T
        arrays[f"transformer.{theirs}"] = whole
    return {"model.safetensors": safetensors_write(arrays)}


def peft_read(settings, t):
    arrays, fields = safetensors_read(t["adapter_model.safetensors"]), json.loads(t["adapter_config.json"].tobytes())
    A, B = (arrays[f"{PEFT}h.0.attn.c_attn.{leaf}.weight"] for leaf in ("lora_A", "lora_B"))
    s = op.scale(fields["r"], fields["lora_alpha"], fields.get("use_rslora", False))
    names = [f"delta.blocks.0.{layer}.weight" for layer in GPT2["attn.c_attn"]]
    return dict(zip(names, np.split(op.lora_delta(None, A, B, s), 3, axis=0)))


def peft_write(settings, t):
    adapter, arrays = settings["adapter"], {}
    for i in range(settings["model"]["n_layers"]):
        for theirs, parts in GPT2.items():
            ours = [f"blocks.{i}.{part}" for part in parts]
            adapted = [layer for layer in ours if layer in adapter["layers"]]
            if adapted:
                A, B = joined(adapted, ours, adapter, t)
                arrays[f"{PEFT}h.{i}.{theirs}.lora_A.weight"] = A
                arrays[f"{PEFT}h.{i}.{theirs}.lora_B.weight"] = B
    return {"adapter_model.safetensors": safetensors_write(arrays)}


def joined(adapted, ours, adapter, t):
    """Combine the adapters of layers that GPT-2 concatenates: stack the A's; the B's form a block-diagonal matrix."""
    scales = {layer: op.scale(of["r"], of["alpha"], adapter["rslora"]) for layer, of in adapter["layers"].items()}
    A = np.concatenate([t[f"{layer}.lora_A"] for layer in adapted], axis=0)
    out = len(t[f"{adapted[0]}.lora_B"])
    B, column = np.zeros((out * len(ours), len(A)), A.dtype), 0
    for layer in adapted:
        own = t[f"{layer}.lora_B"] * (scales[layer] / scales[adapted[0]])
        row = out * ours.index(layer)
        B[row : row + out, column : column + own.shape[1]] = own
        column = column + own.shape[1]
    return A, B


# ---------------------------------------------------------------- llama.cpp's blocks

BYTES = {"q8_0": 34, "q4_0": 18, "q4_1": 20}  # of a block of 32 weights
TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 8: "q8_0"}


def expand(packed, form):
    """Dequantise blocks to float32 weights."""
    of_blocks = packed.reshape(-1, BYTES[form])
    d = of_blocks[:, :2].copy().view("<f2").astype(np.float32)
    if form == "q8_0":
        weights = d * of_blocks[:, 2:].view(np.int8)
    else:
        codes = np.concatenate([of_blocks[:, -16:] & 15, of_blocks[:, -16:] >> 4], axis=1).astype(np.float32)
        if form == "q4_0":
            weights = d * (codes - 8)
        else:
            weights = d * codes + of_blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    return weights.reshape(len(packed), -1)


def pack(weight, form):
    """Pack weights into blocks; return their bytes as uint8."""
    w = weight.astype(np.float32).reshape(-1, 32)
    if form == "q8_0":
        d = np.abs(w).max(axis=1, keepdims=True) / np.float32(127)
        scaled = w * inverse(d)
        codes = np.copysign(np.floor(np.abs(scaled.astype(np.float64)) + 0.5), scaled)
        packed = np.concatenate([half_bytes(d), codes.astype(np.int8).view(np.uint8)], axis=1)
    elif form == "q4_0":
        largest = np.take_along_axis(w, np.abs(w).argmax(axis=1)[:, None], axis=1)
        d = largest / np.float32(-8)
        codes = np.minimum(15, np.floor(w * inverse(d) + np.float32(8.5)))
        packed = np.concatenate([half_bytes(d), nibbles(codes)], axis=1)
    else:
        m = w.min(axis=1, keepdims=True)
        d = (w.max(axis=1, keepdims=True) - m) / np.float32(15)
        codes = np.minimum(15, np.floor((w - m) * inverse(d) + np.float32(0.5)))
        packed = np.concatenate([half_bytes(d), half_bytes(m), nibbles(codes)], axis=1)
    return packed.reshape(len(weight), -1)


def inverse(d):
    """1 / d, or 0 where that is not finite."""
    inverted = np.float32(1) / d
    return np.where(np.isfinite(inverted), inverted, np.float32(0))


def half_bytes(x):
    return x.astype("<f2").view(np.uint8)


def nibbles(codes):
    codes = codes.astype(np.uint8)
    return codes[:, :16] | codes[:, 16:] << 4


def blocks(settings, t):
    packed = pack(t["weight"], settings["format"])
    dequantised, expanded = expand(packed, settings["format"]), expand(t["blocks"], settings["format"])
    return {"packed": packed, "dequantised": dequantised, "expanded": expanded}


def offsets_moved(packed, change):
    """Blocks of Q4_1 with `change` added to their offsets m."""
    of_blocks = packed.reshape(-1, 20).copy()
    m = of_blocks[:, 2:4].copy().view("<f2").astype(np.float64)
    of_blocks[:, 2:4] = half_bytes(m + change.reshape(-1, 1))
    return of_blocks.reshape(packed.shape)


# ---------------------------------------------------------------- GGUF

GGUF = {
    **{"token_embd": "tok_emb", "output_norm": "norm_f", "output": "head", "attn_norm": "norm1", "ffn_norm": "norm2"},
    **{"attn_q": "attn.q_proj", "attn_k": "attn.k_proj", "attn_v": "attn.v_proj", "attn_output": "attn.o_proj"},
    **{"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"},
}
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    """Read a file's bytes, one value after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, kind):
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(kind)
        return value

    def text(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind, n = self.number("I"), self.number("Q")
            return [self.value(kind) for _ in range(n)]
        return self.number(NUMBERS[kind])


def our_name(theirs):
    *block, part, leaf = theirs.split(".")
    layer = GGUF[part]
    name = f"{layer}.{leaf}"
    return f"blocks.{block[1]}.{name}" if block else name


def is_rotated(name):
    return ".q_proj." in name or ".k_proj." in name


def our_order(rows, D):
    """Rows of q or k in the specification's order: within a head, GGUF's row 2j + s becomes row j + s D/2."""
    return rows.reshape(-1, D // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_order(rows, D):
    return rows.reshape(-1, 2, D // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_read(settings, t):
    reader = Reader(t["model.gguf"].tobytes())
    reader.at = 8
    n_tensors, n_fields = reader.number("Q"), reader.number("Q")
    fields = {reader.text(): reader.value(reader.number("I")) for _ in range(n_fields)}
    tensors, params = [], {}
    for _ in range(n_tensors):
        name = reader.text()
        shape = [reader.number("Q") for _ in range(reader.number("I"))]
        tensors.append((name, shape[::-1], TYPES[reader.number("I")], reader.number("Q")))
    alignment = fields.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    for theirs, shape, form, offset in tensors:
        data = reader.data[start + offset :]
        if form in BYTES:
            n = shape[-1] // 32 * BYTES[form]
            array = expand(np.frombuffer(data, np.uint8, shape[0] * n).reshape(shape[0], n), form)
        else:
            array = np.frombuffer(data, "<f4" if form == "f32" else "<f2", int(np.prod(shape))).reshape(shape)
        name = our_name(theirs)
        if is_rotated(name):
            array = our_order(array, fields["llama.attention.key_length"])
        params[name] = array.astype(np.float64)
    return params


def gguf_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value):
    """A field's type and its value; a list has texts, and an array has float32 numbers."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_text, value))
    if isinstance(value, np.ndarray):
        return struct.pack("<IIQ", 9, 6, len(value)) + value.tobytes()
    kind = {bool: 7, int: 4, float: 6}[type(value)]
    return struct.pack(f"<I{NUMBERS[kind]}", kind, value)


def gguf_write(fields, tensors, alignment):
    """The bytes of a GGUF file; `tensors` is a dict, name -> (type, shape, numbers or blocks)."""
    parts, data = [b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))], b""
    for key, value in fields.items():
        parts.append(gguf_text(key) + gguf_value(value))
    kinds = {form: kind for kind, form in TYPES.items()}
    for name, (form, shape, array) in tensors.items():
        sizes = shape[::-1]
        about = struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kinds[form], len(data))
        parts.append(gguf_text(name) + about)
        data = data + filled(array.tobytes(), alignment)
    return np.frombuffer(filled(b"".join(parts), alignment) + data, np.uint8)


def filled(data, alignment):
    return data + b"\0" * (-len(data) % alignment)


def gguf_adapter(settings, t):
    sizes, adapter = settings["model"], settings["adapter"]
    alphas, tensors = {}, {}
    for layer, of in adapter["layers"].items():
        alphas[layer] = op.scale(of["r"], of["alpha"], adapter["rslora"]) * of["r"]
    layers = [
        (f"blk.{i}.{theirs}", f"blocks.{i}.{ours}") for i in range(sizes["n_layers"]) for theirs, ours in GGUF.items()
    ]
    layers = [(theirs, layer) for theirs, layer in layers if layer in alphas]
    in_order = [alphas[layer] for _, layer in layers]
    alpha = max(in_order, key=in_order.count)
    for theirs, layer in layers:
        B = t[f"{layer}.lora_B"] * (alphas[layer] / alpha)
        if is_rotated(f"{layer}."):
            B = gguf_order(B, sizes["head_size"])
        for leaf, array in (("lora_a", t[f"{layer}.lora_A"]), ("lora_b", B)):
            tensors[f"{theirs}.weight.{leaf}"] = "f32", array.shape, array.astype("<f4")
    fields = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    fields["adapter.lora.alpha"] = alpha
    return {"adapter.gguf": gguf_write(fields, tensors, 32)}
