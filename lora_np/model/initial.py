"""The parameters of a model: their names, shapes and first values."""

import math
from dataclasses import replace

import numpy as np


def parameter_shapes(config):
    """Name -> shape of every parameter, in execution order.

    Linear weights are (out, in). A language model has no head of its own: `tok_emb.weight` serves
    at both ends. A classifier adds `head.weight` (n_classes, C), without bias.
    """
    C, F = config.d_model, config.d_ff
    shapes = {"tok_emb.weight": (config.vocab_size, C), "pos_emb.weight": (config.n_positions, C)}
    for i in range(config.n_layers):
        shapes |= {f"blocks.{i}.ln1.weight": (C,), f"blocks.{i}.ln1.bias": (C,)}
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes |= {f"blocks.{i}.attn.{name}.weight": (C, C), f"blocks.{i}.attn.{name}.bias": (C,)}
        shapes |= {f"blocks.{i}.ln2.weight": (C,), f"blocks.{i}.ln2.bias": (C,)}
        shapes |= {f"blocks.{i}.mlp.up_proj.weight": (F, C), f"blocks.{i}.mlp.up_proj.bias": (F,)}
        shapes |= {f"blocks.{i}.mlp.down_proj.weight": (C, F), f"blocks.{i}.mlp.down_proj.bias": (C,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    if config.n_classes:
        shapes["head.weight"] = (config.n_classes, C)
    return shapes


def initial_params(config, rng, dtype=np.float32):
    """GPT-2's initial values (Radford et al. 2019, section 2.3).

    Weights are normal with standard deviation 0.02, biases 0, layer norms 1 and 0. The two layers
    that write into the residual stream, o_proj and down_proj, are scaled down by √(2 · n_layers):
    the stream is a sum of that many branches, and its variance should not grow with the depth.

    Parameters
    ----------
    config : ModelConfig
    rng : np.random.Generator
    dtype : np.float32 or np.float64

    Returns
    -------
    dict, name -> array, in execution order
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype: got {np.dtype(dtype)}, expected float32 or float64")
    params = {}
    for name, shape in parameter_shapes(config).items():
        if name.endswith(".bias"):
            value = np.zeros(shape)
        elif len(shape) == 1:
            value = np.ones(shape)
        else:
            writes_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 / math.sqrt(2 * config.n_layers) if writes_residual else 0.02
            value = rng.normal(0.0, std, shape)
        params[name] = value.astype(dtype)
    return params


def add_head(params, config, n_classes, rng):
    """Turn a language model into a classifier: a fresh head on the same weights.

    Parameters
    ----------
    params : dict of a language model or classifier; its arrays are shared, not copied
    config : its ModelConfig
    n_classes : int, at least 2
    rng : np.random.Generator

    Returns
    -------
    params : dict with a new head.weight (n_classes, C), normal with standard deviation 0.02
    config : ModelConfig with n_classes
    """
    if n_classes < 2:
        raise ValueError(f"n_classes: got {n_classes}, expected at least 2")
    config = replace(config, n_classes=n_classes)
    dtype = params["tok_emb.weight"].dtype
    head = rng.normal(0.0, 0.02, (n_classes, config.d_model)).astype(dtype)
    return {**params, "head.weight": head}, config
