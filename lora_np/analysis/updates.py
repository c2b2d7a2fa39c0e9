"""Weight updates ΔW = after − before as flat dicts: computed, truncated to a rank, and compared between two runs."""

import math
from typing import NamedTuple

import numpy as np

from ..adapters import linear_layers
from ..checked import finite_array, same_shape
from .spectra import leading_part, svd


def weight_updates(before, after):
    """after − before for every name that is in both models.

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
    """`weight_updates` of the linear layers only, which are the matrices that LoRA can adapt."""
    return weight_updates({name: before[name] for name in linear_weights(before)}, after)


def linear_weights(params):
    """The names of the linear layers' weights."""
    return [f"{module}.weight" for module in linear_layers(params)]


def truncated_updates(before, after, ranks):
    """The fine-tuned model with each linear layer's update truncated to its k leading directions, for each k.

    Everything else (embeddings, layer norms, biases, head) stays fine-tuned, so only k varies.

    Parameters
    ----------
    before, after : dicts of arrays, the base and the fully fine-tuned model
    ranks : iterable of int; for 0, the linear layers are the base's

    Yields
    ------
    (k, params), where params has the names of `after`
    """
    # The decompositions are expensive, so compute them once for all ranks.
    factors = {name: svd(update) for name, update in linear_updates(before, after).items()}
    for k in ranks:
        updates = {name: leading_part(*usv, k).astype(before[name].dtype) for name, usv in factors.items()}
        yield k, {**after, **{name: np.asarray(before[name]) + update for name, update in updates.items()}}


class Cosines(NamedTuple):
    layers: dict[str, float]  # by the array's name
    overall: float  # of all arrays concatenated to one vector; not the mean of the layers


def update_cosines(first, second):
    """The cosines ⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖ ‖ΔW₂‖) of two runs' updates: did they change the weights in the same direction?

    The cosine of two random vectors of n numbers has mean 0 and standard deviation 1/√n.

    Parameters
    ----------
    first, second : dicts of updates, from `weight_updates`, `linear_updates` or `adapter_deltas`; a missing name stands
        for an update of zero

    Returns
    -------
    Cosines in [−1, 1], in `first`'s order. Layers that only one of the runs changed have no cosine and are omitted, but
    count in `overall`.

    Raises
    ------
    ValueError
        If the dicts have no name in common, all updates of a run are zero, shapes differ, or values are not finite.
    """
    common = [name for name in first if name in second]
    if not common:
        raise ValueError("second: has no name in common with first, expected updates of the same model")
    norms_1, norms_2 = update_norms(first, "first"), update_norms(second, "second")
    products = {}
    for name in common:
        same_shape(f"second[{name!r}]", second[name], first[name])
        products[name] = float(np.vdot(np.asarray(first[name], np.float64), np.asarray(second[name], np.float64)))
    layers = {
        name: float(np.clip(product / norms_1[name] / norms_2[name], -1.0, 1.0))  # rounding may exceed 1
        for name, product in products.items()
        if norms_1[name] and norms_2[name]
    }
    size = math.hypot(*norms_1.values()) * math.hypot(*norms_2.values())
    return Cosines(layers, float(np.clip(sum(products.values()) / size, -1.0, 1.0)))


def update_norms(updates, argument):
    """Frobenius norms by name; ValueError if all are zero."""
    norms = {name: float(np.linalg.norm(finite_array(name, update))) for name, update in updates.items()}
    if not any(norms.values()):
        raise ValueError(f"{argument}: is zero in all layers, so its direction is undefined")
    return norms
