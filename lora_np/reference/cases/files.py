"""Tier 3, second half: the spectrum of an update, NF4, and file formats, byte by byte."""

import json
import tempfile
from pathlib import Path

import numpy as np

from ...adapters import adapter_deltas
from ...analysis import right_directions, singular_values
from ...compress import quantise_nf4
from ...compress.code_points import CODE_POINTS
from ...compress.nf4 import unpack
from ...formats import load_hf, load_peft, save_hf, save_peft
from ...model import GPT2Config, parameter_shapes
from .case import DTYPES, ReferenceCase, in_dtype
from .draws import as_float32, bell, bits_of
from .model import SIZES, draw_model, objects

SMALL = {**SIZES, "vocab_size": 7, "n_positions": 5, "d_model": 6, "n_layers": 1, "d_ff": 8, "n_classes": 0}
MODEL, ADAPTER, FIELDS = "model.safetensors", "adapter_model.safetensors", "adapter_config.json"

# ---------------------------------------------------------------- what the package computes


def spectrum(settings, t):
    """Compute an update's spectrum, with projectors in place of singular vectors, whose signs are arbitrary."""
    update = t["after"] - t["before"]
    sigma = singular_values(update)
    energy = np.cumsum(sigma**2)
    outputs = {"update": update, "singular_values": sigma, "energy": energy / energy[-1]}
    for k in settings["k"]:
        for side, matrix in (("left", update.T), ("right", update)):
            directions = right_directions(matrix, k)  # (n, k)
            outputs[f"{side}.{k}"] = directions @ directions.T
    return outputs


def nf4(settings, t):
    weight = quantise_nf4(t["weight"], settings["block_size"], settings["double"])
    outputs = {"absmax": np.abs(t["weight"].reshape(-1, settings["block_size"])).max(axis=1)}
    outputs |= {"codes": unpack(weight.packed), "packed": weight.packed}
    if settings["double"]:
        about = weight.absmax
        outputs |= {"mean": about.mean, "steps": about.steps, "scale_codes": about.codes}
    return {**outputs, "scales": weight.scales(), "dequantised": weight.dequantise()}


def from_files(t, read, *arguments):
    """Write the input files, which are arrays of bytes in `t`, to a folder; return read(folder, *arguments)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, file in t.items():
            (Path(folder) / name).write_bytes(file.tobytes())
        return read(folder, *arguments)


def to_files(names, write, *arguments):
    """Call write(folder, *arguments); return the bytes of the files that it writes, as arrays by name."""
    with tempfile.TemporaryDirectory() as folder:
        write(folder, *arguments)
        return {name: np.frombuffer((Path(folder) / name).read_bytes(), dtype=np.uint8) for name in names}


def gpt2_read(settings, t):
    return from_files(t, load_hf, np.float64).params  # float64 represents the values of both precisions exactly


def gpt2_write(settings, t):
    return to_files([MODEL], save_hf, t, GPT2Config(**settings["model"]))


def peft_read(settings, t):
    dtype = np.float64 if b'"F64"' in t[ADAPTER].tobytes() else np.float32  # the header contains the tensors' dtype
    config = GPT2Config(**settings["model"])
    base = {name: np.zeros(shape, dtype) for name, shape in parameter_shapes(config).items()}
    deltas = adapter_deltas(base, from_files(t, load_peft, base, config))
    return {f"delta.{name}": delta for name, delta in deltas.items()}


def peft_write(settings, t):
    config, params, adapter = objects(settings, t)
    return to_files([ADAPTER], save_peft, adapter, params, config)


# ---------------------------------------------------------------- the cases


def spectrum_case(id, rank, k, *about):
    bits = bits_of(id)
    before, left, right = bell(bits, (9, 7)), bell(bits, (9, rank)), bell(bits, (rank, 7))
    update = (left * 2.0 ** -np.arange(rank)) @ right  # each column's factor is half of the previous one's
    inputs = {"before": before, "after": as_float32(before + 0.25 * update)}
    return ReferenceCase(id, 3, "spectrum", {"k": k}, inputs, spectrum, *about)


def nf4_case(id, shape, block_size, double, *about):
    weight = bell(bits_of(id), shape, 0.05)
    weight.reshape(-1, block_size)[1] *= 8.0
    weight.reshape(-1, block_size)[2] = 0.0
    settings = {"block_size": block_size, "double": double}
    return ReferenceCase(id, 3, "nf4", settings, {"weight": as_float32(weight)}, nf4, *about)


def midpoint_case():
    """A case whose weights include every midpoint between neighbouring code points, in float32; each absmax is 1."""
    points = CODE_POINTS.astype(np.float64)
    weight = np.concatenate([[1.0], (points[1:] + points[:-1]) / 2])
    settings, inputs = {"block_size": 16, "double": False}, {"weight": as_float32(np.stack([weight, -weight]))}
    return ReferenceCase("nf4-midpoints", 3, "nf4", settings, inputs, nf4, "weights halfway between two points, or "
                         "the nearest float32 numbers", "≤ for <; midpoints in float32 for a float64 weight",
                         ("exact", "edge"))  # fmt: skip


def scales_case(id, absmax, *about):
    """A case whose blocks, of two weights each, have the given absmax values."""
    weight = np.array(absmax)[:, None] * [1.0, -0.25]
    settings = {"block_size": 2, "double": True}
    return ReferenceCase(id, 3, "nf4", settings, {"weight": as_float32(weight)}, nf4, *about, ("exact", "edge"))


def file_cases():
    """The cases for spectra, NF4 and files."""
    halves = np.array([127, -127, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 125.5, -125.5])
    return [
        spectrum_case("spectrum-low-rank", 2, [1, 2], "an update of rank 2, as LoRA's: all energy in two directions",
                      "singular vectors compared, whose signs are arbitrary"),
        spectrum_case("spectrum-full-rank", 7, [1, 3], "an update of full rank, as full fine-tuning's",
                      "energies of σ in the place of σ²; eigenvalues not sorted"),
        nf4_case("nf4", (6, 32), 64, False, "blocks of 64 in row-major order, two rows each; the third is zero "
                 "throughout", "blocks by row; 0/0; codes packed low half first", ("exact", "edge")),
        nf4_case("nf4-double", (72, 25), 6, True, "the scales themselves in 8 bits, with one step for the first 256 "
                 "blocks and one for the other 44; blocks run over the rows' ends",
                 "the mean not taken off; one step for all", ("exact",)),
        midpoint_case(),
        scales_case("nf4-double-halves", 1 + halves / 128,
                    "scales halfway between two codes", "a half rounded away from zero"),
        scales_case("nf4-double-negative", [0.0, 2.00390625, 0.99609375, 0.75, 1.25],
                    "a mean and step that take a scale below 0", "max(…, 0) forgotten"),
        scales_case("nf4-double-equal", [0.5, 0.5, 0.5], "scales that are all equal: a step of 0", "0 / 0"),
        *gpt2_cases(),
        *peft_cases(),
    ]  # fmt: skip


def as_bytes(text):
    return np.frombuffer(text.encode(), np.uint8)


def file_of(arrays, dtype):
    from safetensors.numpy import save

    return np.frombuffer(save({n: in_dtype(a, dtype) for n, a in arrays.items()}, {"format": "pt"}), np.uint8)


def gpt2_cases():
    settings, params = {"model": SMALL}, draw_model(bits_of("gpt2"), SMALL)[1]
    many = {**SMALL, "n_layers": 11, "d_model": 4, "n_heads": 2, "d_ff": 3}
    plain = {**SMALL, "d_ff": 4 * SMALL["d_model"], "n_heads": 2}

    def files(dtype, params=params, sizes=SMALL):
        arrays = {name: in_dtype(array, dtype) for name, array in params.items()}
        return to_files((MODEL, "config.json"), save_hf, arrays, GPT2Config(**sizes))

    def old_files(dtype):
        """The files of a bare GPT2Model, as old versions of transformers wrote them."""
        new = files(dtype, draw_model(bits_of("gpt2 bare"), plain)[1], plain)
        arrays = {name.removeprefix("transformer."): a for name, a in load(new[MODEL].tobytes()).items()}
        arrays |= {"h.0.attn.bias": np.tril(np.ones((1, 1, 5, 5))), "h.0.attn.masked_bias": np.array([-1e4])}
        arrays["lm_head.weight"] = arrays["wte.weight"]
        fields = json.loads(new["config.json"].tobytes()) | {"n_inner": None}
        return {MODEL: file_of(arrays, dtype), "config.json": as_bytes(json.dumps(fields))}

    from safetensors.numpy import load

    (wide, narrow), (old_wide, old_narrow) = map(files, DTYPES), map(old_files, DTYPES)
    return [
        ReferenceCase("gpt2-read", 3, "gpt2_read", settings, wide, gpt2_read, "a GPT-2 directory as our parameters",
                      "Conv1D's weights not transposed; q, k and v cut along the wrong axis", ("exact",), narrow),
        ReferenceCase("gpt2-read-bare", 3, "gpt2_read", {"model": plain}, old_wide, gpt2_read, "names without "
                      "prefix, n_inner null, lm_head and the buffers of the causal mask",
                      "a reader that insists on the prefix or on knowing each tensor; F read from n_inner", ("exact",),
                      old_narrow),
        ReferenceCase("gpt2-write", 3, "gpt2_write", {"model": many}, draw_model(bits_of("gpt2 many"), many)[1],
                      gpt2_write, "our parameters as GPT-2's file, eleven blocks",
                      "a header not padded; tensors not in the order of their names: h.10 is before h.2", ("exact",)),
    ]  # fmt: skip


def peft_cases():
    bits = bits_of("peft")
    settings, arrays = draw_model(bits, SMALL, ("q_proj", "v_proj", "down_proj"))
    layers = {"attn.k_proj": (3, 1.5), "attn.v_proj": (1, 2.0), "attn.o_proj": (2, 5.0), "mlp.up_proj": (4, 1.0)}
    layers = {f"blocks.0.{name}": of for name, of in layers.items()}
    other_settings, other_arrays = draw_model(bits_of("peft scales"), SMALL, layers=layers)
    one = {  # an adapter on GPT-2's c_attn; each of its components affects q, k and v
        "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": bell(bits, (2, 6)),
        "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight": bell(bits, (18, 2)),
    }
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 3, "fan_in_fan_out": True,
              "target_modules": ["c_attn"]}  # fmt: skip

    def files(dtype, **more):
        text = json.dumps({**fields, **more}, indent=2, sort_keys=True)
        return {ADAPTER: file_of(one, dtype), FIELDS: as_bytes(text)}

    wide, narrow = map(files, DTYPES)
    root_wide, root_narrow = (files(dtype, use_rslora=True) for dtype in DTYPES)
    return [
        ReferenceCase("peft-read", 3, "peft_read", {"model": SMALL}, wide, peft_read,
                      "PEFT's adapter on c_attn as the updates ΔW of q_proj, k_proj and v_proj",
                      "B cut along the wrong axis; α/r forgotten; ΔW transposed for fan_in_fan_out", (), narrow),
        ReferenceCase("peft-read-rslora", 3, "peft_read", {"model": SMALL}, root_wide, peft_read,
                      "the same with use_rslora", "use_rslora ignored", (), root_narrow),
        ReferenceCase("peft-write", 3, "peft_write", settings, arrays, peft_write,
                      "adapters on q_proj and v_proj as one on c_attn: the A's one above the other, B in blocks",
                      "B's blocks at the wrong rows: k_proj, which has no adapter, has its rows too", ("exact",)),
        ReferenceCase("peft-write-scales", 3, "peft_write", other_settings, other_arrays, peft_write,
                      "adapters on k_proj and v_proj with other ranks and scales, and on o_proj and up_proj",
                      "the names of o_proj and up_proj in PEFT's files; v_proj's B with k_proj's scale", ("exact",)),
    ]  # fmt: skip
