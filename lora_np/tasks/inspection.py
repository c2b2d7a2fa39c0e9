"""Describe a file of tensors: names, shapes and norms, and the ranks of adapters."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..adapters import AdapterConfig, module_config, scaling
from ..adapters.dora import MAGNITUDE
from ..analysis import effective_rank, product_singular_values, stable_rank
from ..checked import shown
from ..formats import read_tensors, task_folder
from ..formats.adapter_report import BASE, FACTORS
from ..formats.checkpoint import read_config, read_object
from ..formats.gguf import read_gguf
from ..formats.hugging_face import read_sharded, tensor_file
from ..formats.model import is_packaged, model_place, weights_file
from ..formats.peft_config import match_fields, rank_and_scale, read_fields

SINGULAR_VALUES = "lora_E"  # E in AdaLoRA's B diag(E) A
LEAVES = (*FACTORS, SINGULAR_VALUES, MAGNITUDE)
LARGEST = 1e39  # above float32's range; for larger entries, the square of s B diag(E) A may overflow
FILES = ["adapter.safetensors", "adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json"]
FILES += ["*.safetensors"]  # the first in alphabetical order


def inspect_file(path):
    """Describe a file of tensors in this package's format, in PEFT's or in any other format.

    Parameters
    ----------
    path : a .safetensors file, or the index of several; a GGUF file; a folder that contains one of these; or the name
        of an included adapter or of a packaged model

    Returns
    -------
    dict: "file"; "metadata"; "tensors", a list of {name, dtype, shape, norm, rms (both None if the norm is not
        finite)}; "adapters", a list of {layer, kind, rank, in, out, scale (None if no configuration gives it), norm_A,
        norm_B, norm_update, stable_rank, effective_rank}, which omits layers whose factors have mismatched shapes, or
        NaN, infinite or extremely large values. AdaLoRA's A is reported as diag(E) A, and its rank as the number
        of non-zero singular values. DoRA's update is s B A, before the rows are rescaled. VeRA's layers are not listed,
        because its A and B are not in the file; nor are QA-LoRA's, because the file does not record how many inputs
        are pooled into one.
    """
    file = weights_file(place_of(path))
    if file.suffix == ".gguf":
        fields, tensors = read_gguf(file)
        metadata = {name: str(value) for name, value in fields.items() if np.isscalar(value)}
    else:
        file = tensor_file(place_of(path), FILES)
        tensors, metadata = (read_sharded(file), {}) if file.suffix == ".json" else read_tensors(file)
    layers = {}
    for name, array in tensors.items():
        layer, _, leaf = name.removesuffix(".weight").rpartition(".")
        if leaf in LEAVES and np.issubdtype(array.dtype, np.floating):
            layers.setdefault(layer, {})[leaf] = array
    known = scales(file.parent, layers)
    layers = {} if known is None else {layer: arrays for layer, arrays in layers.items() if fit(arrays)}
    adapters = [describe_adapter(layer, arrays, known.get(layer)) for layer, arrays in layers.items()]
    rows = [describe(name, array) for name, array in tensors.items()]
    return {"file": str(file), "metadata": metadata, "tensors": rows, "adapters": adapters}


def place_of(path):
    """Return the file or folder that the argument of `inspect_file` refers to."""
    return model_place(path) if Path(path).exists() or is_packaged(path) else task_folder(path)


def sources_of(path):
    """Return the paths that `inspect_file` may read: a folder, or a file and its companions in the same folder."""
    place = place_of(path)
    beside = [place.parent / name for name in ("adapter.json", "adapter_config.json")]
    return [place] if place.is_dir() else [place, *beside, *place.parent.glob("*.safetensors")]


def describe(name, array):
    """Return one tensor's name, dtype, shape, norm and rms."""
    kind, array = getattr(array, "format", None) or str(array.dtype), np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(np.abs(array).astype(np.float64))) if array.size else 0.0
    norm, rms = (norm, norm / math.sqrt(max(1, array.size))) if math.isfinite(norm) else (None, None)
    return {"name": name, "dtype": kind, "shape": list(array.shape), "norm": norm, "rms": rms}


def fit(arrays):
    """Return whether A (r, in), B (out, r) and any singular values (r,) have the same r and all |entries| < LARGEST."""
    if not all(factor in arrays and arrays[factor].ndim == 2 for factor in FACTORS):
        return False
    r = arrays["lora_A"].shape[0]
    if arrays["lora_B"].shape[1] != r or arrays.get(SINGULAR_VALUES, np.empty(r)).size != r:
        return False
    return all(array.size and float(np.abs(array).max()) < LARGEST for array in arrays.values())


def describe_adapter(layer, arrays, scale):
    """Describe one layer's ranks and norms, with AdaLoRA's singular values (r,) multiplied into A."""
    lora_A, lora_B = (arrays[factor].astype(np.float64) for factor in FACTORS)
    kind, rank = "dora" if MAGNITUDE in arrays else "lora", len(lora_A)
    if SINGULAR_VALUES in arrays:
        values = arrays[SINGULAR_VALUES].astype(np.float64).reshape(-1)  # PEFT stores (r, 1)
        kind, rank, lora_A = "adalora", int(np.count_nonzero(values)), values[:, None] * lora_A
    sigma = (1.0 if scale is None else abs(scale)) * product_singular_values(lora_B, lora_A)
    row = {"layer": layer, "kind": kind, "rank": rank, "in": lora_A.shape[1], "out": len(lora_B), "scale": scale}
    for name, array in {"A": lora_A, "B": lora_B, "update": sigma}.items():
        row[f"norm_{name}"] = float(np.linalg.norm(array))
    return row | {"stable_rank": stable_rank(sigma), "effective_rank": effective_rank(sigma)}


def scales(folder, layers):
    """Return a dict, layer -> s, for the layers whose scale s the folder's configuration gives; None for QA-LoRA."""
    ours, theirs, known = folder / "adapter.json", folder / "adapter_config.json", {}
    with suppress(ValueError, FileNotFoundError):  # an adapter of an unsupported kind can still be described
        fields = read_object(ours if ours.is_file() else theirs)
        if fields.get("kind") == "qalora" or fields.get("use_qalora"):
            return None
        if ours.is_file():
            config = read_config(ours, AdapterConfig)
            return {layer: scaling(module_config(config, layer)) for layer in layers}
        fields, names = read_fields(theirs), [layer.removeprefix(BASE) for layer in layers]
        found = match_fields(theirs, fields, names)
        for layer, name in zip(layers, names):
            with suppress(ValueError):
                known[layer] = rank_and_scale(fields, found, name)[1]
    return known


def format_inspection(inspected):
    """Format the result of `inspect_file` as text."""
    tensors, adapters = inspected["tensors"], inspected["adapters"]
    total = sum(math.prod(row["shape"]) for row in tensors)
    lines = [f"{shown(inspected['file'])}: {len(tensors)} tensors, {total:,} values"]
    if inspected["metadata"]:
        pairs = (f"{shown(key, 60)}={shown(value, 60)}" for key, value in inspected["metadata"].items())
        lines.append(f"metadata: {shown(', '.join(pairs), 1000)}")
    table = [("tensor", "dtype", "shape", "norm", "rms")]
    for row in tensors:
        shape = "×".join(map(str, row["shape"])) or "scalar"
        norm, rms = ("not finite" if row[key] is None else f"{row[key]:.4g}" for key in ("norm", "rms"))
        table.append((shown(row["name"]), row["dtype"], shape, norm, rms))
    lines += ["", *aligned(table)]
    table = [("adapter", "rank", "out×in", "s", "‖A‖", "‖B‖", "‖ΔW‖", "stable", "effective rank")]
    for row in adapters:
        scale = "?" if row["scale"] is None else f"{row['scale']:.3g}"
        norms = (f"{row[key]:.3g}" for key in ("norm_A", "norm_B", "norm_update"))
        ranks = (f"{row[key]:.1f}" for key in ("stable_rank", "effective_rank"))
        table.append((shown(row["layer"]), str(row["rank"]), f"{row['out']}×{row['in']}", scale, *norms, *ranks))
    lines += ["", *aligned(table)] if adapters else []
    if any(row["scale"] is None for row in adapters):
        lines.append("No configuration gives s, so ‖ΔW‖ is the norm of B A.")
    if any(row["kind"] == "dora" for row in adapters):
        lines.append("DoRA: ‖ΔW‖ is the norm of s B A, before the rows are rescaled.")
    return "\n".join(lines)


def aligned(table):
    """Format a table's lines, with the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*table)]
    for first, *others in table:
        yield "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
