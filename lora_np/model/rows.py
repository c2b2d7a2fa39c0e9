"""A batch whose rows have adapters of their own."""

from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, fitting_parts, whole_weights


class RowGroup(NamedTuple):
    """The rows of a batch that share an adapter, where not all do."""

    rows: np.ndarray  # their numbers
    params: dict  # base weights, with whole weights of the adapter in their place
    adapter_config: object  # AdapterConfig or None
    adapter_parts: dict  # layer -> its adapter's arrays


def rows_by_adapter(adapters, B):
    """Which rows of a batch share an adapter.

    Parameters
    ----------
    adapters : list of B, an Adapter or None for each row
    B : int

    Returns
    -------
    rows : dict, a key for each distinct adapter -> array of row numbers
    found : dict, the same keys -> Adapter or None
    """
    if not isinstance(adapters, (list, tuple)):
        raise TypeError(f"adapter: got {type(adapters).__name__}, expected an Adapter, None, or a list of them")
    if len(adapters) != B:
        raise ValueError(f"adapter: got {len(adapters)} for {B} rows, expected one Adapter, or one for each row")
    rows, found = {}, {}
    for row, adapter in enumerate(adapters):
        if adapter is not None and not isinstance(adapter, Adapter):
            raise TypeError(f"adapter: got {type(adapter).__name__} for row {row}, expected an Adapter or None")
        rows.setdefault(id(adapter), []).append(row)
        found[id(adapter)] = adapter
    return {key: np.array(numbers) for key, numbers in rows.items()}, found


def row_groups(params, adapters, B):
    """A `RowGroup` for each distinct adapter of a batch.

    Parameters
    ----------
    params : dict of the base weights
    adapters : sequence of B, an Adapter or None for each row
    B : int
    """
    rows, found = rows_by_adapter(adapters, B)
    groups = []
    for key, adapter in found.items():
        parts, config, whole = {}, None, {}
        if adapter is not None:
            parts, config, whole = fitting_parts(params, adapter), adapter.config, whole_weights(adapter)
        if set(whole) - {"head.weight"}:
            raise ValueError(f"adapter: carries {sorted(set(whole) - {'head.weight'})[0]}, which all rows share")
        groups.append(RowGroup(rows[key], {**params, **whole}, config, parts))
    return tuple(groups)
