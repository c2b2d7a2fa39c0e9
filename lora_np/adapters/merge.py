"""Merging: W′ = W + ΔW, after which the adapted model costs what the base costs."""

import math
from typing import NamedTuple

import numpy as np

from .adapter import Adapter, adapter_deltas, whole_weights


class MergeErrors(NamedTuple):
    """What rounding does to a merge, relative, in Frobenius norm over all adapted layers together."""

    merged: float  # ‖W′ − (W + ΔW)‖ / ‖W + ΔW‖
    update: float  # ‖W′ − (W + ΔW)‖ / ‖ΔW‖: how much of the update is lost
    restored: float  # ‖(W′ − ΔW) − W‖ / ‖W‖, as `unmerge` has it


def merge(params, adapter):
    """The model with the adapter's update added to its weights (Hu et al. 2021, section 4.1).

    The merged weights are dense arrays, and exact but for rounding, whatever stood in their place: those of a quantised
    base take up the room of full precision again, and zeros that pruning left are gone. The base's other weights keep
    their form. `merge_in_format` merges into the base's own format, and says what is lost.

    Parameters
    ----------
    params : dict, the base's weights (left as they are; untouched ones are shared, not copied)
    adapter : Adapter

    Returns
    -------
    dict, of the base's dtype; a whole weight that the adapter carries (a head) takes the place of the base's
    """
    dtype = next(iter(params.values())).dtype
    deltas = adapter_deltas(params, adapter)
    merged = {name: np.asarray(params[name]) + delta.astype(dtype, copy=False) for name, delta in deltas.items()}
    return {**params, **merged, **as_dtype(whole_weights(adapter), dtype)}


def unmerge(merged, adapter, params=None):
    """Take the adapter's update out of merged weights again: W = W′ − ΔW.

    Floating-point addition rounds, so the weights come back to about one unit in the last place and
    not bit for bit; `merge_errors` measures it. Keep the base where that matters.

    Parameters
    ----------
    merged : dict, from `merge`
    adapter : Adapter, the same
    params : dict or None, weights to put back in the place of whole ones that `merge` replaced (a head)

    Returns
    -------
    dict of the base's names

    Raises
    ------
    ValueError
        For an adapter such as DoRA's, whose update depends on the base's weight, which is what is sought.
    """
    deltas = adapter_deltas(merged, adapter)
    restored = {name: np.asarray(merged[name]) - delta for name, delta in deltas.items()}
    again = adapter_deltas({**merged, **restored}, adapter)
    if any(not np.array_equal(again[name], delta) for name, delta in deltas.items()):
        raise ValueError(
            f"adapter: an update of kind {adapter.config.kind!r} depends on the base's weight and cannot be taken out "
            "of a merged one; keep the base"
        )
    whole = {name: params[name] for name in whole_weights(adapter) if params is not None and name in params}
    return {**merged, **restored, **whole}


def merge_errors(params, adapter, dtype):
    """Merge and unmerge with all arrays in a number format, and compare with float64.

    The addition rounds to W's last digit, and ΔW is much smaller than W: in float16, with three digits, a good
    part of an update can be lost. W and the adapter are taken as the format holds them, so it is merging alone
    that is measured.

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
    wide = Adapter(adapter.config, as_dtype(low_adapter.weights, np.float64))
    deltas = adapter_deltas(as_dtype(low, np.float64), wide)
    if not deltas:  # a trained head alone
        return MergeErrors(0.0, 0.0, 0.0)
    of_merging = of_restoring = size_merged = size_update = size_base = 0.0  # sums of squares
    for name, delta in deltas.items():
        W = low[name].astype(np.float64)
        of_merging += np.sum((merged[name] - (W + delta)) ** 2)
        of_restoring += np.sum(((merged[name] - low_deltas[name]) - W) ** 2)
        size_merged += np.sum((W + delta) ** 2)
        size_update += np.sum(delta**2)
        size_base += np.sum(W**2)
    return MergeErrors(
        merged=math.sqrt(of_merging / size_merged),
        update=math.sqrt(of_merging / size_update) if size_update else 0.0,
        restored=math.sqrt(of_restoring / size_base),
    )


def as_dtype(arrays, dtype):
    return {name: np.asarray(array).astype(dtype, copy=False) for name, array in arrays.items()}
