"""PEFT's LoRA and DoRA adapters on disk, both ways: `adapter_config.json` beside `adapter_model.safetensors`.

A and B have our shapes and orientation, (r, in) and (out, r), also on GPT-2's transposed layers (`fan_in_fan_out`
speaks of the base's weight alone), and DoRA's lengths m are one for each output. GPT-2's one layer `c_attn` for our
three is the affair of `fused.py`.

Transposed or exchanged factors have other shapes than the configuration's rank and the base's layer ask for, and are
refused, with one exception: where r = in = out all are square, and nothing can tell.
"""

import re
from pathlib import Path

import numpy as np

from ..adapters import (
    HEAD,
    Adapter,
    AdapterConfig,
    compact_pattern,
    compact_targets,
    fitting_parts,
    linear_layers,
    module_config,
    scaling,
)
from ..adapters.dora import MAGNITUDE
from .checkpoint import cast, check_init, read_object, warn_of_unknown
from .fused import join_factors, join_lengths, split_factors
from .gpt2 import LINEAR, PREFIX
from .peft_config import KNOWN, OFF, READ, alpha_of, check_fields, is_target, rank_and_scale
from .tensors import read_tensors, write_json, write_tensors

BASE = "base_model.model."
LAYER = re.compile(r"(transformer\.)?h\.(\d{1,6})\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)")
FACTORS = ("lora_A", "lora_B")
SUFFIX = {"lora_A": ".weight", "lora_B": ".weight", MAGNITUDE: ""}  # of the names in the file
LEAVES = {"lora": FACTORS, "dora": (*FACTORS, MAGNITUDE)}  # by kind


# ---------------------------------------------------------------- reading


def load_peft(folder, params):
    """Read an adapter that PEFT saved.

    Parameters
    ----------
    folder : the directory that `save_pretrained` wrote
    params : dict of the base's weights in our names (`load_gpt2` makes them)

    Returns
    -------
    Adapter, of the base's dtype; with the trained head of a classifier, if it has one

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, the adapter is of a kind that ours is not, or it does not fit
        its configuration and the base: what is wrong is said by name.
    """
    folder = Path(folder)
    fields_path, path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    fields = read_object(fields_path)
    check_fields(fields_path, fields)
    tensors, _ = read_tensors(path)
    for name, array in tensors.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{path}: {name} is of dtype {array.dtype}, expected floating point")
    leaves = LEAVES["dora" if fields.get("use_dora", False) else "lora"]
    parts, head = by_layer(path, cast(path, tensors, params["tok_emb.weight"].dtype), leaves)
    layers = {module: our_layers(path, module, params) for module in parts}
    weights, ranks, alphas = {}, {}, {}
    for module, names in layers.items():
        rank, scale = rank_and_scale(fields_path, fields, module)
        frozen = [params[f"{name}.weight"] for name in names]
        check_factors(path, module, parts[module], rank, [weight.shape for weight in frozen])
        for name, own in split_factors(parts[module], names, frozen).items():
            if name in ranks:
                raise ValueError(f"{path}: repeated layer {module}, which the file has under another name too")
            weights |= {f"{name}.{leaf}": array for leaf, array in own.items()}
            ranks[name] = len(own["lora_A"])
            alphas[name] = alpha_of(scale, ranks[name], fields.get("use_rslora", False))
    check_targets(fields_path, fields, layers, params)
    order = [name for name in linear_layers(params) if name in ranks]
    weights = {f"{name}.{leaf}": weights[f"{name}.{leaf}"] for name in order for leaf in leaves}
    if head is not None:
        d_model = params["tok_emb.weight"].shape[1]
        if head.shape[1] != d_model:
            raise ValueError(f"{path}: the head has shape {head.shape}, expected {(len(head), d_model)}")
        weights[HEAD] = head
    try:
        adapter = Adapter(our_config(fields, ranks, alphas, order, params, head is not None), weights)
        fitting_parts(params, adapter)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from None
    warn_of_unknown(fields_path, [name for name in adapter.config.extra if name not in KNOWN])
    return adapter


def by_layer(path, tensors, leaves):
    """The tensors as {layer: {"lora_A": …, "lora_B": …}}, with all that the kind has, and the head or None."""
    if not tensors:
        raise ValueError(f"{path}: holds no tensors")
    parts, head = {}, None
    for key, array in tensors.items():
        name = key.removeprefix(BASE)
        module, _, leaf = name.removesuffix(".weight").rpartition(".")
        if leaf in leaves and name == f"{module}.{leaf}{SUFFIX[leaf]}":
            if leaf in parts.setdefault(module, {}):
                raise ValueError(f"{path}: repeated name {name}, with and without {BASE!r}")
            parts[module][leaf] = array
        elif name in ("score.weight", "classifier.weight", HEAD) and head is None:
            head = array
            if head.ndim != 2 or len(head) < 2:
                raise ValueError(f"{path}: {key} has shape {head.shape}, expected (n_classes, d_model)")
        else:
            known = ", ".join(leaves)
            raise ValueError(f"{path}: unexpected tensor {key}; expected {known} of layers, and score.weight")
    for module, arrays in parts.items():
        for leaf in leaves:
            if leaf not in arrays:
                raise ValueError(f"{path}: {module}.{leaf}{SUFFIX[leaf]} is missing")
    return parts, head


def our_layers(path, module, params):
    """Our layers that a layer of PEFT's base stands for, in the order of its outputs."""
    found = LAYER.fullmatch(module)
    names = [f"blocks.{found[2]}.{name}" for name in LINEAR[found[3]]] if found else [module]
    if names[0] not in linear_layers(params):
        raise ValueError(f"{path}: {module} is no linear layer of the base")
    return names


def check_targets(path, fields, layers, params):
    """Raise ValueError unless the file's layers are those that the configuration puts adapters on.

    PEFT would leave out a tensor of another layer, and start a layer without tensors anew.
    """
    for module in layers:
        if not is_target(fields, module):
            raise ValueError(f"{path}: the file has {module}, where the configuration puts no adapter")
    first = next(iter(layers), "")
    prefix, numbers = LAYER.fullmatch(first), range(sum(name.endswith(".ln1.weight") for name in params))
    theirs = [f"{prefix[1] or ''}h.{i}.{name}" for i in numbers for name in LINEAR] if prefix else linear_layers(params)
    for module in theirs if fields.get("target_modules") and layers else ():
        if module not in layers and is_target(fields, module):
            raise ValueError(f"{path}: the configuration puts an adapter on {module}, and the file has none")


def check_factors(path, module, factors, r, shapes):
    """Raise ValueError unless A is (r, in), B (out, r) and DoRA's m (out,); say what is wrong, where it can be told.

    Parameters
    ----------
    path, module : for the message
    factors : {"lora_A": …, "lora_B": …}, and of DoRA the lengths
    r : int, by the configuration
    shapes : the (out, in) of our layers that are side by side in this one
    """
    n_out, n_in = sum(shape[0] for shape in shapes), shapes[0][1]
    lengths = factors.get(MAGNITUDE)
    if lengths is not None and lengths.shape != (n_out,):
        raise ValueError(f"{path}: {module}.{MAGNITUDE} has shape {lengths.shape}, expected {(n_out,)}")
    got = tuple(factors[factor].shape for factor in FACTORS)
    if got == ((r, n_in), (n_out, r)):
        return
    text = f"{path}: {module} has lora_A {got[0]} and lora_B {got[1]}, expected {(r, n_in)} and {(n_out, r)}"
    exchanged, transposed = got == ((n_out, r), (r, n_in)), got == ((n_in, r), (r, n_out))
    if exchanged or transposed:
        guess = " or ".join(["exchanged"] * exchanged + ["transposed"] * transposed)
        raise ValueError(f"{text}: they look {guess}")
    k = got[0][0] if len(got[0]) == 2 else None
    if got == ((k, n_in), (n_out, k)):
        raise ValueError(f"{text}: they are of rank {k}, and the configuration says {r}")
    raise ValueError(text)


def our_config(fields, ranks, alphas, order, params, head):
    """Our configuration of an adapter with these ranks and alphas by layer."""
    r, rank_pattern = compact_pattern(ranks) if ranks else (8, {})
    alpha, alpha_pattern = compact_pattern(alphas) if ranks else (8.0, {})
    return AdapterConfig(
        r=r,
        alpha=alpha,
        targets=compact_targets(order, linear_layers(params)),
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        rslora=fields.get("use_rslora", False),
        dropout=fields.get("lora_dropout", 0.0),
        init="gaussian" if fields.get("init_lora_weights") == "gaussian" else "kaiming",
        train_head=head,
        kind="dora" if fields.get("use_dora", False) else "lora",
        extra={name: value for name, value in fields.items() if name not in (*READ, *OFF)},
    )


# ---------------------------------------------------------------- writing


def save_peft(folder, adapter, params, config, base=None):
    """Write an adapter as PEFT loads it onto the GPT-2 that `save_gpt2` writes.

    What matters for further training alone and PEFT has no field for, rate_factors and norm_gradient, is not written.

    Parameters
    ----------
    folder : where to; made if it is not there
    adapter : Adapter of LoRA or DoRA; its layers get the names of a model with a head, which begin with `transformer.`
    params : dict of the base's weights; a classifier's head is taken from here if the adapter has none
    config : ModelConfig of the base
    base : str or None, where PEFT will find the base (base_model_name_or_path)
    """
    if adapter.config.kind not in LEAVES:
        expected = " or ".join(map(repr, LEAVES))
        raise ValueError(f"adapter: of kind {adapter.config.kind!r}, expected {expected}; `compress` makes LoRA of it")
    check_init(adapter.config)
    folder, parts, settings = Path(folder), fitting_parts(params, adapter), adapter.config
    tensors, ranks, alphas = {}, {}, {}
    for i in range(config.n_layers):
        for theirs, ours in LINEAR.items():
            names = [f"blocks.{i}.{name}" for name in ours]
            adapted = [
                (parts[name], scaling(module_config(settings, name))) if name in parts else None for name in names
            ]
            if not any(adapted):
                continue
            frozen = [params[f"{name}.weight"] for name in names]
            lora_A, lora_B, scale = join_factors(adapted, [weight.shape[0] for weight in frozen])
            joined = {"lora_A": lora_A, "lora_B": lora_B}
            if settings.kind == "dora":
                joined[MAGNITUDE] = join_lengths(adapted, frozen)
            module = f"h.{i}.{theirs}"
            tensors |= {f"{BASE}{PREFIX}{module}.{leaf}{SUFFIX[leaf]}": array for leaf, array in joined.items()}
            ranks[module] = len(lora_A)
            alphas[module] = alpha_of(scale, ranks[module], settings.rslora)
    if config.n_classes:
        tensors[f"{BASE}score.weight"] = adapter.weights[HEAD] if HEAD in adapter.weights else params[HEAD]
    tensors = cast(folder / "adapter_model.safetensors", tensors)
    fields_path = folder / "adapter_config.json"
    fields_path.unlink(missing_ok=True)  # comes last: a folder without it was not finished
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    write_json(fields_path, peft_fields(settings, ranks, alphas, config, base))


def peft_fields(settings, ranks, alphas, config, base):
    """The fields of `adapter_config.json`, sorted as PEFT sorts them."""

    def name(module):  # "attn.c_proj": c_proj alone would be the MLP's too
        return module.split(".", 2)[2]

    def number(value):
        return int(value) if value == int(value) else value

    r, rank_pattern = compact_pattern(ranks, name) if ranks else (settings.r, {})
    alpha, alpha_pattern = compact_pattern(alphas, name) if ranks else (settings.alpha, {})
    candidates = [f"h.{i}.{theirs}" for i in range(config.n_layers) for theirs in LINEAR]
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
        "fan_in_fan_out": True,  # GPT-2's layers keep their weight as (in, out)
        "target_modules": list(compact_targets(list(ranks), candidates, name)),
        "modules_to_save": ["score"] if config.n_classes else None,
        "init_lora_weights": "gaussian" if settings.init == "gaussian" else True,
        "inference_mode": True,
    }
    return dict(sorted(fields.items()))
