"""Merge adapters into the base: W′ = W + ΔW. Inference with the merged model costs no more than with the base.

`merge` returns dense weights, so the adapted layers of a quantised base are no longer compressed, and those of a pruned
base lose their zeros. `merge_in_format` converts W′ back to W's format. If the base is quantised, updates are usually
small compared with the spacing of the quantisation levels, so most weights are rounded back to their old codes, and
much of the update may be lost. An update that is constant in each block of a Q4_1 weight, such as QA-LoRA's, is added
to the blocks' offsets, where the only error is the rounding to float16. `merge_errors` and `merge_in_format` measure
the errors.
"""

import math
from typing import NamedTuple

import numpy as np

from ..checked import errors_of
from ..compress import BLOCK, QuantisedWeight, requantise, with_offsets_added
from .adapter import Adapter, adapter_deltas, adapter_kind, fitting_arrays, whole_weights
from .config import module_config


class MergeErrors(NamedTuple):
    """Relative rounding errors of a merge, in the Frobenius norm over all adapted layers."""

    merged: float  # ‖W′ − (W + ΔW)‖ / ‖W + ΔW‖
    update: float  # ‖W′ − (W + ΔW)‖ / ‖ΔW‖, the share of the update that is lost
    restored: float  # ‖(W′ − ΔW) − W‖ / ‖W‖, after `unmerge`


class FormatLoss(NamedTuple):
    """Relative errors of converting W + ΔW to the base's format, in the Frobenius norm."""

    merged: float  # ‖W′ − (W + ΔW)‖ / ‖W + ΔW‖
    update: float  # ‖W′ − (W + ΔW)‖ / ‖ΔW‖, the share of the update that is lost; 0 for an update of zero


class MergedInFormat(NamedTuple):
    params: dict  # the merged model, each weight in the base's own format
    layers: dict[str, FormatLoss]  # by the name of the adapted layer's weight
    overall: FormatLoss  # of the concatenated weights of all adapted layers


def merge(params, adapter):
    """Add the adapter's update to the model's weights (Hu et al. 2021, section 4.1).

    The merged weights are dense arrays and exact up to rounding. Weights that are not adapted keep their format.

    Parameters
    ----------
    params : dict, the base's weights; not changed; weights that are not adapted are shared with the result
    adapter : Adapter

    Returns
    -------
    dict of arrays of the base's dtype; whole weights of the adapter, such as a head, replace the base's
    """
    dtype = next(iter(params.values())).dtype
    deltas = adapter_deltas(params, adapter)
    merged = {name: np.asarray(params[name]) + delta.astype(dtype, copy=False) for name, delta in deltas.items()}
    return {**params, **merged, **as_dtype(whole_weights(adapter), dtype)}


def unmerge(merged, adapter):
    """Subtract the adapter's update from merged weights: W = W′ − ΔW.

    Because of rounding, the restored weights differ from the base's by about one unit in the last place; `merge_errors`
    measures the difference. If you need the base's exact weights, keep the base instead of calling `unmerge`.

    Parameters
    ----------
    merged : dict, from `merge`
    adapter : Adapter, the same as in `merge`

    Returns
    -------
    dict with the names of `merged`; whole weights of the adapter, such as a head, are not restored

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
            f"adapter: an update of kind {adapter.config.kind!r} depends on the base's weight and cannot be "
            "subtracted from a merged weight; keep the base"
        )
    return {**merged, **restored}


def merge_errors(params, adapter, dtype):
    """Merge and unmerge in a floating-point format, and compare the results with those in float64.

    The sum W + ΔW is rounded to the format's precision, and ΔW is much smaller than W. In float16, which has about
    three decimal digits, a large part of an update can be lost. W and the adapter are converted to the format first, so
    only the error of merging is measured.

    Parameters
    ----------
    params : dict, the base's weights
    adapter : Adapter
    dtype : np.float16, np.float32 or np.float64

    Returns
    -------
    MergeErrors
    """
    names = [f"{module}.weight" for module in fitting_arrays(params, adapter)]
    if not names:  # only a trained head
        return MergeErrors(0.0, 0.0, 0.0)
    low = as_dtype({name: params[name] for name in names}, dtype)
    low_adapter = Adapter(adapter.config, as_dtype(adapter.weights, dtype))
    merged, low_deltas = merge(low, low_adapter), adapter_deltas(low, low_adapter)
    W = as_dtype(low, np.float64)
    deltas = adapter_deltas(W, Adapter(adapter.config, as_dtype(low_adapter.weights, np.float64)))

    def norm(array_of):
        return math.hypot(*(np.linalg.norm(array_of(name)) for name in deltas))

    error = norm(lambda name: merged[name] - (W[name] + deltas[name]))
    loss = format_loss(error, norm(lambda name: W[name] + deltas[name]), norm(lambda name: deltas[name]))
    restored = norm(lambda name: (merged[name] - low_deltas[name]) - W[name]) / norm(lambda name: W[name])
    return MergeErrors(*loss, restored)


def merge_in_format(params, adapter, masks=None):
    """Add the adapter's update to the model's weights, and convert each merged weight to the base weight's format.

    A quantised matrix is quantised again, with the same settings. However, if the matrix is in Q4_1 and has no mask,
    and ΔW is constant in each block, ΔW is added to the blocks' offsets, and codes and scales do not change. Zeros of a
    dense array are kept, because they come from pruning. Zeros of a quantised matrix may also be small weights that
    were rounded to zero, so a matrix that is both pruned and quantised needs a mask.

    The lost share of the update is 1 if W′ equals W, and above 1 if the conversion changes W + ΔW by more than the norm
    of ΔW. A layer whose update is zero does not change.

    Parameters
    ----------
    params : dict, the base's weights; not changed; weights that are not adapted are shared with the result
    adapter : Adapter of any kind
    masks : dict, name of an adapted weight -> bool array (out, in), True where the weight may be nonzero; or None.
        Without a mask, a dense array keeps its zeros.

    Returns
    -------
    MergedInFormat; whole weights of the adapter, such as a head, replace the base's without conversion

    Raises
    ------
    ValueError
        If the adapter belongs to another model, W + ΔW is not finite or exceeds the format's range, or a mask has the
        wrong shape or is for a weight that is not adapted.
    """
    kind, by_layer = adapter_kind(adapter.config), fitting_arrays(params, adapter)
    masks = checked_masks({} if masks is None else masks, params, [f"{module}.weight" for module in by_layer])
    dtype = next(iter(params.values())).dtype
    merged, errors, sums, updates = dict(params), {}, {}, {}  # the last three: name -> Frobenius norm
    for module, arrays in by_layer.items():  # only one layer at a time is dense
        name = f"{module}.weight"
        base, delta = params[name], kind.delta(params[name], arrays, module_config(adapter.config, module))
        exact = np.asarray(base, dtype=np.float64) + delta  # (out, in)
        if not np.isfinite(exact).all():
            raise ValueError(f"{name}: W + ΔW has values that are not finite")
        if delta.any():
            with errors_of(f"{name}: W + ΔW does not fit into the base's format"):
                merged[name] = in_format(exact, base, delta, masks.get(name))
        errors[name] = float(np.linalg.norm(np.asarray(merged[name], dtype=np.float64) - exact))
        sums[name], updates[name] = float(np.linalg.norm(exact)), float(np.linalg.norm(delta))
    layers = {name: format_loss(errors[name], sums[name], updates[name]) for name in errors}
    overall = format_loss(*(math.hypot(*norms.values()) for norms in (errors, sums, updates)))
    return MergedInFormat({**merged, **as_dtype(whole_weights(adapter), dtype)}, layers, overall)


def in_format(dense, base, delta, mask):
    """W + ΔW in the base's format, zero where the mask is False or, without a mask, where a dense base is zero."""
    if mask is None and not isinstance(base, QuantisedWeight):
        mask = base != 0
    if mask is None and base.format == "q4_1":
        blocks = delta.reshape(len(delta), -1, BLOCK)  # (out, in/32, 32)
        if np.all(blocks == blocks[..., :1]):
            return with_offsets_added(base, blocks[..., 0])
    return requantise(dense if mask is None else np.where(mask, dense, 0.0), like=base)


def format_loss(error, merged, update):
    """The FormatLoss computed from three norms; both ratios are 0 if the error is 0."""
    return FormatLoss(error / merged if error else 0.0, error / update if error else 0.0)


def checked_masks(masks, params, adapted):
    for name, mask in masks.items():
        if name not in adapted:
            raise ValueError(f"masks: got {name!r}, expected names of adapted weights such as {adapted[:1]}")
        mask = np.asarray(mask)
        if mask.shape != params[name].shape or mask.dtype != bool:
            got = f"shape {mask.shape} and dtype {mask.dtype}"
            raise ValueError(f"masks: {name} has {got}, expected {params[name].shape} and bool")
    return masks


def as_dtype(arrays, dtype):
    return {name: np.asarray(array).astype(dtype, copy=False) for name, array in arrays.items()}
