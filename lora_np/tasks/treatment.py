"""What a program does with each layer of an adapter's file, and what llama.cpp and this package expect of one.

The files are read as they are, because the faults are what matters. A Program is one description for all three; what
PEFT expects is in `peft_treatment.py`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import HEAD, linear_layers, module_config, scaling
from ..adapters.config import matches
from ..checked import quoted
from ..formats.hugging_face import bare
from ..formats.llama import in_rotation_order
from ..formats.names import FILES, is_llama, layer_names
from ..formats.peft import LEAVES, shape_fault
from ..formats.peft_config import alpha_of

APPLIED, IGNORED, REFUSED, NO_TENSORS = "applied", "ignored", "refused", "no tensors"
GGUF_NAME = re.compile(r"(.+)\.weight\.(lora_[ab])")
OUR_NAMES = {kind: re.compile(rf"(.+)\.({'|'.join(leaves)})") for kind, leaves in LEAVES.items()}

SPELLINGS = {"lora_a": "lora_A", "lora_b": "lora_B", "lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


class Layer(NamedTuple):
    """A layer of the file, or a target that the file lacks."""

    name: str  # the base's name of it, or if it has none the file's
    status: str
    notes: tuple[str, ...] = ()  # what is wrong
    ours: tuple[str, ...] = ()  # the layers of the base, by our names
    arrays: dict = {}  # of an applied layer: A (r, in), B (out, r), DoRA's m (out,); or a whole "weight" or "bias"
    rank: int | None = None
    scale: float | None = None
    scale_from: str | None = None


class Program(NamedTuple):
    """What a program expects of a file."""

    names: dict  # the base's name of each layer that it can adapt -> our layers in it
    targets: list[str]  # those that it adapts
    missing: dict  # each array of a layer -> (status, note) of a layer without it
    scale_of: Callable  # (name, arrays) -> (rank, scale, what it comes from other than plain fields, or "")
    rslora: bool = False
    misfit: str = REFUSED  # status of a layer that is none of the targets
    prefix: str = ""  # in front of the names in the file
    notes: dict = {}  # layer -> more notes


class Treatment(NamedTuple):
    """What a program makes of a file."""

    program: str
    kind: str  # "lora" or "dora"
    layers: list[Layer]
    refused: list[str]  # why it refuses the file, other than for its layers


def by_layer(tensors, pattern):
    """The factors {layer: {"lora_A": …}} of the names that a pattern (layer)(array) fits, and the other tensors."""
    factors, others = {}, {}
    for key, tensor in tensors.items():
        array = np.asarray(tensor).real  # PyTorch drops imaginary parts too
        if match := pattern.fullmatch(key):
            factors.setdefault(match[1], {})[SPELLINGS.get(match[2], match[2])] = array
        else:
            others[key] = array
    return factors, others


def treat(program, factors, params, others=()):
    """The Layers in the base's order: those of the factors, targets that the file lacks, and `others`."""
    layers = [(layer.name, layer) for layer in others]
    for key, arrays in factors.items():
        name = key.removeprefix(program.prefix)
        if name in program.names and key.startswith(program.prefix):
            layers.append((name, treat_layer(program, name, arrays, params)))
        else:
            name, note = misnamed(key, program.names, params, program.prefix)
            layers.append((name, Layer(key, program.misfit, (note,))))
    lacking = set(program.targets).difference(name for name, _ in layers)
    layers += [(name, Layer(name, NO_TENSORS, ("a target without tensors",))) for name in lacking]
    place = {name: i for i, name in enumerate(program.names)}
    return [layer for _, layer in sorted(layers, key=lambda pair: place.get(pair[0], len(place)))]


def treat_layer(program, name, arrays, params):
    """The Layer of the base's layer of this name."""
    if name not in program.targets:
        return Layer(name, program.misfit, ("not a target of the configuration",))
    for leaf, (status, note) in program.missing.items():
        if leaf not in arrays:
            return Layer(name, status, (note,))
    ours = program.names[name]
    try:
        rank, scale, source = program.scale_of(name, arrays)
        fault = shape_fault(arrays, rank, *base_weight(params, ours).shape)
    except ValueError as error:
        fault = str(error)
    if fault:
        return Layer(name, REFUSED, (fault,))
    notes = [f"{leaf} is ignored" for leaf in arrays if leaf not in program.missing]
    arrays = {leaf: arrays[leaf] for leaf in program.missing}
    numbers = f"{alpha_of(scale, rank, program.rslora):g}/{'√' if program.rslora else ''}{rank}"
    source = f"{source}: {numbers}" if source else numbers
    return Layer(name, APPLIED, (*notes, *program.notes.get(name, ())), ours, arrays, rank, scale, source)


def base_array(params, ours, leaf="weight"):
    """The base's weight or bias that layers of ours share in a file, or None; the head may be tied to the embedding."""
    if ours == ("head",) and HEAD not in params:
        ours = ("tok_emb",)
    arrays = [np.asarray(params[f"{name}.{leaf}"]) for name in ours if f"{name}.{leaf}" in params]
    return np.concatenate(arrays) if arrays else None


def base_weight(params, ours):
    """The weight (out, in) that factors are added to; an embedding's is transposed."""
    weight = base_array(params, ours)
    return weight.T if ours[0].endswith("_emb") else weight


def misnamed(key, names, params, prefix=""):
    """The base's layer that a wrong name in a file seems to mean, or None, and what is wrong with the name."""
    ends = {layer: name for name, ours in names.items() for layer in ours}
    for file in FILES:
        ends |= {bare(name): ends.get(ours[0]) for name, ours in layer_names(params, file).items()}
    ends |= {bare(name): name for name in names}
    words = key.split(".")
    end = next((end for i in range(len(words)) if ends.get(end := ".".join(words[i:]))), None)
    if end is None:
        return None, "the base has no such layer to adapt"
    name = ends[end]
    if name.endswith(end):
        got, expected = key.removesuffix(end), (prefix + name).removesuffix(end)
        return name, f"the name begins with {got!r}, expected {expected!r}"
    return name, f"the base calls it {re.sub(r'[.][0-9]+[.]', '.N.', prefix + name)!r}"


def is_linear(ours):
    return ours[0].endswith("_proj")


# ---------------------------------------------------------------- llama.cpp and this package refuse what does not fit


def by_llama_cpp(fields, tensors, base):
    """The Treatment by llama.cpp (src/llama-adapter.cpp); `fields` and `tensors` from `read_gguf`, `base` a Task."""
    params, llama = base.params, is_llama(base.params)
    expected = {"general.type": "adapter", "general.architecture": "llama" if llama else "gpt2", "adapter.type": "lora"}
    wrong = [name for name, value in expected.items() if fields.get(name) != value]
    refused = [f"{name} is {quoted(fields.get(name))}, expected {expected[name]!r}" for name in wrong]
    alpha = fields.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float):
        refused.append(f"adapter.lora.alpha is {quoted(alpha)}, expected a float")
        alpha = 0.0

    def scale_of(name, arrays):
        rank = len(arrays["lora_A"])
        return (rank, alpha / rank, "") if alpha else (rank, 1.0, "no adapter.lora.alpha")

    names = {name: tuple(ours) for name, ours in layer_names(params, "gguf").items() if not name.endswith("_norm")}
    if base.config.n_classes:
        del names["output"]  # a classifier's head has another name
    factors, others = by_layer(tensors, GGUF_NAME)
    layers = []
    for key in others:
        is_norm = key.endswith("_norm.weight")
        note = "llama.cpp skips norms" if is_norm else "the name does not end in .lora_a or .lora_b"
        layers.append(Layer(key, IGNORED if is_norm else REFUSED, (note,)))
    for name in {"token_embd", "output"} & factors.keys():
        if HEAD not in params:
            del factors[name]
            layers.append(Layer(name, REFUSED, ("embedding and head are tied: llama.cpp adapts neither",)))
        elif name == "token_embd" and "lora_A" in factors[name]:
            factors[name]["lora_A"] = factors[name]["lora_A"].T  # stored as (V, r)
    missing = {leaf: (REFUSED, f"{leaf.lower()} is missing") for leaf in LEAVES["lora"]}
    program = Program(names, list(names.keys() & factors), missing, scale_of)
    layers = treat(program, factors, params, layers)
    for i, layer in enumerate(layers):
        if llama and layer.arrays and layer.name.endswith(("attn_q", "attn_k")):
            B = in_rotation_order(layer.arrays["lora_B"], base.config.head_size)
            layers[i] = layer._replace(arrays={**layer.arrays, "lora_B": B})
    return Treatment("llama.cpp", "lora", layers, refused)


def by_us(config, tensors, params):
    """The Treatment by `load_adapter`; `config` an AdapterConfig, `params` has the head of a classifier."""

    def scale_of(name, arrays):
        own = module_config(config, name)
        return own.r, scaling(own), ""

    names = {name: (name,) for name in linear_layers(params)}
    targets = [name for name in names if any(matches(name, target) for target in config.targets)]
    factors, others = by_layer(tensors, OUR_NAMES[config.kind])
    layers = []
    for key, array in others.items():
        if key == HEAD and config.train_head and HEAD in params and array.shape == params[HEAD].shape:
            layers.append(Layer("head", APPLIED, (), ("head",), {"weight": array}))
        else:
            layers.append(Layer(key, REFUSED, ("not a tensor of this adapter",)))
    missing = {leaf: (REFUSED, f"{leaf} is missing") for leaf in LEAVES[config.kind]}
    layers = treat(Program(names, targets, missing, scale_of, config.rslora), factors, params, layers)
    return Treatment("lora_np", config.kind, layers, [])
