"""The names and storage layout of a model's layers in Hugging Face, PEFT and GGUF files.

Each architecture lists its layers' names in `Architecture.file_names`. If RoPE rotates a layer's output, GGUF stores
the two rows of each rotated pair next to each other: (0, D/2, 1, D/2 + 1, …) for a head of size D. Hugging Face and
this package use the order (0, 1, 2, …).
"""

import re
from dataclasses import replace

import numpy as np

from ..adapters import linear_layers
from ..adapters.dora import MAGNITUDE
from ..checked import shown
from ..compress import BlockWeight
from ..model import ARCHITECTURES, architecture, modules, parameter_shapes

FILES = ("hf", "gguf")
FACTORS = ("lora_A", "lora_B")
LEAVES = {"lora": FACTORS, "dora": (*FACTORS, MAGNITUDE)}  # kind of adapter -> its arrays in a file


def layer_names(config, file):
    """The names of a model's layers in Hugging Face or GGUF files.

    Parameters
    ----------
    config : the model's configuration
    file : "hf" or "gguf"

    Returns
    -------
    dict in execution order, name in the file -> names of our layers: "blk.0.attn_qkv" -> ["blocks.0.attn.q_proj", …]
    """
    rows = [line.split() for line in architecture(config).file_names.strip().splitlines()]
    in_block = [row for row in rows if "{}" in row[0]]
    first = rows.index(in_block[0])
    blocks = [[name.replace("{}", str(i)) for name in row] for i in range(config.n_layers) for row in in_block]
    rows = rows[:first] + blocks + rows[first + len(in_block) :]
    own = {layer.name for layer in modules(config).values() if layer.parameter_shapes()}
    names = {row[FILES.index(file)]: row[2:] for row in rows if row[2] in own}
    return names if file != "hf" or has_class(config) else {bare(name): ours for name, ours in names.items()}


def has_class(config):
    """Whether transformers has a class for a model with its pooling and head; it has none with mean pooling.

    A model with mean pooling is stored as an encoder whose layer names lack the prefix; see `sentence_transformers.py`.
    """
    return getattr(config, "pooling", None) != "mean"


def head_name(record):
    """The name of an architecture's classification head in Hugging Face files."""
    name = next(line.split()[0] for line in record.file_names.splitlines() if line.split()[2:] == ["head"])
    return "score" if name == "lm_head" else name


def linear_names(config, file):
    """`layer_names`, but only for the linear layers in the blocks, which an adapter can adapt."""
    return {theirs: ours for theirs, ours in layer_names(config, file).items() if is_adaptable(ours)}


def is_adaptable(ours):
    """Whether these are names of linear layers in the blocks, the only layers that this package can adapt."""
    return bool(linear_layers(f"{name}.weight" for name in ours))


def short_names(layers):
    """Map each layer's name to a suffix that is unique within a block: "q_proj", or "attn.c_proj" in GPT-2."""
    ends = {name: re.split(r"\.\d+\.", name, maxsplit=1)[-1] for name in layers}
    last = {end: end.rpartition(".")[2] for end in ends.values()}
    is_clear = len(set(last.values())) == len(last)
    return {name: last[end] if is_clear else end for name, end in ends.items()}


def bare(name):
    """Remove the prefix, such as "transformer.", that names have in the Hugging Face file of a model with a head."""
    prefixes = [record.file_names.split(".", 1)[0].strip() + "." for record in ARCHITECTURES.values()]
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)


def layout(config, file="hf"):
    """Yield (name in the file, our names, stored shape, whether transposed) for each tensor, in execution order."""
    shapes = parameter_shapes(config)
    for layer, ours in layer_names(config, file).items():
        transposed = file == "hf" and layer.rpartition(".")[2] in architecture(config).hf_transposed
        for leaf in ("weight", "bias"):
            names = [f"{name}.{leaf}" for name in ours]
            if names[0] in shapes:
                n_out, *n_in = shapes[names[0]]
                shape = (len(names) * n_out, *n_in)
                theirs = head_name(architecture(config)) if ours == ["head"] and config.n_classes else layer
                yield f"{theirs}.{leaf}", names, shape[::-1] if transposed else shape, transposed


def stored_tensors(params, config, file):
    """Yield (name in the file, weight as stored in the file) for each of a model's tensors, in execution order."""
    for theirs, ours, _, transposed in layout(config, file):
        weight = np.concatenate([params[name] for name in ours]) if len(ours) > 1 else params[ours[0]]
        if file == "gguf":
            weight = gguf_rows(config, ours[0].rpartition(".")[0], weight)
        yield theirs, weight.T if transposed else weight


def renamed(path, tensors, name_of, difference):
    """Rename a file's tensors. Raises ValueError if two names that differed only by `difference` become equal."""
    by_name = {}
    for key, tensor in tensors.items():
        name = name_of(key)
        if name in by_name:
            raise ValueError(f"{path}: repeated name {shown(name)}, with and without {difference}")
        by_name[name] = tensor
    return by_name


def gguf_rows(config, layer, array, back=False):
    """Reorder the rows of a layer's weight, bias or lora_B to match GGUF's order.

    Parameters
    ----------
    config : the model's configuration
    layer : str, our name for the layer
    array : array (out, …) or BlockWeight; only the order of the rows changes, so the result is exact
    back : bool, convert from GGUF's order to ours instead
    """
    if layer.rpartition(".")[2] not in architecture(config).gguf_interleaved:
        return array
    pairs = (config.head_size // 2, 2) if back else (2, config.head_size // 2)
    order = np.arange(array.shape[0]).reshape(-1, *pairs).swapaxes(1, 2).reshape(-1)
    if isinstance(array, BlockWeight):
        return replace(array, blocks=array.blocks[order])
    return array[order]
