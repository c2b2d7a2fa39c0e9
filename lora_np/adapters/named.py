"""Several named adapters on one base.

The base is held once, and no adapter ever writes into it: to swap is to hand another adapter to the next
`forward`, and nothing is copied, whatever the model's size.

    parts = adapter_set(params)
    parts = add_adapter(parts, "critics", critics)
    parts = add_adapter(parts, "licences", licences)
    parts = activate(parts, "critics")
    logits, _ = forward(parts.base, ids, config, adapter=active_adapter(parts))
    logits, _ = forward(parts.base, ids, config, adapter=row_adapters(parts, ["critics", None, "licences"]))

Each function returns a new set and leaves the old one as it was; both share the base and the adapters.
"""

from typing import NamedTuple

import numpy as np

from .adapter import Adapter, adapter_parts, fitting_parts
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


def add_adapter(parts, name, adapter):
    """The set with one adapter more; which one is active stays.

    Raises
    ------
    ValueError
        If the name is taken or empty, the adapter is one of another model, or a weight is not finite.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name: got {name!r}, expected a text that is not empty")
    if name in parts.adapters:
        raise ValueError(f"name: {name!r} is there already; remove it first or take another name")
    try:
        fitting_parts(parts.base, adapter)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    for key, array in adapter.weights.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: {key} holds values that are not finite")
    return parts._replace(adapters={**parts.adapters, name: adapter})


def add_mix(parts, name, weights):
    """The set with a weighted mix of adapters that are in it, as one adapter more; see `mix`.

    Parameters
    ----------
    parts : AdapterSet
    name : str, of the mix
    weights : dict, name of an adapter in the set -> its weight
    """
    if name in weights:
        raise ValueError(f"weights: {name!r} is the mix's own name; expected the names of other adapters")
    adapters = {other: named(parts, other) for other in weights}
    return add_adapter(parts, name, mix(parts.base, adapters, weights))


def remove_adapter(parts, name):
    """The set without one adapter; if it was active, the base alone is what is left active."""
    named(parts, name)
    kept = {other: adapter for other, adapter in parts.adapters.items() if other != name}
    return parts._replace(adapters=kept, active=None if parts.active == name else parts.active)


def activate(parts, name):
    """The set with another adapter in use; None: the base alone."""
    if name is not None:
        named(parts, name)
    return parts._replace(active=name)


def active_adapter(parts):
    """The Adapter in use, or None."""
    return None if parts.active is None else parts.adapters[parts.active]


def row_adapters(parts, names):
    """One Adapter or None for each row of a batch, as `forward` takes them.

    Parameters
    ----------
    parts : AdapterSet
    names : list of a name or None for each row
    """
    return [None if name is None else named(parts, name) for name in names]


def list_adapters(parts):
    """An `AdapterRow` for each adapter, in the order in which they were added."""
    rows = []
    for name, adapter in parts.adapters.items():
        layers = adapter_parts(adapter)
        ranks = sorted({module_rank(adapter.config, module) for module in layers})
        parameters = sum(array.size for array in adapter.weights.values())
        active = name == parts.active
        rows.append(AdapterRow(name, active, adapter.config.kind, tuple(ranks), len(layers), parameters))
    return rows


def named(parts, name):
    """The adapter of a name."""
    if name not in parts.adapters:
        raise ValueError(f"name: no adapter is named {name!r}; expected one of {', '.join(parts.adapters) or 'none'}")
    return parts.adapters[name]
