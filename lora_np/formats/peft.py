"""Read and write PEFT's LoRA and DoRA adapters: `adapter_config.json` and `adapter_model.safetensors`.

PEFT stores A as (r, in) and B as (out, r), like this package. This holds even for GPT-2's transposed layers, because
`fan_in_fan_out` affects only the base's weight. DoRA's magnitude vector m has the shape (out,). `fused.py` converts
between GPT-2's fused layer `c_attn` and our separate layers for q, k and v.

Transposed or swapped factors are rejected, because their shapes do not match the rank and the base's layer. The only
exception is r = in = out, where all factors are square and the mistake cannot be detected.
"""

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..adapters import (
    HEAD,
    Adapter,
    AdapterConfig,
    compact_pattern,
    compact_targets,
    fitting_arrays,
    head_arrays,
    linear_layers,
)
from ..adapters.dora import MAGNITUDE
from ..adapters.qalora import as_lora
from ..checked import errors_of, shown
from ..model import architecture
from .adapter_report import APPLIED, BASE, DEFAULT_NOTE, NO_TENSORS, TIED, peft_report, saved_modules, table_of_names
from .atomic import of_one_version
from .checkpoint import cast, check_init, warn_of_unknown, write_pair
from .foreign_keys import foreign_keys, keys_with
from .fused import joined_layers, split_factors
from .names import LEAVES, has_class, head_name, is_adaptable, linear_names, renamed, short_names
from .peft_config import alpha_of, read_fields
from .tensors import read_tensors

SUFFIX = {"lora_A": ".weight", "lora_B": ".weight", MAGNITUDE: ""}  # suffix of an array's name in the file
HEADS = ("score", "classifier", "head")
NOT_HERE = "adapters for embeddings, norms, biases and language-model heads are not supported"


@of_one_version
def load_peft(folder, params, config):
    """Read an adapter that PEFT saved.

    Our own layer names and names without PEFT's prefix are also accepted, with a warning if PEFT would ignore them.

    Parameters
    ----------
    folder : the directory that `save_pretrained` wrote
    params, config : the base's weights and configuration

    Returns
    -------
    Adapter, in the base's dtype; it includes the trained classification head if the file has one

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, if PEFT would refuse the file or ignore a tensor for a reason other than its
        name, or if the kind of adapter is not supported.
    """
    folder, params = Path(folder), {name: a for name, a in params.items() if name not in head_arrays(params)}
    fields_path, path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    fields = read_fields(fields_path)
    tensors = cast(path, read_tensors(path)[0], params["tok_emb.weight"].dtype)
    if not tensors:
        raise ValueError(f"{path}: the file has no tensors")
    score = f"{BASE}{head_name(architecture(config))}."
    named = renamed(path, tensors, partial(peft_name, score=score), repr(BASE))
    has_head = any(name.startswith(score) for name in named)
    read_as = {**fields, "task_type": "SEQ_CLS"} if has_head else fields
    report = peft_report(fields_path, read_as, named, params, config, table_of_names(named, config))
    if not fields.get("target_modules"):  # the file need not have all of PEFT's default targets
        report = report._replace(layers=[layer for layer in report.layers if layer.status != NO_TENSORS], refused=[])
    adapted, scales, head = arrays_of(path, report, params, (DEFAULT_NOTE, TIED))
    if report.refused:
        raise ValueError(f"{fields_path}: {report.refused[0]}")
    rslora = fields.get("use_rslora", False)
    alphas = {name: alpha_of(scale, len(adapted[name]["lora_A"]), rslora) for name, scale in scales.items()}
    is_zero = not any(array.any() for own in adapted.values() for array in own.values())
    if is_zero and head:  # `save_peft` writes such a layer if only a head was trained
        adapted, alphas = {}, {}
    with errors_of(folder):
        adapter = adapter_of(params, adapted, alphas, head, our_fields(fields, report.kind))
    keys = foreign_keys()["adapter_config.json"]
    warn_of_unknown(fields_path, [name for name in adapter.config.extra if name not in keys])
    name = head_name(architecture(config))
    is_read = name in saved_modules(fields)  # otherwise PEFT ignores the head
    ignored = [key for key, theirs in zip(tensors, named) if key != theirs or theirs.startswith(score) and not is_read]
    if ignored:
        expected = f"expected the prefix {BASE!r} in every name, and the head {name!r} in modules_to_save"
        warnings.warn(f"{path}: PEFT would ignore {shown(', '.join(ignored))}; {expected}", stacklevel=2)
    return adapter


def peft_name(key, score):
    """Return PEFT's name for a tensor: `key` with PEFT's prefix, or with the prefix `score` for a head."""
    module, _, leaf = key.removeprefix(BASE).rpartition(".")
    return score + leaf if module in HEADS else BASE + key.removeprefix(BASE)


def our_fields(fields, kind):
    """Convert PEFT's `fields` to those of our configuration that do not depend on the layers."""
    own = keys_with(foreign_keys()["adapter_config.json"], "read", tuple)
    return {
        "rslora": bool(fields.get("use_rslora")),
        "dropout": fields.get("lora_dropout", 0.0),
        "init": "gaussian" if fields.get("init_lora_weights") == "gaussian" else "kaiming",
        "kind": kind,
        "extra": {name: value for name, value in fields.items() if name not in own},
    }


def arrays_of(path, report, params, harmless):
    """The arrays in an AdapterReport of a program that would apply each of its layers.

    Parameters
    ----------
    path : the file's path, for messages
    report : AdapterReport
    params : dict of the base's weights
    harmless : notes that are not faults

    Returns
    -------
    adapted : dict, our name for a layer -> its factors
    scales : dict, our name for a layer -> its scale
    head : dict of the arrays of a classification head; empty if there is none

    Raises
    ------
    ValueError
        For the first layer with a fault, or which this package cannot adapt.
    """
    adapted, scales, head = {}, {}, {}
    for layer in sorted(report.layers, key=lambda layer: layer.status == NO_TENSORS):  # the least likely cause last
        if layer.is_class_head and layer.arrays:
            head |= {f"head.{leaf}": array for leaf, array in layer.arrays.items()}
            continue
        notes = [note for note in layer.notes if note not in harmless]
        if layer.status != APPLIED or not layer.arrays or notes:
            raise ValueError(f"{path}: {shown(layer.name)}: {'; '.join(notes) or NOT_HERE}")
        if not is_adaptable(layer.ours):
            raise ValueError(f"{path}: {layer.name} is not a linear layer in the base's blocks; {NOT_HERE}")
        frozen = [params[f"{name}.weight"] for name in layer.ours]
        for name, own in split_factors(layer.arrays, layer.ours, frozen).items():
            adapted[name], scales[name] = own, layer.scale
    return adapted, scales, head


def adapter_of(params, adapted, alphas, head=(), fields=()):
    """The Adapter with these factors and alphas of each layer; `fields` are further ones of its configuration."""
    fields, order = dict(fields), [name for name in linear_layers(params) if name in adapted]
    leaves = LEAVES[fields.setdefault("kind", "lora")]
    weights = {f"{name}.{leaf}": adapted[name][leaf] for name in order for leaf in leaves} | dict(head)
    r, rank_pattern = compact_pattern({name: len(own["lora_A"]) for name, own in adapted.items()} or {"": 8})
    alpha, alpha_pattern = compact_pattern(alphas or {"": 8.0})  # without layers, PEFT's defaults
    patterns = {"rank_pattern": rank_pattern, "alpha_pattern": alpha_pattern, "train_head": bool(head)}
    targets = compact_targets(order, linear_layers(params))
    adapter = Adapter(AdapterConfig(r=r, alpha=alpha, targets=targets, **patterns, **fields), weights)
    fitting_arrays(params, adapter)
    return adapter


def save_peft(folder, adapter, params, config, base=None, metadata=None):
    """Write an adapter in PEFT's format, for use with the model that `save_hf` writes.

    With mean pooling, a classifier's head is written only by `save_hf`, because transformers has no such classifier.

    rate_factors and norm_gradient are not written, because they affect only training and PEFT has no such fields.

    Parameters
    ----------
    folder : folder to write; created if needed
    adapter : LoRA, DoRA or QA-LoRA Adapter (QA-LoRA is written as a LoRA adapter with the same update); the tensor
        names in the file have the prefix of a model with a head, such as "transformer."
    params : dict of the base's weights; the classification head is also taken from here if the adapter has none
    config : the base's configuration
    base : str or None, the base's name or path for PEFT (base_model_name_or_path)
    metadata : dict of str -> str, additional metadata for the tensor file, or None
    """
    adapter = as_lora(params, adapter)
    settings = adapter.config
    if settings.kind not in LEAVES:
        remedy = "export it with --to merged, or convert it to LoRA with lora_np.adapters.compress"
        raise ValueError(f"adapter: got kind {settings.kind!r}, expected 'lora' or 'dora'; {remedy}")
    check_init(settings)
    if HEAD in adapter.weights and not config.n_classes:
        raise ValueError("adapter: replaces a language model's head; export it with --to merged")
    tensors, ranks, alphas, layers = {}, {}, {}, linear_names(config, "hf")
    for module, (joined, scale, _) in joined_layers(params, adapter, config, "hf").items():
        tensors |= {f"{BASE}{module}.{leaf}{SUFFIX[leaf]}": array for leaf, array in joined.items()}
        ranks[module] = len(joined["lora_A"])
        alphas[module] = alpha_of(scale, ranks[module], settings.rslora)
    if not tensors:  # PEFT requires an adapted layer; with A = B = 0, it has no effect
        module, names = next(iter(layers.items()))
        weights = [params[f"{name}.weight"] for name in names]
        shapes = {"lora_A": (1, config.d_model), "lora_B": (sum(map(len, weights)), 1)}
        tensors = {f"{BASE}{module}.{leaf}.weight": np.zeros(shape, weights[0].dtype) for leaf, shape in shapes.items()}
        settings, ranks[module], alphas[module] = replace(settings, kind="lora"), 1, 1.0
    if includes_head(config):
        prefix = f"{BASE}{head_name(architecture(config))}"
        for name, array in {**head_arrays(params), **head_arrays(adapter.weights)}.items():
            tensors[prefix + name.removeprefix("head")] = array
    fields = peft_fields(settings, ranks, alphas, layers, config, base)
    names = "adapter_model.safetensors", "adapter_config.json"
    metadata = {"format": "pt", **(metadata or {})}
    write_pair(folder, names, tensors, fields, metadata=metadata, check=lambda new: load_peft(new, params, config))


def includes_head(config):
    """Whether an adapter's file includes the classification head; if not, the base's directory has the head."""
    return config.n_classes > 0 and has_class(config)


def peft_fields(settings, ranks, alphas, layers, config, base):
    """The fields of `adapter_config.json`, sorted as PEFT sorts them."""
    name = short_names(layers).get

    def number(value):
        return int(value) if value == int(value) else value

    r, rank_pattern = compact_pattern(ranks, name)
    alpha, alpha_pattern = compact_pattern(alphas, name)
    with_head = includes_head(config)
    task_type = "SEQ_CLS" if with_head else "CAUSAL_LM" if architecture(config).writes else "FEATURE_EXTRACTION"
    fields = {
        **settings.extra,
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "r": r,
        "lora_alpha": number(alpha),
        "lora_dropout": settings.dropout,
        "rank_pattern": rank_pattern,
        "alpha_pattern": {key: number(value) for key, value in alpha_pattern.items()},
        "use_rslora": settings.rslora,
        "use_dora": settings.kind == "dora",
        "bias": "none",
        "fan_in_fan_out": bool(architecture(config).hf_transposed),
        "target_modules": list(compact_targets(ranks, layers, name)),
        "modules_to_save": [head_name(architecture(config))] if with_head else None,
        "init_lora_weights": "gaussian" if settings.init == "gaussian" else True,
        "inference_mode": True,
    }
    return dict(sorted(fields.items()))
