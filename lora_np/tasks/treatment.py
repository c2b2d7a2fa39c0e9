"""What a program does with each layer of an adapter's file: llama.cpp with GGUF, this package with a folder of ours.

The files are read as they are, because the faults are what matters. Both programs refuse whatever does not fit. What
PEFT does is in `peft_treatment.py`.
"""

import re
from typing import NamedTuple

import numpy as np

from ..adapters import HEAD, linear_layers, module_config, scaling
from ..adapters.config import matches
from ..adapters.dora import MAGNITUDE
from ..checked import quoted
from ..formats.hugging_face import bare
from ..formats.llama import in_rotation_order
from ..formats.names import is_llama, layer_names
from ..formats.peft import FACTORS

APPLIED, IGNORED, REFUSED, NO_TENSORS = "applied", "ignored", "refused", "no tensors"
GGUF_NAME = re.compile(r"(.+)\.weight\.lora_([ab])")
OUR_NAME = re.compile(rf"(.+)\.({'|'.join([*FACTORS, MAGNITUDE])})")


class Layer(NamedTuple):
    """A layer of the file, or a target that the file lacks."""

    name: str  # the base's name of it, or if it has none the file's
    status: str
    notes: tuple[str, ...] = ()  # what is wrong
    ours: tuple[str, ...] = ()  # the layers of the base, by our names
    arrays: dict = {}  # of an applied layer: A (r, in), B (out, r), DoRA's m (out,); or a whole "weight" or "bias"
    rank: int | None = None
    scale: float | None = None
    scale_from: str = ""
    alone: bool = False  # whether it changes one use of a tied weight, so that our model cannot show its effect


class Treatment(NamedTuple):
    """What a program makes of a file."""

    program: str
    kind: str  # "lora" or "dora"
    layers: list[Layer]
    refused: list[str]  # why it refuses the file, other than for its layers


# ---------------------------------------------------------------- llama.cpp


def by_llama_cpp(fields, tensors, base):
    """The Treatment by llama.cpp (src/llama-adapter.cpp); `fields` and `tensors` from `read_gguf`, `base` a Task."""
    names = {name: tuple(ours) for name, ours in layer_names(base.params, "gguf").items()}
    if base.config.n_classes:
        del names["output"]  # a classifier's head has another name
    llama = is_llama(base.params)
    expected = {"general.type": "adapter", "general.architecture": "llama" if llama else "gpt2", "adapter.type": "lora"}
    wrong = [name for name, value in expected.items() if fields.get(name) != value]
    refused = [f"{name} is {quoted(fields.get(name))}, expected {expected[name]!r}" for name in wrong]
    alpha = fields.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float):
        refused.append(f"adapter.lora.alpha is {quoted(alpha)}, expected a float")
        alpha = 0.0
    factors, layers = {}, []
    for key, tensor in tensors.items():
        if match := GGUF_NAME.fullmatch(key):
            factors.setdefault(match[1], {})[f"lora_{match[2].upper()}"] = np.asarray(tensor)
        elif key.endswith("_norm.weight"):
            layers.append(Layer(key, IGNORED, ("llama.cpp skips norms",)))
        else:
            layers.append(Layer(key, REFUSED, ("the name does not end in .lora_a or .lora_b",)))
    for name, arrays in factors.items():
        layer = llama_cpp_layer(name, arrays, names, alpha, base)
        if layer.status == APPLIED and llama and name.endswith(("attn_q", "attn_k")):
            B = in_rotation_order(layer.arrays["lora_B"], base.config.head_size)
            layer = layer._replace(arrays={**layer.arrays, "lora_B": B})
        layers.append(layer)
    return Treatment("llama.cpp", "lora", in_order(layers, names), refused)


def llama_cpp_layer(name, arrays, names, alpha, base):
    """The Layer of a pair lora_a and lora_b, or of half of one."""
    missing = [f"lora_{half}" for half in "ab" if f"lora_{half.upper()}" not in arrays]
    if missing:
        return Layer(name, REFUSED, (f"{missing[0]} is missing",))
    if name not in names:
        is_tied = name == "output" and HEAD not in base.params
        note = "the base's head is tied to token_embd" if is_tied else misnamed(name, names, base.params)[1]
        return Layer(name, REFUSED, (note,))
    weights = [base.params[f"{layer}.weight"] for layer in names[name]]
    if name == "token_embd":  # stored as A (V, r) and B (d, r)
        if HEAD not in base.params:
            return Layer(name, REFUSED, ("tied to the head: llama.cpp aborts",))
        arrays = {"lora_A": arrays["lora_B"].T, "lora_B": arrays["lora_A"]}
    rank = arrays["lora_A"].shape[0]
    scale = alpha / rank if alpha else 1.0
    source = f"adapter.lora.alpha {alpha:g}/{rank}" if alpha else "no adapter.lora.alpha"
    n_out, n_in = sum(weight.shape[0] for weight in weights), weights[0].shape[-1]
    fault = fault_of_shapes(arrays, n_out, n_in, rank)
    layer = Layer(name, APPLIED, (), names[name], arrays, rank, scale, source)
    return layer._replace(status=REFUSED, notes=(fault,), arrays={}) if fault else layer


# ---------------------------------------------------------------- this package


def by_us(config, tensors, params):
    """The Treatment by `load_adapter`.

    Parameters
    ----------
    config : AdapterConfig
    tensors : dict, those of `adapter.safetensors`
    params : dict of the base's weights, with the head of a classifier
    """
    names = {name: (name,) for name in linear_layers(params)}
    targets = [name for name in names if any(matches(name, target) for target in config.targets)]
    factors, layers = {}, []
    leaves = FACTORS if config.kind == "lora" else (*FACTORS, MAGNITUDE)
    for key, array in tensors.items():
        match = OUR_NAME.fullmatch(key)
        if match and match[2] in leaves:
            factors.setdefault(match[1], {})[match[2]] = array
        elif key == HEAD and config.train_head and HEAD in params and array.shape == params[HEAD].shape:
            layers.append(Layer("head", APPLIED, (), ("head",), {"weight": array}))
        else:
            layers.append(Layer(key, REFUSED, ("not a tensor of this adapter",)))
    for name, arrays in factors.items():
        missing = [leaf for leaf in leaves if leaf not in arrays]
        if name not in targets:
            note = "not a target of the configuration" if name in names else misnamed(name, names, params)[1]
        elif missing:
            note = f"{missing[0]} is missing"
        else:
            note = fault_of_shapes(arrays, *params[f"{name}.weight"].shape, module_config(config, name).r)
        layer = Layer(name, REFUSED, (note,))
        if name in targets:
            own = module_config(config, name)
            source = scale_source(
                vars(config), "r", "alpha", None, lambda field, key, name=name: matches(name, key), "rslora"
            )
            layer = layer._replace(ours=(name,), rank=own.r, scale=scaling(own), scale_from=source)
        layers.append(layer if note else layer._replace(status=APPLIED, notes=(), arrays=arrays))
    layers += [Layer(name, NO_TENSORS, ("a target without tensors",)) for name in targets if name not in factors]
    return Treatment("lora_np", config.kind, in_order(layers, names), [])


# ---------------------------------------------------------------- what all have


def in_order(layers, names):
    """The layers in the base's order, and at the end those that it does not have."""
    place = {name: i for i, name in enumerate(names)}
    return sorted(layers, key=lambda layer: place.get(layer.name, len(place)))


def scale_source(fields, r, alpha, default, fits, rslora):
    """Where a layer's scale comes from, such as "16/8" or "alpha_pattern q_proj: 4/√8".

    `r` and `alpha` name the fields of rank and alpha, `default` is what both are without; `fits` is a function
    (field, key of a pattern) -> whether the key means the layer.
    """
    values, sources = [], []
    for field, name in (("rank_pattern", r), ("alpha_pattern", alpha)):
        key = next((key for key in fields.get(field) or {} if fits(field, key)), None)
        values.append(fields.get(name, default) if key is None else fields[field][key])
        sources += [f"{field} {key}"] if key is not None else [] if name in fields else [f"default {name}"]
    numbers = f"{values[1]:g}/{'√' if fields.get(rslora) else ''}{values[0]}"
    return f"{', '.join(sources)}: {numbers}" if sources else numbers


def fault_of_shapes(arrays, n_out, n_in, r):
    """What is wrong with the shapes of A, B and m, as far as they are there, in a layer (out, in); None if they fit."""
    got = [arrays[factor].shape if factor in arrays else None for factor in FACTORS]
    if MAGNITUDE in arrays and arrays[MAGNITUDE].shape != (n_out,):
        return f"m {arrays[MAGNITUDE].shape}, expected {(n_out,)}"

    def fit(*shapes):
        return all(shape is None or shape == expected for shape, expected in zip(got, shapes))

    if fit((r, n_in), (n_out, r)):
        return None
    guesses = []
    for k in sorted({size for shape in got if shape for size in shape}):
        guesses += ["exchanged"] if fit((n_out, k), (k, n_in)) else []
        guesses += ["transposed"] if fit((n_in, k), (k, n_out)) else []
        guesses += [f"of rank {k}, but the configuration says {r}"] if fit((k, n_in), (n_out, k)) else []
    shapes = ", ".join(f"{factor[-1]} {shape}" for factor, shape in zip(FACTORS, got) if shape is not None)
    expected = ", ".join(f"{x} {s}" for x, s, g in zip("AB", ((r, n_in), (n_out, r)), got) if g is not None)
    return f"{shapes}, expected {expected}: {' or '.join(guesses) or 'wrong shape for this base'}"


def misnamed(module, names, params, prefix=""):
    """The base's layer that a wrong name seems to mean, or None, and what is wrong with the name.

    Parameters
    ----------
    module : name of a layer in the file
    names : dict, the base's names of its layers -> ours
    params : dict of the base's weights
    prefix : what belongs in front of each of `names` in the file
    """
    by_ours = {ours: name for name, ours in names.items()}
    ends = {bare(name): name for name in names}
    for file in ("hf", "gguf"):
        others = {bare(name): by_ours.get(tuple(ours)) for name, ours in layer_names(params, file).items()}
        ends |= {name: theirs for name, theirs in others.items() if theirs}
    ends |= {layer: name for name, ours in names.items() for layer in ours}
    words = module.split(".")
    for i in range(len(words)):
        name = ends.get(end := ".".join(words[i:]))
        if name is not None:
            if name.endswith(end):
                got, expected = module.removesuffix(end), (prefix + name).removesuffix(end)
                return name, f"the name begins with {got!r}, expected {expected!r}"
            return name, f"the base calls it {re.sub(r'[.][0-9]+[.]', '.N.', prefix + name)!r}"
    return None, "the base has no such layer"


def is_linear(ours):
    return ours[0].endswith("_proj")
