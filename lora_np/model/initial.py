"""The parameters of a model: their names, shapes and initial values."""

from dataclasses import replace

import numpy as np

from .architectures import modules


def parameter_shapes(config):
    """The shapes of all parameters, name -> shape, in execution order.

    Linear weights are (out, in). A language model with a tied head has no `head.weight`: `tok_emb.weight` is both
    the embedding and the head. A classifier adds `head.weight` (n_classes, C) and, if it is an encoder, `head.bias`.
    """
    return {name: shape for module in modules(config).values() for name, shape in module.parameter_shapes().items()}


def initial_params(config, rng, dtype=np.float32):
    """GPT-2's initial values (Radford et al. 2019, section 2.3): Gaussian weights, zero biases, norm weights of 1.

    The standard deviations come from `modules`.

    Parameters
    ----------
    config : the model's configuration
    rng : np.random.Generator
    dtype : np.float32 or np.float64

    Returns
    -------
    dict, name -> array, in execution order
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype: got {np.dtype(dtype)}, expected float32 or float64")
    params = {}
    for module in modules(config).values():
        for name, shape in module.parameter_shapes().items():
            if name.endswith(".bias"):
                value = np.zeros(shape)
            else:
                value = np.ones(shape) if module.std is None else rng.normal(0.0, module.std, shape)
            params[name] = value.astype(dtype)
    return params


def add_head(params, config, n_classes, rng=None):
    """Turn a language model into a classifier with the same weights and a new head.

    Parameters
    ----------
    params : dict of the weights of a language model or classifier; the arrays are shared, not copied
    config : its configuration
    n_classes : int, at least 2
    rng : np.random.Generator, for a head of Gaussian weights with standard deviation 0.02; None for a head of zeros

    Returns
    -------
    params : dict with a new head.weight (n_classes, C) and, for an encoder, a head.bias (n_classes,) of zeros
    config : the same configuration with the given n_classes
    """
    if n_classes < 2:
        raise ValueError(f"n_classes: got {n_classes}, expected at least 2")
    config = replace(config, n_classes=n_classes)
    head, dtype = modules(config)["head"], params["tok_emb.weight"].dtype
    arrays = {name: np.zeros(shape, dtype) for name, shape in head.parameter_shapes().items()}
    if rng is not None:
        arrays["head.weight"] = rng.normal(0.0, head.std, head.shape).astype(dtype)
    return {**params, **arrays}, config
