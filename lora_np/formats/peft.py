"""Read and write PEFT's LoRA and DoRA adapters: `adapter_config.json` and `adapter_model.safetensors`.

A is (r, in) and B is (out, r), as ours, also for GPT-2's transposed layers: `fan_in_fan_out` is only about the base's
weight. DoRA's magnitudes m are (out,). `fused.py` converts between GPT-2's one layer `c_attn` and our three.

Factors that are transposed or exchanged do not have the shapes that the rank and the base's layer require, and are
refused. The one exception is r = in = out: all factors are square then, and the mistake cannot be seen.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..adapters import (
    HEAD,
    Adapter,
    AdapterConfig,
    compact_pattern,
    compact_targets,
    fitting_arrays,
    linear_layers,
)
from ..adapters.dora import MAGNITUDE
from ..adapters.qalora import as_lora
from ..checked import shown
from ..model import ModelConfig
from .atomic import of_one_version
from .checkpoint import cast, check_init, warn_of_unknown, write_pair
from .fused import joined_layers, split_factors
from .hugging_face import bare
from .names import is_llama, linear_names, short_names
from .peft_config import (
    DEFAULT_TARGETS,
    KNOWN,
    READ,
    alpha_of,
    as_list,
    is_target,
    match_fields,
    rank_and_scale,
    read_fields,
)
from .tensors import read_tensors

BASE = "base_model.model."
FACTORS = ("lora_A", "lora_B")
SUFFIX = {"lora_A": ".weight", "lora_B": ".weight", MAGNITUDE: ""}  # of the names in the file
HEADS = ("score.weight", "classifier.weight", HEAD)
NOT_HERE = "embeddings, norms, biases and a language model's head are not adapted here"
LEAVES = {"lora": FACTORS, "dora": (*FACTORS, MAGNITUDE)}  # by kind


# ---------------------------------------------------------------- reading


@of_one_version
def load_peft(folder, params):
    """Read an adapter that PEFT saved.

    Parameters
    ----------
    folder : the directory that `save_pretrained` wrote
    params : dict of the base's weights under our names, a GPT-2's or a Llama's

    Returns
    -------
    Adapter, of the base's dtype; for a classifier with the trained head, if the file has one

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, we do not support the kind of adapter, or it does not fit its
        configuration or the base.
    """
    folder = Path(folder)
    fields_path, path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    fields = read_fields(fields_path)
    kind, table = "dora" if fields.get("use_dora") else "lora", params["tok_emb.weight"]
    tensors = cast(path, read_tensors(path)[0], table.dtype)
    factors, head = by_layer(path, tensors, LEAVES[kind])
    adapted, alphas = {}, {}
    # PEFT's base may be a model with or without a head, which have other prefixes, or have our own names.
    theirs = linear_names(params, "hf")
    layers = theirs | {bare(name): ours for name, ours in theirs.items()} | {n: [n] for n in linear_layers(params)}
    names_targets = bool(fields.get("target_modules"))
    if fields.get("target_modules") is None:
        fields["target_modules"] = DEFAULT_TARGETS["llama" if is_llama(params) else "gpt2"]
    found = match_fields(fields_path, fields, layers)
    for module, joined in factors.items():
        if module not in layers:
            raise ValueError(f"{path}: {shown(module)} is not a linear layer in the base's blocks; {NOT_HERE}")
        names, frozen = layers[module], [params[f"{name}.weight"] for name in layers[module]]
        rank, scale = rank_and_scale(fields_path, fields, found, module)
        if fault := shape_fault(joined, rank, sum(weight.shape[0] for weight in frozen), frozen[0].shape[1]):
            raise ValueError(f"{path}: {module} has {fault}")
        for name, own in split_factors(joined, names, frozen).items():
            if name in adapted:
                raise ValueError(f"{path}: repeated layer {module}, which the file also has under another name")
            adapted[name] = own
            alphas[name] = alpha_of(scale, len(own["lora_A"]), fields.get("use_rslora", False))
    check_targets(fields_path, fields, found, list(factors), layers if names_targets else ())
    is_zero = not any(array.any() for own in adapted.values() for array in own.values())
    if is_zero and head is not None:  # a head alone, as `save_peft` writes it
        adapted, alphas = {}, {}
    order = [name for name in linear_layers(params) if name in adapted]
    weights = {f"{name}.{leaf}": adapted[name][leaf] for name in order for leaf in LEAVES[kind]}
    if head is not None:
        if head.shape[1] != table.shape[1]:
            raise ValueError(f"{path}: the head has shape {head.shape}, expected {(len(head), table.shape[1])}")
        weights[HEAD] = head
    try:
        ranks = {name: len(own["lora_A"]) for name, own in adapted.items()}
        targets = compact_targets(order, linear_layers(params))
        adapter = Adapter(our_config(fields, kind, ranks, alphas, targets, head is not None), weights)
        fitting_arrays(params, adapter)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from None
    warn_of_unknown(fields_path, [name for name in adapter.config.extra if name not in KNOWN])
    warn_of_ignored(path, fields, tensors)
    return adapter


def by_layer(path, tensors, leaves):
    """The tensors as {layer: {"lora_A": …, "lora_B": …}}, complete for the kind, and the head or None."""
    if not tensors:
        raise ValueError(f"{path}: the file has no tensors")
    factors, head = {}, None
    for key, array in tensors.items():
        name = key.removeprefix(BASE)
        module, _, leaf = name.removesuffix(".weight").rpartition(".")
        if leaf in leaves and name == f"{module}.{leaf}{SUFFIX[leaf]}":
            if leaf in factors.setdefault(module, {}):
                raise ValueError(f"{path}: repeated name {shown(name)}, with and without {BASE!r}")
            factors[module][leaf] = array
        elif name in HEADS and head is None:
            head = array
            if head.ndim != 2 or len(head) < 2:
                raise ValueError(f"{path}: {shown(key)} has shape {head.shape}, expected (n_classes, d_model)")
        else:
            expected = f"expected {', '.join(leaves)} of linear layers, and a classifier's score.weight"
            raise ValueError(f"{path}: unexpected tensor {shown(key)}; {expected}; {NOT_HERE}")
    for module, arrays in factors.items():
        for leaf in leaves:
            if leaf not in arrays:
                raise ValueError(f"{path}: {shown(module)}.{leaf}{SUFFIX[leaf]} is missing")
    return factors, head


def warn_of_ignored(path, fields, tensors):
    """Warn of tensors that PEFT would leave out without a word, because of their names or of `modules_to_save`."""
    saved = as_list(fields.get("modules_to_save") or [])
    saved += ["classifier", "score"] if fields.get("task_type") == "SEQ_CLS" else []
    is_ours = any(name.removeprefix(BASE).startswith("blocks.") for name in tensors)  # a port that kept our names

    def is_read(name):
        module = name.removeprefix(BASE).removesuffix(".weight")
        is_head = name.removeprefix(BASE) in HEADS
        return name.startswith(BASE) and (
            not is_head or (is_ours or module == "score") and any(module.endswith(ending) for ending in saved)
        )

    ignored = ", ".join(name for name in tensors if not is_read(name))
    if ignored:
        expected = f"it needs {BASE!r} in front of every name, and a head 'score' that modules_to_save lists"
        warnings.warn(f"{path}: PEFT would ignore {shown(ignored)}; {expected}", stacklevel=3)


def check_targets(path, fields, found, modules, layers):
    """Raise ValueError unless the file has exactly the layers that the configuration targets, of these `layers`.

    PEFT would ignore the tensors of other layers, and initialise targets without tensors from scratch.
    """
    root = modules[0].partition(".")[0] if modules else None  # "transformer", "h" or "blocks", as this file has it
    for module in modules:
        if module.partition(".")[0] != root:
            raise ValueError(f"{path}: the file has adapters on {modules[0]} and {module}, which no one model has")
        if not is_target(fields, found, module):
            raise ValueError(f"{path}: the file has an adapter on {module}, which is not a target")
    for module in layers:
        if module.partition(".")[0] == root and module not in modules and is_target(fields, found, module):
            raise ValueError(f"{path}: {module} is a target, but the file has no adapter for it")


def shape_fault(factors, r, n_out, n_in):
    """What is wrong with the shapes, with the likely mistake; None if A is (r, in), B (out, r) and DoRA's m (out,)."""
    if MAGNITUDE in factors and factors[MAGNITUDE].shape != (n_out,):
        return f"{MAGNITUDE} {factors[MAGNITUDE].shape}, expected {(n_out,)}"
    A, B = (factors[factor].shape for factor in FACTORS)
    if (A, B) == ((r, n_in), (n_out, r)):
        return None
    first, last = A[:1], A[-1:]  # one of them may be the rank
    guesses = {
        "they look exchanged": ((n_out, *last), (*last, n_in)),
        "they look transposed": ((n_in, *last), (*last, n_out)),
        f"they have rank {A and A[0]}, but the configuration says {r}": ((*first, n_in), (n_out, *first)),
    }
    likely = [guess for guess, shapes in guesses.items() if (A, B) == shapes] or ["wrong shape for this base"]
    return f"lora_A {A} and lora_B {B}, expected {(r, n_in)} and {(n_out, r)}: {' or '.join(likely)}"


def our_config(fields, kind, ranks, alphas, targets, train_head):
    """Our configuration for these ranks and alphas by layer."""
    r, rank_pattern = compact_pattern(ranks or {"": 8})  # without layers, PEFT's defaults
    alpha, alpha_pattern = compact_pattern(alphas or {"": 8.0})
    return AdapterConfig(
        r=r,
        alpha=alpha,
        targets=targets,
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        rslora=fields.get("use_rslora", False),
        dropout=fields.get("lora_dropout", 0.0),
        init="gaussian" if fields.get("init_lora_weights") == "gaussian" else "kaiming",
        train_head=train_head,
        kind=kind,
        extra={name: value for name, value in fields.items() if name not in READ},
    )


# ---------------------------------------------------------------- writing


def save_peft(folder, adapter, params, config, base=None, metadata=None):
    """Write an adapter for PEFT, for the model that `save_gpt2` or `save_llama` writes.

    rate_factors and norm_gradient are not written: they only matter for training, and PEFT has no fields for them.

    Parameters
    ----------
    folder : folder to write; created if needed
    adapter : Adapter of LoRA, DoRA or QA-LoRA (written as the LoRA with the same update); the names in the file are
        those of a model with a head
    params : dict of the base's weights; a classifier's head is taken from here if the adapter has none
    config : ModelConfig or LlamaConfig of the base
    base : str or None, where PEFT will find the base (base_model_name_or_path)
    metadata : dict of str -> str, more of it for the file of tensors, or None
    """
    adapter = as_lora(params, adapter)
    settings = adapter.config
    if settings.kind not in LEAVES:
        expected = " or ".join(map(repr, LEAVES))
        remedy = "export it with --to merged, or convert it to LoRA with lora_np.adapters.compress"
        raise ValueError(f"adapter: got kind {settings.kind!r}, expected {expected}; {remedy}")
    check_init(settings)
    tensors, ranks, alphas, layers = {}, {}, {}, linear_names(params, "hf")
    for module, (joined, scale, _) in joined_layers(params, adapter, "hf").items():
        tensors |= {f"{BASE}{module}.{leaf}{SUFFIX[leaf]}": array for leaf, array in joined.items()}
        ranks[module] = len(joined["lora_A"])
        alphas[module] = alpha_of(scale, ranks[module], settings.rslora)
    if not tensors:  # PEFT needs a layer: one whose A and B are zero changes nothing
        module, names = next(iter(layers.items()))
        weights = [params[f"{name}.weight"] for name in names]
        zeros = [np.zeros((1, config.d_model)), np.zeros((sum(map(len, weights)), 1))]
        tensors = {
            f"{BASE}{module}.{leaf}.weight": array.astype(weights[0].dtype) for leaf, array in zip(FACTORS, zeros)
        }
        settings, ranks[module], alphas[module] = replace(settings, kind="lora"), 1, 1.0
    if config.n_classes:
        tensors[f"{BASE}score.weight"] = adapter.weights.get(HEAD, params.get(HEAD))
    fields = peft_fields(settings, ranks, alphas, layers, config, base)
    names = "adapter_model.safetensors", "adapter_config.json"
    metadata = {"format": "pt", **(metadata or {})}
    write_pair(folder, names, tensors, fields, metadata=metadata, check=lambda new: load_peft(new, params))


def peft_fields(settings, ranks, alphas, layers, config, base):
    """The fields of `adapter_config.json`, sorted as PEFT sorts them."""
    name = short_names(layers).get

    def number(value):
        return int(value) if value == int(value) else value

    r, rank_pattern = compact_pattern(ranks, name)
    alpha, alpha_pattern = compact_pattern(alphas, name)
    fields = {
        **settings.extra,
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if config.n_classes else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": r,
        "lora_alpha": number(alpha),
        "lora_dropout": settings.dropout,
        "rank_pattern": rank_pattern,
        "alpha_pattern": {key: number(value) for key, value in alpha_pattern.items()},
        "use_rslora": settings.rslora,
        "use_dora": settings.kind == "dora",
        "bias": "none",
        "fan_in_fan_out": isinstance(config, ModelConfig),  # GPT-2 stores its weights as (in, out)
        "target_modules": list(compact_targets(ranks, layers, name)),
        "modules_to_save": ["score"] if config.n_classes else None,
        "init_lora_weights": "gaussian" if settings.init == "gaussian" else True,
        "inference_mode": True,
    }
    return dict(sorted(fields.items()))
