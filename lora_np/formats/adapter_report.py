"""Report, for each layer of an adapter file, whether a program applies it, ignores it, or refuses the entire file.

Faults in a file are reported, not corrected. `Rules` describes what a program expects in the file.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ..adapters import HEAD, head_arrays, linear_layers, module_config, scaling
from ..adapters.config import matches
from ..adapters.dora import MAGNITUDE, row_norms
from ..checked import quoted
from ..model import add_head, architecture
from .names import FACTORS, FILES, LEAVES, bare, gguf_rows, head_name, is_adaptable, layer_names
from .peft_config import alpha_of, as_list, is_target, match_fields, rank_and_scale

APPLIED, IGNORED, REFUSED, NO_TENSORS = "applied", "ignored", "refused", "no tensors"
GGUF_NAME = re.compile(r"(.+)\.weight\.(lora_[ab])")
SPELLINGS = {"lora_a": "lora_A", "lora_b": "lora_B", "lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


class LayerReport(NamedTuple):
    """The report on a layer in the file, or on a target layer that is missing from the file."""

    name: str  # the name in the base, or in the file if the base has no such layer
    status: str
    notes: tuple[str, ...] = ()  # anything unusual
    ours: tuple[str, ...] = ()  # our names for the base's layers
    arrays: dict = {}  # of an applied layer: A (r, in), B (out, r), DoRA's m (out,); or a full "weight" or "bias"
    rank: int | None = None
    scale: float | None = None
    scale_from: str | None = None

    @property
    def is_class_head(self):
        """Whether the layer is a classification head."""
        return self.ours == ("head",) and self.name != "lm_head"


class AdapterReport(NamedTuple):
    """A report on how a program treats an adapter file."""

    program: str
    kind: str  # "lora" or "dora"
    layers: list[LayerReport]
    refused: list[str]  # why the program refuses the file, apart from the reasons in the layers' notes


class Rules(NamedTuple):
    """The layers, arrays and scales that a program expects in a file."""

    names: dict  # the base's name for an adaptable layer -> our names for its parts
    targets: list[str]  # names of the layers that the program adapts
    missing: dict  # array -> (status, note) of a layer without this array
    scale_of: Callable  # name of a layer -> (rank, scale, source of the scale or "")
    rslora: bool = False
    misfit: str = REFUSED  # status of layers that are not targets
    prefix: str = ""  # prefix of all names in the file
    notes: dict = {}  # name of a layer -> additional notes


def split_by_layer(tensors, pattern):
    """Split tensors into factors, {layer: {"lora_A": …}}, and others; `pattern` captures the layer and the array."""
    factors, others = {}, {}
    for key, tensor in tensors.items():
        array = np.asarray(tensor).real  # like PyTorch, drop the imaginary part
        if match := pattern.fullmatch(key):
            factors.setdefault(match[1], {})[SPELLINGS.get(match[2], match[2])] = array
        else:
            others[key] = array
    return factors, others


def report_layers(rules, factors, params, config, others=()):
    """The LayerReports of layers with factors and of targets without any, plus `others`, in the base's layer order."""
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
    """The LayerReport of a layer, given its name in the base."""
    if name not in rules.targets:
        return LayerReport(name, rules.misfit, ("not a target of the configuration",))
    ours, defaults = rules.names[name], []
    weight = base_weight(params, ours)
    for leaf, (status, note) in rules.missing.items():
        if leaf not in arrays and (leaf != MAGNITUDE or status != APPLIED):
            return LayerReport(name, status, (note,))
        if leaf not in arrays:
            arrays = {**arrays, MAGNITUDE: row_norms(weight)}
            defaults.append(note)
    try:
        rank, scale, source = rules.scale_of(name)
        fault = shape_fault(arrays, rank, *weight.shape)
    except ValueError as error:
        fault = str(error)
    if fault:
        return LayerReport(name, REFUSED, (fault,))
    notes = [f"{leaf} is ignored" for leaf in arrays if leaf not in rules.missing]
    arrays = {leaf: arrays[leaf] for leaf in rules.missing}
    numbers = f"{alpha_of(scale, rank, rules.rslora):g}/{'√' if rules.rslora else ''}{rank}"
    source = f"{source}: {numbers}" if source else numbers
    notes = (*defaults, *notes, *rules.notes.get(name, ()))
    return LayerReport(name, APPLIED, notes, ours, arrays, rank, scale, source)


def shape_fault(factors, r, n_out, n_in):
    """Describe mismatched shapes and the likely mistake, or return None if A is (r, in), B (out, r) and m (out,)."""
    if MAGNITUDE in factors and factors[MAGNITUDE].shape != (n_out,):
        return f"{MAGNITUDE} {factors[MAGNITUDE].shape}, expected {(n_out,)}"
    A, B = (factors[factor].shape for factor in FACTORS)
    if (A, B) == ((r, n_in), (n_out, r)):
        return None
    first, last = A[:1], A[-1:]  # either size may be the rank
    guesses = {
        "they look swapped": ((n_out, *last), (*last, n_in)),
        "they look transposed": ((n_in, *last), (*last, n_out)),
        f"they have rank {A and A[0]}, but the configuration says {r}": ((*first, n_in), (n_out, *first)),
    }
    likely = [guess for guess, shapes in guesses.items() if (A, B) == shapes] or ["wrong shape for this base"]
    return f"lora_A {A} and lora_B {B}, expected {(r, n_in)} and {(n_out, r)}: {' or '.join(likely)}"


def base_array(params, ours, leaf="weight"):
    """The base's weight or bias of the layers `ours` (stacked if several), or None. A tied head uses the embedding."""
    if ours == ("head",) and HEAD not in params:
        ours = ("tok_emb",)
    arrays = [np.asarray(params[f"{name}.{leaf}"]) for name in ours if f"{name}.{leaf}" in params]
    return np.concatenate(arrays) if arrays else None


def base_weight(params, ours):
    """The base's weight (out, in), to which the product B A is added; an embedding is transposed."""
    weight = base_array(params, ours)
    return weight.T if ours[0].endswith("_emb") else weight


def misnamed(key, names, config, prefix=""):
    """Return the base's layer that an unknown name in a file probably refers to, or None, and a note on the mistake."""
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
    return name, f"its name in the base is {re.sub(r'[.][0-9]+[.]', '.N.', prefix + name)!r}"


# ---------------------------------------------------------------- PEFT's rules, for `load_peft` and the doctor

BASE = "base_model.model."
PEFT_NAME = re.compile(rf"(.+)\.(lora_[AB](?=\.weight$)|lora_embedding_[AB]|{MAGNITUDE})(?:\.weight)?")
DEFAULT = re.compile(r"\.default(?=(\.weight)?$)")  # the adapter's name, which PEFT omits from files
DEFAULT_NOTE = "'.default.' in the tensors' names, which only newer versions of PEFT read"
RANDOM = "lora_A is missing, so PEFT initialises it randomly"
TIED = "embedding and head are tied: merging the adapter changes both; llama.cpp refuses it"
MISSING = {
    "lora_B": (IGNORED, "lora_B is missing, so PEFT leaves it at zero"),
    "lora_A": (APPLIED, RANDOM),
    MAGNITUDE: (APPLIED, f"{MAGNITUDE} is missing, so PEFT uses the base's row norms"),
}


def peft_report(path, fields, tensors, params, config, names=None):
    """Report how PEFT loads an adapter onto a base (peft.utils.save_and_load.set_peft_model_state_dict).

    PEFT ignores unknown names. Targets without tensors keep their initial values: A is random, B is zero, and DoRA's m
    contains the row norms of W. A tensor with the same name as one of the base's weights replaces that weight. PEFT
    raises an error if shapes do not match, or if the file lacks the weight of a fully trained module (`saved_modules`).

    Parameters
    ----------
    path, fields : the path of `adapter_config.json`, for messages, and its fields, from `read_fields`
    tensors : dict, the tensors in `adapter_model.safetensors`
    params, config : the base's weights and configuration
    names : dict, name of a layer in the file, without PEFT's prefix -> our layers; None: Hugging Face's names

    Returns
    -------
    AdapterReport
    """
    kind = "dora" if fields.get("use_dora") else "lora"
    names = layer_names(config, "hf") if names is None else names
    names = {name: tuple(ours) for name, ours in names.items() if ours != ["head"]}
    saved, tied = saved_modules(fields), ()
    if fields.get("task_type") == "SEQ_CLS" or config.n_classes:
        names[head_name(architecture(config))] = ("head",)
        params = add_head(params, config, 2)[0] | head_arrays(params)  # PEFT's head has its own number of classes
    else:
        names["lm_head"] = ("head",)
        tied = (next(iter(names)), "lm_head") if HEAD not in params else ()
    if fields.get("target_modules") is None:
        fields = {**fields, "target_modules": list(architecture(config).peft_targets)}
    found, all_linear = match_fields(path, fields, names), fields["target_modules"] == "all-linear"
    targets = [n for n in names if is_target(fields, found, n) and (is_adaptable(names[n]) or not all_linear)]
    norms = [n for n in targets if not is_adaptable(names[n]) and not names[n][0].endswith(("_emb", "head"))]
    note = (DEFAULT_NOTE,) * any(DEFAULT.search(key) for key in tensors)
    notes = {name: note + (TIED,) * (name in tied) for name in names}
    factors, others = split_by_layer({DEFAULT.sub("", key): array for key, array in tensors.items()}, PEFT_NAME)
    layers = [whole_weight(key, array, names, notes, params) for key, array in others.items()]
    for name in names:
        if any(name.endswith(ending) for ending in saved) and f"{BASE}{name}.weight" not in others:
            layers.append(LayerReport(name, REFUSED, ("must be loaded in full, but its weight is missing",)))
    layers += [LayerReport(name, REFUSED, ("a target, but PEFT does not support LoRA on norms",)) for name in norms]
    refused = [] if targets else ["target_modules matches no layer of the base"]
    targets = [name for name in targets if name not in norms]
    missing = {leaf: why for leaf, why in MISSING.items() if leaf in LEAVES[kind]}
    scale_of = partial(rank_and_scale, fields, found)
    rules = Rules(names, targets, missing, scale_of, bool(fields.get("use_rslora")), IGNORED, BASE, notes)
    return AdapterReport("PEFT", kind, report_layers(rules, factors, params, config, layers), refused)


def table_of_names(tensors, config):
    """Choose the `names` for `peft_report` that a file uses: Hugging Face's, with or without their prefix, or ours."""
    names = layer_names(config, "hf")
    tables = names, {bare(name): ours for name, ours in names.items()}, {n: [n] for own in names.values() for n in own}
    modules = {match[1].removeprefix(BASE) for key in tensors if (match := PEFT_NAME.fullmatch(DEFAULT.sub("", key)))}
    return next((table for table in tables if modules & table.keys()), names)


def saved_modules(fields):
    """The name suffixes of the modules that PEFT trains, saves and loads in full, such as a classification head."""
    saved = as_list(fields.get("modules_to_save") or [])
    return saved + ["classifier", "score"] * (fields.get("task_type") == "SEQ_CLS")


def whole_weight(key, array, names, notes, params):
    """The LayerReport of a tensor that is not a factor; PEFT loads it if the base has a weight of the same name."""
    module, _, leaf = key.removeprefix(BASE).rpartition(".")
    name = module.removesuffix(".base_layer")
    old = base_array(params, names[name], leaf) if key.startswith(BASE) and name in names else None
    if old is None:
        note = "PEFT ignores tensors with this name"
        if re.search(r"(^|\.)(score|classifier|head)\.", key):
            score = next((name for name, ours in names.items() if ours == ("head",) and name != "lm_head"), None)
            wanted = f"expected {BASE}{score}.weight" if score else "the model has no classification head"
            note = f"a head that PEFT ignores: {wanted}"
        return LayerReport(key, IGNORED, (note,))
    layer = LayerReport(name, APPLIED, notes[name], names[name])
    expected = (*array.shape[:1], *old.shape[1:]) if layer.is_class_head else old.shape
    if is_adaptable(layer.ours):  # GPT-2 stores these weights in a different layout
        return layer
    if array.shape != expected:
        return layer._replace(status=REFUSED, notes=(f"{leaf} {array.shape}, expected {expected}",))
    return layer if layer.is_class_head and len(array) < 2 else layer._replace(arrays={leaf: array})


# ---------------------------------------------------------------- llama.cpp and this package

ALORA = "adapter.alora.invocation_tokens"  # of an "activated" LoRA
NO_ALPHA = "adapter.lora.alpha is"
ROW_ORDER = "B's rows are read in GGUF's order; whether they were converted to it cannot be checked"


def llama_cpp_report(fields, tensors, params, config):
    """Report how llama.cpp loads an adapter (src/llama-adapter.cpp); `fields` and `tensors` are from `read_gguf`."""
    name = architecture(config).name
    expected = {"general.type": "adapter", "general.architecture": name, "adapter.type": "lora"}
    wrong = [name for name, value in expected.items() if fields.get(name) != value]
    refused = [f"{name} is {quoted(fields.get(name))}, expected {expected[name]!r}" for name in wrong]
    alpha = fields.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float):
        refused.append(f"adapter.lora.alpha is {quoted(alpha)}, expected a float")
        alpha = 0.0

    tokens, notes = fields.get(ALORA), ()
    if tokens is not None:
        notes = (f"{ALORA} is set: llama-server applies the adapter only after these tokens",)
        if getattr(tokens, "dtype", None) != np.uint32:
            refused.append(f"{ALORA} is {quoted(tokens)}, expected an array of uint32")
    if not alpha:
        notes += (f"{NO_ALPHA} {'0' if 'adapter.lora.alpha' in fields else 'missing'}: the scale is 1",)

    def scale_of(name):
        rank = len(factors[name]["lora_A"])
        return (rank, alpha / rank, "") if alpha else (rank, 1.0, "no adapter.lora.alpha")

    names = {name: tuple(ours) for name, ours in layer_names(config, "gguf").items() if not name.endswith("_norm")}
    if config.n_classes:
        del names["output"]  # a classification head has a different name
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
    rules = Rules(names, list(names.keys() & factors), missing, scale_of, notes=dict.fromkeys(names, notes))
    layers = report_layers(rules, factors, params, config, layers)
    for i, layer in enumerate(layers):
        if layer.arrays:
            lora_B = gguf_rows(config, layer.ours[0], layer.arrays["lora_B"], back=True)
            notes = layer.notes + ((ROW_ORDER,) if lora_B is not layer.arrays["lora_B"] else ())
            layers[i] = layer._replace(arrays={**layer.arrays, "lora_B": lora_B}, notes=notes)
    return AdapterReport("llama.cpp", "lora", layers, refused)


def own_report(adapter_config, tensors, params, config):
    """Report how `load_adapter` treats an adapter file. `params` includes any classification head."""

    def scale_of(name):
        own = module_config(adapter_config, name)
        return own.r, scaling(own), ""

    kind = adapter_config.kind
    names = {name: (name,) for name in linear_layers(params)}
    targets = [name for name in names if any(matches(name, target) for target in adapter_config.targets)]
    factors, others = split_by_layer(tensors, re.compile(rf"(.+)\.({'|'.join(LEAVES[kind])})"))
    layers = []
    for key, array in others.items():
        fits = key in head_arrays(params) and array.shape == params[key].shape
        if adapter_config.train_head and fits:
            layers.append(LayerReport("head", APPLIED, (), ("head",), {key.removeprefix("head."): array}))
        else:
            layers.append(LayerReport(key, REFUSED, ("not a tensor of this adapter",)))
    missing = {leaf: (REFUSED, f"{leaf} is missing") for leaf in LEAVES[kind]}
    rules = Rules(names, targets, missing, scale_of, adapter_config.rslora)
    return AdapterReport("lora_np", kind, report_layers(rules, factors, params, config, layers), [])
