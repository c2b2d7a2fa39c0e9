"""The weight update ΔW = after − before, as a flat dict, and its best approximation of rank k."""

import numpy as np

from ..adapters import linear_layers
from ..checked import same_shape
from .spectra import leading_part, svd


def weight_updates(before, after):
    """after − before for every name that both have.

    Parameters
    ----------
    before, after : dicts of arrays, or of quantised weights

    Returns
    -------
    dict of arrays, in `before`'s order

    Raises
    ------
    ValueError
        If an array has another shape in the other model.
    """
    common = [name for name in before if name in after]
    for name in common:
        same_shape(f"after[{name!r}]", after[name], before[name])
    return {name: np.asarray(after[name]) - np.asarray(before[name]) for name in common}


def linear_updates(before, after):
    """`weight_updates` of the blocks' linear layers alone: the matrices that LoRA can adapt."""
    return weight_updates({name: before[name] for name in linear_weights(before)}, after)


def linear_weights(params):
    """The names of the blocks' linear layers' weights."""
    return [f"{module}.weight" for module in linear_layers(params)]


def truncated_updates(before, after, ranks):
    """The trained model with each linear layer's update cut to its k leading directions, for each k.

    Everything else (embeddings, layer norms, biases, head) stays as trained, so only k varies.

    Parameters
    ----------
    before, after : dicts of arrays, the base and the fully fine-tuned model
    ranks : iterable of int; 0 leaves the linear layers as they were in the base

    Yields
    ------
    (k, params) with after's names
    """
    # Decompose once for all ranks, because that is the expensive part.
    factors = {name: svd(update) for name, update in linear_updates(before, after).items()}
    for k in ranks:
        cut = {
            name: np.asarray(before[name]) + leading_part(*usv, k).astype(before[name].dtype)
            for name, usv in factors.items()
        }
        yield k, {**after, **cut}
