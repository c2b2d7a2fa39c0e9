"""The weight update ΔW = after − before, as a flat dict, and what is left of it at rank k."""

from ..adapters import LINEAR_LAYERS
from .spectra import leading_part, svd


def weight_updates(before, after):
    """after − before for every name that both have.

    Parameters
    ----------
    before, after : dicts of arrays

    Returns
    -------
    dict of arrays, in `before`'s order
    """
    return {name: after[name] - before[name] for name in before if name in after}


def linear_updates(before, after):
    """`weight_updates` of the blocks' linear layers alone: the matrices that LoRA can adapt."""
    updates = weight_updates(before, after)
    return {
        name: update
        for name, update in updates.items()
        if name.endswith(".weight") and name.split(".")[-2] in LINEAR_LAYERS
    }


def truncated_updates(before, after, ranks):
    """The trained model with each linear layer's update cut to its k leading directions, for each k.

    All else (embeddings, layer norms, biases, head) stays as trained, so that k alone varies.

    Parameters
    ----------
    before, after : dicts of arrays, the base and the fully fine-tuned model
    ranks : iterable of int; 0 leaves the linear layers as they were in the base

    Yields
    ------
    (k, params) with after's names
    """
    # The decompositions are the dear part: once for all ranks.
    factors = {name: svd(update) for name, update in linear_updates(before, after).items()}
    for k in ranks:
        cut = {
            name: before[name] + leading_part(*usv, k).astype(before[name].dtype)
            for name, usv in factors.items()
        }
        yield k, {**after, **cut}
