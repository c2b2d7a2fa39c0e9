"""What a program does with each layer of an adapter's file: apply it, ignore it, or refuse the file.

The files are read as they are, because their faults are what matters. `Rules` is one description for all programs. Here
are the rules of llama.cpp and of this package; PEFT's are in `peft_report.py`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import HEAD, linear_layers, module_config, scaling
from ..adapters.config import matches
from ..adapters.dora import MAGNITUDE
from ..checked import quoted
from ..model import architecture
from .names import FILES, bare, gguf_rows, layer_names
from .peft_config import alpha_of

APPLIED, IGNORED, REFUSED, NO_TENSORS = "applied", "ignored", "refused", "no tensors"
FACTORS = ("lora_A", "lora_B")
LEAVES = {"lora": FACTORS, "dora": (*FACTORS, MAGNITUDE)}  # kind of adapter -> its arrays in a file
GGUF_NAME = re.compile(r"(.+)\.weight\.(lora_[ab])")
OUR_NAMES = {kind: re.compile(rf"(.+)\.({'|'.join(leaves)})") for kind, leaves in LEAVES.items()}
SPELLINGS = {"lora_a": "lora_A", "lora_b": "lora_B", "lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


class LayerReport(NamedTuple):
    """A layer of the file, or a target that the file lacks."""

    name: str  # the base's name of it; the file's if the base has no such layer
    status: str
    notes: tuple[str, ...] = ()  # what is wrong
    ours: tuple[str, ...] = ()  # the layers of the base, under our names
    arrays: dict = {}  # of an applied layer: A (r, in), B (out, r), DoRA's m (out,); or a whole "weight" or "bias"
    rank: int | None = None
    scale: float | None = None
    scale_from: str | None = None


class AdapterReport(NamedTuple):
    """What a program does with a file."""

    program: str
    kind: str  # "lora" or "dora"
    layers: list[LayerReport]
    refused: list[str]  # why it refuses the file, except for reasons in a layer's notes


class Rules(NamedTuple):
    """What a program expects of a file."""

    names: dict  # the base's name of each layer that it can adapt -> our layers in it
    targets: list[str]  # those that it adapts
    missing: dict  # each array of a layer -> (status, note) of a layer without it
    scale_of: Callable  # (name, arrays) -> (rank, scale, its source unless that is plain fields)
    rslora: bool = False
    misfit: str = REFUSED  # status of layers that are not targets
    prefix: str = ""  # in front of the names in the file
    notes: dict = {}  # layer -> more notes


def split_by_layer(tensors, pattern):
    """The factors {layer: {"lora_A": …}} of the names that a pattern (layer)(array) fits, and the other tensors."""
    factors, others = {}, {}
    for key, tensor in tensors.items():
        array = np.asarray(tensor).real  # PyTorch drops imaginary parts too
        if match := pattern.fullmatch(key):
            factors.setdefault(match[1], {})[SPELLINGS.get(match[2], match[2])] = array
        else:
            others[key] = array
    return factors, others


def report_layers(rules, factors, params, config, others=()):
    """The LayerReports in the base's order: those of the factors, targets that the file lacks, and `others`."""
    layers = [(layer.name, layer) for layer in others]
    for key, arrays in factors.items():
        name = key.removeprefix(rules.prefix)
        if name in rules.names and key.startswith(rules.prefix):
            layers.append((name, report_layer(rules, name, arrays, params)))
        else:
            name, note = misnamed(key, rules.names, config, rules.prefix)
            layers.append((name, LayerReport(key, rules.misfit, (note,))))
    lacking = set(rules.targets).difference(name for name, _ in layers)
    layers += [(name, LayerReport(name, NO_TENSORS, ("a target without tensors",))) for name in lacking]
    place = {name: i for i, name in enumerate(rules.names)}
    return [layer for _, layer in sorted(layers, key=lambda pair: place.get(pair[0], len(place)))]


def report_layer(rules, name, arrays, params):
    """The LayerReport of the base's layer of this name."""
    if name not in rules.targets:
        return LayerReport(name, rules.misfit, ("not a target of the configuration",))
    for leaf, (status, note) in rules.missing.items():
        if leaf not in arrays:
            return LayerReport(name, status, (note,))
    ours = rules.names[name]
    try:
        rank, scale, source = rules.scale_of(name, arrays)
        fault = shape_fault(arrays, rank, *base_weight(params, ours).shape)
    except ValueError as error:
        fault = str(error)
    if fault:
        return LayerReport(name, REFUSED, (fault,))
    notes = [f"{leaf} is ignored" for leaf in arrays if leaf not in rules.missing]
    arrays = {leaf: arrays[leaf] for leaf in rules.missing}
    numbers = f"{alpha_of(scale, rank, rules.rslora):g}/{'√' if rules.rslora else ''}{rank}"
    source = f"{source}: {numbers}" if source else numbers
    return LayerReport(name, APPLIED, (*notes, *rules.notes.get(name, ())), ours, arrays, rank, scale, source)


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


def base_array(params, ours, leaf="weight"):
    """The base's weight or bias of the layers that a file stores as one, or None; a head may be tied."""
    if ours == ("head",) and HEAD not in params:
        ours = ("tok_emb",)
    arrays = [np.asarray(params[f"{name}.{leaf}"]) for name in ours if f"{name}.{leaf}" in params]
    return np.concatenate(arrays) if arrays else None


def base_weight(params, ours):
    """The weight (out, in) that factors are added to; an embedding's is transposed."""
    weight = base_array(params, ours)
    return weight.T if ours[0].endswith("_emb") else weight


def misnamed(key, names, config, prefix=""):
    """Guess which of the base's layers a wrong name in a file means, or None; and describe the mistake."""
    ends = {layer: name for name, ours in names.items() for layer in ours}
    for file in FILES:
        ends |= {bare(name): ends.get(ours[0]) for name, ours in layer_names(config, file).items()}
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


def is_adaptable(ours):
    """Whether these layers are linear layers in the blocks, which this package can adapt."""
    return bool(linear_layers(f"{name}.weight" for name in ours))


# ---------------------------------------------------------------- llama.cpp and this package refuse what does not fit


def llama_cpp_report(fields, tensors, params, config):
    """What llama.cpp does with a file (src/llama-adapter.cpp); `fields` and `tensors` are from `read_gguf`."""
    name = architecture(config).name
    expected = {"general.type": "adapter", "general.architecture": name, "adapter.type": "lora"}
    wrong = [name for name, value in expected.items() if fields.get(name) != value]
    refused = [f"{name} is {quoted(fields.get(name))}, expected {expected[name]!r}" for name in wrong]
    alpha = fields.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float):
        refused.append(f"adapter.lora.alpha is {quoted(alpha)}, expected a float")
        alpha = 0.0

    def scale_of(name, arrays):
        rank = len(arrays["lora_A"])
        return (rank, alpha / rank, "") if alpha else (rank, 1.0, "no adapter.lora.alpha")

    names = {name: tuple(ours) for name, ours in layer_names(config, "gguf").items() if not name.endswith("_norm")}
    if config.n_classes:
        del names["output"]  # a classifier's head has another name
    factors, others = split_by_layer(tensors, GGUF_NAME)
    layers = []
    for key in others:
        is_norm = key.endswith("_norm.weight")
        note = "llama.cpp skips norms" if is_norm else "the name does not end in .lora_a or .lora_b"
        layers.append(LayerReport(key, IGNORED if is_norm else REFUSED, (note,)))
    for name in {"token_embd", "output"} & factors.keys():
        if HEAD not in params:
            del factors[name]
            layers.append(LayerReport(name, REFUSED, ("embedding and head are tied: llama.cpp adapts neither",)))
        elif name == "token_embd" and "lora_A" in factors[name]:
            factors[name]["lora_A"] = factors[name]["lora_A"].T  # stored as (V, r)
    missing = {leaf: (REFUSED, f"{leaf.lower()} is missing") for leaf in LEAVES["lora"]}
    rules = Rules(names, list(names.keys() & factors), missing, scale_of)
    layers = report_layers(rules, factors, params, config, layers)
    for i, layer in enumerate(layers):
        if layer.arrays:
            lora_B = gguf_rows(config, layer.ours[0], layer.arrays["lora_B"], back=True)
            layers[i] = layer._replace(arrays={**layer.arrays, "lora_B": lora_B})
    return AdapterReport("llama.cpp", "lora", layers, refused)


def own_report(adapter_config, tensors, params, config):
    """What `load_adapter` does with a file; `params` has the head of a classifier."""

    def scale_of(name, arrays):
        own = module_config(adapter_config, name)
        return own.r, scaling(own), ""

    kind = adapter_config.kind
    names = {name: (name,) for name in linear_layers(params)}
    targets = [name for name in names if any(matches(name, target) for target in adapter_config.targets)]
    factors, others = split_by_layer(tensors, OUR_NAMES[kind])
    layers = []
    for key, array in others.items():
        if key == HEAD and adapter_config.train_head and HEAD in params and array.shape == params[HEAD].shape:
            layers.append(LayerReport("head", APPLIED, (), ("head",), {"weight": array}))
        else:
            layers.append(LayerReport(key, REFUSED, ("not a tensor of this adapter",)))
    missing = {leaf: (REFUSED, f"{leaf} is missing") for leaf in LEAVES[kind]}
    rules = Rules(names, targets, missing, scale_of, adapter_config.rslora)
    return AdapterReport("lora_np", kind, report_layers(rules, factors, params, config, layers), [])
