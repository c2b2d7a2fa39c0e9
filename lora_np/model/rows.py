"""A batch whose rows have different adapters."""

from typing import NamedTuple

import numpy as np

from ..adapters import KINDS, Adapter, fitting_arrays, head_arrays, module_config, whole_weights
from ..ops import linear_forward


class RowGroup(NamedTuple):
    """The rows of a batch that share an adapter."""

    rows: np.ndarray  # their indices
    params: dict  # base weights; the adapter's whole weights replace the base's
    adapter_config: object  # AdapterConfig or None
    adapter_arrays: dict  # layer -> its adapter's arrays


def rows_by_adapter(adapters, B):
    """Group the rows of a batch by adapter: a list of (array of row indices, Adapter or None).

    Parameters
    ----------
    adapters : list of length B with an Adapter or None for each row
    B : int
    """
    if not isinstance(adapters, (list, tuple)):
        raise TypeError(f"adapter: got {type(adapters).__name__}, expected an Adapter, None, or a list of them")
    if len(adapters) != B:
        raise ValueError(f"adapter: got a list of {len(adapters)} for {B} rows, expected an Adapter or a list of {B}")
    rows = {}  # id of an adapter -> its rows
    for row, adapter in enumerate(adapters):
        if adapter is not None and not isinstance(adapter, Adapter):
            raise TypeError(f"adapter: got {type(adapter).__name__} for row {row}, expected an Adapter or None")
        rows.setdefault(id(adapter), []).append(row)
    return [(np.array(its_rows), adapters[its_rows[0]]) for its_rows in rows.values()]


def row_groups(params, adapters, B):
    """A `RowGroup` for each distinct adapter of a batch.

    Parameters
    ----------
    params : dict of the base weights
    adapters : list of length B with an Adapter or None for each row
    B : int

    Raises
    ------
    TypeError, ValueError
        If adapters is not such a list, or if an adapter does not fit or has a whole weight other than a head.
    """
    groups = []
    for rows, adapter in rows_by_adapter(adapters, B):
        arrays, config, whole = {}, None, {}
        if adapter is not None:
            arrays, config, whole = fitting_arrays(params, adapter), adapter.config, whole_weights(adapter)
        if shared := sorted(whole.keys() - head_arrays(whole)):
            raise ValueError(f"adapter: replaces {shared[0]}, which must be the same for all rows")
        groups.append(RowGroup(rows, {**params, **whole}, config, arrays))
    return tuple(groups)


def rows_forward(x, name, call):
    """Apply a linear layer to a batch whose rows have different adapters, as if each row were computed on its own.

    All rows that have no adapter in this layer are computed in a single product. The other rows are computed one
    adapter at a time, with the adapter's arrays or with the weight by which it replaces the base's.

    Parameters
    ----------
    x : array (B, ..., in)
    name : str, the prefix of the layer's parameters
    call : Call of the forward pass, with groups

    Returns
    -------
    array (B, ..., out)
    """
    base, bias = call.params.get(f"{name}.weight"), call.params.get(f"{name}.bias")
    n_out = call.groups[0].params[f"{name}.weight"].shape[0]
    y = np.empty((*x.shape[:-1], n_out), dtype=x.dtype)  # (B, ..., out)
    plain = []
    for group in call.groups:
        weight, rows = group.params[f"{name}.weight"], group.rows
        if name in group.adapter_arrays:
            config = module_config(group.adapter_config, name)
            y[rows] = KINDS[config.kind].forward(x[rows], weight, bias, group.adapter_arrays[name], config, ())[0]
        elif weight is base:
            plain.append(rows)
        else:
            y[rows] = linear_forward(x[rows], weight, group.params.get(f"{name}.bias"), ())[0]
    if plain:
        rows = np.concatenate(plain)
        y[rows] = linear_forward(x[rows], base, bias, ())[0]
    return y
