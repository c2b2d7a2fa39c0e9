"""Several named adapters on one base.

The base is held once, and no adapter ever writes into it: to swap is to hand another adapter to the next
`forward`, and nothing is copied, whatever the model's size.

    loaded = adapter_set(params)
    loaded = add_adapter(loaded, "critics", critics)
    loaded = add_adapter(loaded, "licences", licences)
    loaded = activate(loaded, "critics")
    logits, _ = forward(loaded.base, ids, config, adapter=active_adapter(loaded))
    logits, _ = forward(loaded.base, ids, config, adapter=row_adapters(loaded, ["critics", None, "licences"]))

Each function returns a new set and leaves the old one as it was; both share the base and the adapters.
"""

from typing import NamedTuple

import numpy as np

from .adapter import Adapter, fitting_arrays, layer_arrays
from .config import module_rank
from .mix import mix


class AdapterSet(NamedTuple):
    base: dict[str, np.ndarray]  # the base's weights, shared by all
    adapters: dict[str, Adapter]
    active: str | None  # the name of the adapter in use; None: the base as it is


class AdapterRow(NamedTuple):
    """A line of `list_adapters`."""

    name: str
    active: bool
    kind: str
    ranks: tuple[int, ...]  # those that occur, in ascending order
    layers: int
    parameters: int


def adapter_set(params):
    """The set of no adapters on a base."""
    return AdapterSet(params, {}, None)


def add_adapter(loaded, name, adapter):
    """The set with one adapter more; which one is active stays.

    Raises
    ------
    ValueError
        If the name is taken or empty, the adapter is one of another model, or a weight is not finite.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name: got {name!r}, expected a text that is not empty")
    if name in loaded.adapters:
        raise ValueError(f"name: {name!r} is there already; remove it first or take another name")
    try:
        fitting_arrays(loaded.base, adapter)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for key, array in adapter.weights.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: {key} holds values that are not finite")
    return loaded._replace(adapters={**loaded.adapters, name: adapter})


def add_mix(loaded, name, weights):
    """The set with a weighted mix of adapters that are in it, as one adapter more; see `mix`.

    Parameters
    ----------
    loaded : AdapterSet
    name : str, of the mix
    weights : dict, name of an adapter in the set -> its weight
    """
    if name in weights:
        raise ValueError(f"weights: {name!r} is the mix's own name; expected the names of other adapters")
    adapters = {other: named(loaded, other) for other in weights}
    return add_adapter(loaded, name, mix(loaded.base, adapters, weights))


def remove_adapter(loaded, name):
    """The set without one adapter; if it was active, the base alone is what is left active."""
    named(loaded, name)
    others = {other: adapter for other, adapter in loaded.adapters.items() if other != name}
    return loaded._replace(adapters=others, active=None if loaded.active == name else loaded.active)


def activate(loaded, name):
    """The set with another adapter in use; None: the base alone."""
    if name is not None:
        named(loaded, name)
    return loaded._replace(active=name)


def active_adapter(loaded):
    """The Adapter in use, or None."""
    return None if loaded.active is None else loaded.adapters[loaded.active]


def row_adapters(loaded, names):
    """One Adapter or None for each row of a batch, as `forward` takes them.

    Parameters
    ----------
    loaded : AdapterSet
    names : list of a name or None for each row
    """
    return [None if name is None else named(loaded, name) for name in names]


def list_adapters(loaded):
    """An `AdapterRow` for each adapter, in the order in which they were added."""
    rows = []
    for name, adapter in loaded.adapters.items():
        layers = layer_arrays(adapter)
        ranks = sorted({module_rank(adapter.config, module) for module in layers})
        parameters = sum(array.size for array in adapter.weights.values())
        active = name == loaded.active
        rows.append(AdapterRow(name, active, adapter.config.kind, tuple(ranks), len(layers), parameters))
    return rows


def named(loaded, name):
    """The adapter of a name."""
    if name not in loaded.adapters:
        raise ValueError(f"name: no adapter is named {name!r}; expected one of {', '.join(loaded.adapters) or 'none'}")
    return loaded.adapters[name]
