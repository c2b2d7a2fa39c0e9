"""Merging: W′ = W + ΔW. The merged model costs no more than the base."""

import math
from typing import NamedTuple

import numpy as np

from .adapter import Adapter, adapter_deltas, whole_weights


class MergeErrors(NamedTuple):
    """Relative rounding errors of a merge, in Frobenius norm over all adapted layers together."""

    merged: float  # ‖W′ − (W + ΔW)‖ / ‖W + ΔW‖
    update: float  # ‖W′ − (W + ΔW)‖ / ‖ΔW‖: how much of the update is lost
    restored: float  # ‖(W′ − ΔW) − W‖ / ‖W‖, after `unmerge`


def merge(params, adapter):
    """The model with the adapter's update added to its weights (Hu et al. 2021, section 4.1).

    The merged weights are dense arrays and exact up to rounding. So a quantised weight takes the memory of full
    precision again, and a pruned weight loses its zeros. The base's other weights keep their format. `merge_in_format`
    merges into the base's own format, and measures what is lost.

    Parameters
    ----------
    params : dict, the base's weights; they are not changed, and the result shares those that the adapter does not touch
    adapter : Adapter

    Returns
    -------
    dict, of the base's dtype; a whole weight that the adapter carries (a head) replaces the base's
    """
    dtype = next(iter(params.values())).dtype
    deltas = adapter_deltas(params, adapter)
    merged = {name: np.asarray(params[name]) + delta.astype(dtype, copy=False) for name, delta in deltas.items()}
    return {**params, **merged, **as_dtype(whole_weights(adapter), dtype)}


def unmerge(merged, adapter):
    """Subtract the adapter's update from merged weights: W = W′ − ΔW.

    Floating-point addition rounds, so the weights are restored to about one unit in the last place, not bit for bit;
    `merge_errors` measures the difference. Keep the base if that matters.

    Parameters
    ----------
    merged : dict, from `merge`
    adapter : Adapter, the same as in `merge`

    Returns
    -------
    dict with the names of `merged`; a whole weight that the adapter carries (a head) stays the adapter's

    Raises
    ------
    ValueError
        If the update depends on the base's weight, as DoRA's does, because that weight is unknown.
    """
    deltas = adapter_deltas(merged, adapter)
    restored = {name: np.asarray(merged[name]) - delta for name, delta in deltas.items()}
    again = adapter_deltas({**merged, **restored}, adapter)
    if any(not np.array_equal(again[name], delta) for name, delta in deltas.items()):
        raise ValueError(
            f"adapter: an update of kind {adapter.config.kind!r} depends on the base's weight and cannot be taken out "
            "of a merged one; keep the base"
        )
    return {**merged, **restored}


def merge_errors(params, adapter, dtype):
    """Merge and unmerge with all arrays in a number format, and compare with float64.

    The addition rounds to W's last digit, and ΔW is much smaller than W. In float16, with three digits, a large part of
    an update can be lost. W and the adapter are converted to the format first, so only the error of merging is
    measured.

    Parameters
    ----------
    params : dict, the base's weights
    adapter : Adapter
    dtype : np.float16, np.float32 or np.float64

    Returns
    -------
    MergeErrors
    """
    low, low_adapter = as_dtype(params, dtype), Adapter(adapter.config, as_dtype(adapter.weights, dtype))
    merged, low_deltas = merge(low, low_adapter), adapter_deltas(low, low_adapter)
    W = as_dtype(low, np.float64)
    deltas = adapter_deltas(W, Adapter(adapter.config, as_dtype(low_adapter.weights, np.float64)))
    if not deltas:  # a trained head alone
        return MergeErrors(0.0, 0.0, 0.0)

    def norm(array_of):
        return math.hypot(*(np.linalg.norm(array_of(name)) for name in deltas))

    error = norm(lambda name: merged[name] - (W[name] + deltas[name]))
    update = norm(lambda name: deltas[name])
    return MergeErrors(
        merged=error / norm(lambda name: W[name] + deltas[name]),
        update=error / update if update else 0.0,
        restored=norm(lambda name: (merged[name] - low_deltas[name]) - W[name]) / norm(lambda name: W[name]),
    )


def as_dtype(arrays, dtype):
    return {name: np.asarray(array).astype(dtype, copy=False) for name, array in arrays.items()}
