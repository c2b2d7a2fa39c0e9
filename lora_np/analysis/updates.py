"""Compute weight updates ΔW = after − before as flat dicts, and truncate them to a given rank."""

import numpy as np

from ..adapters import linear_layers
from ..checked import same_shape
from .spectra import leading_part, svd


def weight_updates(before, after):
    """Compute after − before for every array that is in both models.

    Parameters
    ----------
    before, after : dicts of arrays, or of quantised weights

    Returns
    -------
    dict of arrays, in `before`'s order

    Raises
    ------
    ValueError
        If the shapes of an array differ between the models.
    """
    common = [name for name in before if name in after]
    for name in common:
        same_shape(f"after[{name!r}]", after[name], before[name])
    return {name: np.asarray(after[name]) - np.asarray(before[name]) for name in common}


def linear_updates(before, after):
    """`weight_updates` for the linear layers' weights only, which are the matrices that LoRA can adapt."""
    return weight_updates({name: before[name] for name in linear_weights(before)}, after)


def linear_weights(params):
    """The names of the linear layers' weights."""
    return [f"{module}.weight" for module in linear_layers(params)]


def truncated_updates(before, after, ranks):
    """Yield the fine-tuned model with each linear layer's update truncated to its k leading directions, for each k.

    All other arrays (embeddings, layer norms, biases, head) remain fine-tuned, so only k varies.

    Parameters
    ----------
    before, after : dicts of arrays, the base and the fully fine-tuned model
    ranks : iterable of int; with rank 0, the linear layers are the base's

    Yields
    ------
    (k, params), where params has the names of `after`
    """
    # The decompositions are expensive, so compute them once for all ranks.
    factors = {name: svd(update) for name, update in linear_updates(before, after).items()}
    for k in ranks:
        updates = {name: leading_part(*usv, k).astype(before[name].dtype) for name, usv in factors.items()}
        yield k, {**after, **{name: np.asarray(before[name]) + update for name, update in updates.items()}}
