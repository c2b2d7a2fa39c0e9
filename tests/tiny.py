"""Tiny models and adapters for tests, with every number random; and changes of the files that hold some.

All sizes differ from one another, and no array is zero or one throughout as it would be in a fresh model: a swapped
axis, a forgotten bias or a forgotten layer-norm weight then changes a number.
"""

import json

import numpy as np

from lora_np.adapters import Adapter, AdapterConfig, init_adapter
from lora_np.analysis import random_directions
from lora_np.data import Batch
from lora_np.formats import read_tensors, write_json, write_tensors
from lora_np.model import BertConfig, GPT2Config, LlamaConfig, parameter_shapes

LLAMA = {"rms_norm_eps": 0.5, "rope_theta": 3.0}  # far from the defaults, so that a lost one shows


def tiny_config(**changes):
    """Configuration of a language model: V = 13, C = 12, two blocks of 3 heads, F = 20, 7 positions."""
    sizes = {"vocab_size": 13, "n_positions": 7, "d_model": 12, "n_layers": 2, "n_heads": 3, "d_ff": 20}
    return GPT2Config(**{**sizes, **changes})


def tiny_llama(**changes):
    """Configuration of a Llama: V = 13, C = 12, two blocks of 6 heads of size 6 over 2 keys, F = 20, 7 positions."""
    sizes = {"vocab_size": 13, "n_positions": 7, "d_model": 12, "n_layers": 2, "n_heads": 6, "n_kv_heads": 2}
    return LlamaConfig(**{**sizes, "head_size": 6, "d_ff": 20, **changes})


CONFIGS = {  # of all architectures
    "language": tiny_config(),
    "classifier": tiny_config(n_classes=4),
    "llama": tiny_llama(**LLAMA),
    "llama classifier": tiny_llama(n_classes=4, **LLAMA),
    "bert": BertConfig(13, 7, 12, 2, 3, 20, n_classes=4),
}
LANGUAGES, CLASSIFIERS = (
    {name: c for name, c in CONFIGS.items() if name != "bert" and (c.n_classes > 0) is n} for n in (False, True)
)


def random_params(config, dtype=np.float64, seed=0, spread=0.3):
    """Parameters of a model, around 1 for the weights of norms and around 0 elsewhere."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in parameter_shapes(config).items():
        centre = 1.0 if name.endswith("weight") and len(shape) == 1 else 0.0
        params[name] = (centre + spread * rng.standard_normal(shape)).astype(dtype)
    return params


def random_batch(config, B=3, T=6, seed=0, padded=True):
    """A batch, right-padded as lora_np.data makes it; its first row fills its T positions."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, config.vocab_size, (B, T))
    lengths = np.full(B, T)
    if padded:
        lengths[1:] = rng.integers(2, T, B - 1)
    targets = rng.integers(0, config.n_classes or config.vocab_size, B if config.n_classes else (B, T))
    if not config.n_classes:
        targets[np.arange(T) >= lengths[:, None]] = -100
    return Batch(ids, targets, lengths, np.arange(B))


def copies(arrays):
    return {name: np.array(array) for name, array in arrays.items()}


def same_bits(first, second):
    """Whether two dicts have the same arrays to the bit, in the same order."""
    return list(first) == list(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)


def basis(n, k=None, seed=0):
    """n × k with orthonormal columns; a rotation of the whole space without k."""
    return random_directions(n, n if k is None else k, np.random.default_rng(seed))


def with_svd(U, sigma, V):
    """The matrix with these singular values along the first columns of U and V."""
    return (U[:, : len(sigma)] * np.array(sigma)) @ V[:, : len(sigma)].T


def random_adapter(params, seed=0, **settings):
    """An adapter with B ≠ 0; without settings, of rank 3 and alpha 6 on every linear layer."""
    config = AdapterConfig(**{"r": 3, "alpha": 6.0, "targets": ("all-linear",), **settings})
    rng = np.random.default_rng(seed)
    fresh = init_adapter(params, config, rng).weights
    return Adapter(config, {n: (0.3 * rng.standard_normal(a.shape)).astype(a.dtype) for n, a in fresh.items()})


def edit_fields(path, **changes):
    """Change fields of a JSON file; "absent" takes a field out."""
    values = json.loads(path.read_text("utf-8")) | changes
    write_json(path, {name: value for name, value in values.items() if value != "absent"})


def edit_tensors(path, change):
    """Put what `change` makes of a file's tensors in their place."""
    tensors, metadata = read_tensors(path)
    write_tensors(path, change(tensors), metadata)
