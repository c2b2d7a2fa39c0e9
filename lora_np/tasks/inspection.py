"""What is in a file of tensors: names, shapes and sizes, and of an adapter its ranks and directions."""

import math
from pathlib import Path

import numpy as np

from ..adapters import AdapterConfig, module_config, scaling
from ..adapters.dora import MAGNITUDE
from ..analysis import effective_rank, product_singular_values, stable_rank
from ..formats import read_config, read_object, read_tensors, task_folder
from ..formats.gpt2 import read_sharded, tensor_file
from ..formats.peft import BASE, FACTORS
from ..formats.peft_config import check_fields, rank_and_scale

SINGULAR_VALUES = "lora_E"  # of AdaLoRA's B diag(E) A
LARGEST = 1e40  # of a factor's numbers: beyond it the square of a product of three overflows
MOST_CHARACTERS = 80  # of a layer's name that a pattern is tried on
FILES = ("adapter.safetensors", "adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def inspect_file(path):
    """Describe a file of tensors or the folder that it is in, in our format, PEFT's or any other.

    Parameters
    ----------
    path : a .safetensors file, or the index of several; a folder with one; or the name of an adapter that comes with
        the package

    Returns
    -------
    dict: "file"; "metadata"; "tensors", a list of {name, dtype, shape, norm, rms (None if not finite)}; "adapters", a
        list of {layer, kind, rank, in, out, scale (None if no configuration gives it), norm_A, norm_B, norm_update,
        stable_rank, effective_rank}, without those whose factors do not fit each other, are not finite or too large.
        AdaLoRA's A is diag(E) A, its rank the number of singular values that are not zero; DoRA's update is s B A,
        before the rows are given their lengths. VeRA's A and B are in no file: its layers are not in the list.
    """
    file = find_file(path)
    tensors, metadata = (read_sharded(file), {}) if file.suffix == ".json" else read_tensors(file)
    layers, scale_of = {}, scales(file.parent)
    for name, array in tensors.items():
        layer, _, leaf = name.removesuffix(".weight").rpartition(".")
        if leaf in (*FACTORS, SINGULAR_VALUES, MAGNITUDE) and np.issubdtype(array.dtype, np.floating):
            layers.setdefault(layer, {})[leaf] = array
    adapters = [describe_adapter(layer, arrays, scale_of(layer)) for layer, arrays in layers.items() if fit(arrays)]
    rows = [describe(name, array) for name, array in tensors.items()]
    return {"file": str(file), "metadata": metadata, "tensors": rows, "adapters": adapters}


def find_file(path):
    """The .safetensors file, or index of several, that is meant."""
    if Path(path).is_file():
        return tensor_file(Path(path))
    folder = Path(path) if Path(path).is_dir() else task_folder(path)
    found = [folder / name for name in FILES if (folder / name).is_file()]
    found = found or sorted(folder.glob("*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{folder}: holds no .safetensors file")
    return found[0]


def describe(name, array):
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(np.abs(array).astype(np.float64))) if array.size else 0.0
    norm, rms = (norm, norm / math.sqrt(max(1, array.size))) if math.isfinite(norm) else (None, None)
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "norm": norm, "rms": rms}


def fit(arrays):
    """Whether a layer has an A (r, in), a B (out, r) and perhaps r singular values, all finite and not too large."""
    if not all(factor in arrays and arrays[factor].ndim == 2 for factor in FACTORS):
        return False
    r = arrays["lora_A"].shape[0]
    if arrays["lora_B"].shape[1] != r or arrays.get(SINGULAR_VALUES, np.empty(r)).size != r:
        return False
    return all(array.size and float(np.abs(array).max()) < LARGEST for array in arrays.values())


def describe_adapter(layer, arrays, scale):
    """One layer's A (r, in) and B (out, r), with AdaLoRA's singular values (r,) in A."""
    lora_A, lora_B = (arrays[factor].astype(np.float64) for factor in FACTORS)
    kind, rank = "dora" if MAGNITUDE in arrays else "lora", len(lora_A)
    if SINGULAR_VALUES in arrays:
        values = arrays[SINGULAR_VALUES].astype(np.float64).reshape(-1)  # PEFT's are (r, 1)
        kind, rank, lora_A = "adalora", int(np.count_nonzero(values)), values[:, None] * lora_A
    sigma = (1.0 if scale is None else abs(scale)) * product_singular_values(lora_B, lora_A)
    return {
        "layer": layer,
        "kind": kind,
        "rank": rank,
        "in": lora_A.shape[1],
        "out": len(lora_B),
        "scale": scale,
        "norm_A": float(np.linalg.norm(lora_A)),
        "norm_B": float(np.linalg.norm(lora_B)),
        "norm_update": float(np.linalg.norm(sigma)),
        "stable_rank": stable_rank(sigma),
        "effective_rank": effective_rank(sigma),
    }


def scales(folder):
    """A function, layer -> its scale s by the configuration in the folder, or None where none gives it."""
    ours, theirs, fields = folder / "adapter.json", folder / "adapter_config.json", None
    try:
        if ours.is_file():
            config = read_config(ours, AdapterConfig)
            return lambda layer: scaling(module_config(config, layer))
        if theirs.is_file():
            fields = read_object(theirs)
            check_fields(theirs, fields)
    except ValueError:  # of an adapter that is not for us: it can be looked at all the same
        fields = None

    def scale(layer):
        name = layer.removeprefix(BASE)
        if fields is None or len(name) > MOST_CHARACTERS:
            return None
        try:
            return rank_and_scale(theirs, fields, name)[1]
        except ValueError:
            return None

    return scale


def format_inspection(found):
    """The description as text."""
    total = sum(math.prod(row["shape"]) for row in found["tensors"])
    lines = [f"{found['file']}: {len(found['tensors'])} tensors, {total:,} numbers"]
    if found["metadata"]:
        lines.append("metadata: " + ", ".join(f"{key}={value[:60]}" for key, value in found["metadata"].items()))
    width = max((len(row["name"]) for row in found["tensors"]), default=4)
    lines.append(f"\n{'tensor':<{width}}  {'dtype':<8}  {'shape':<14}{'norm':>11}{'rms':>11}")
    for row in found["tensors"]:
        shape = "×".join(map(str, row["shape"])) or "number"
        norm, rms = ("not finite" if row[key] is None else f"{row[key]:.4g}" for key in ("norm", "rms"))
        lines.append(f"{row['name']:<{width}}  {row['dtype']:<8}  {shape:<14}{norm:>11}{rms:>11}")
    if found["adapters"]:
        width = max(len(row["layer"]) for row in found["adapters"])
        lines.append(
            f"\n{'adapter':<{width}}{'rank':>6}{'out×in':>12}{'s':>7}{'‖A‖':>9}{'‖B‖':>9}{'‖ΔW‖':>9}"
            f"{'stable':>8}{'effective rank':>16}"
        )
        for row in found["adapters"]:
            scale = "?" if row["scale"] is None else f"{row['scale']:.3g}"
            size = f"{row['out']}×{row['in']}"
            lines.append(
                f"{row['layer']:<{width}}{row['rank']:>6}{size:>12}{scale:>7}{row['norm_A']:>9.3g}{row['norm_B']:>9.3g}"
                f"{row['norm_update']:>9.3g}{row['stable_rank']:>8.1f}{row['effective_rank']:>16.1f}"
            )
        if any(row["scale"] is None for row in found["adapters"]):
            lines.append("s is in no configuration here; ‖ΔW‖ is that of B A")
        if any(row["kind"] == "dora" for row in found["adapters"]):
            lines.append("DoRA: ‖ΔW‖ is that of s B A, before each row is given its length")
    return "\n".join(lines)
