"""Merging into a compressed base: W′ in the format that W had, and what that costs.

After `merge` the adapted layers of a quantised base are dense, and the zeros of a pruned one are gone: nothing is lost
but what the compression was for. Here W′ goes back into W's format. An update is small beside what lies between two
codes, so most weights would fall back to the code that they had, and much of the update may be lost; how much is
measured.
"""

import math
from typing import NamedTuple

import numpy as np

from ..compress import QuantisedWeight, requantise
from .adapter import adapter_kind, fitting_arrays, whole_weights
from .config import module_config
from .merge import as_dtype


class FormatLoss(NamedTuple):
    """What the format does to W + ΔW, relative, in Frobenius norm."""

    merged: float  # ‖W′ − (W + ΔW)‖ / ‖W + ΔW‖
    update: float  # ‖W′ − (W + ΔW)‖ / ‖ΔW‖, the share of the update that is lost; 0 for an update of zero


class MergedInFormat(NamedTuple):
    params: dict  # the merged model, each weight in the base's own format
    layers: dict[str, FormatLoss]  # by the name of the adapted layer's weight
    overall: FormatLoss  # of all adapted layers together, as of one long vector


def merge_in_format(params, adapter, masks=None):
    """The model with the adapter's update added, each merged weight in the format that the base's weight has.

    A quantised matrix is quantised again, with its own settings. Zeros of an array stay zero, as they are what pruning
    left; zeros of a quantised matrix may as well be small weights that were rounded, so that a matrix which is both
    pruned and quantised needs its mask.

    The share of the update that is lost is 1 where W′ is W again, and above 1 where bringing W + ΔW into the format
    moves it by more than ΔW did. A layer whose update is zero stays what it is.

    Parameters
    ----------
    params : dict, the base's weights (left as they are; untouched ones are shared, not copied)
    adapter : Adapter of any kind
    masks : dict, the name of an adapted weight -> array (out, in) of bool, True where it may be other than zero, for
        those that are not to be told by the zeros of the base; or None

    Returns
    -------
    MergedInFormat; a whole weight that the adapter carries (a head) takes the place of the base's, as it is

    Raises
    ------
    ValueError
        For an adapter of another model, a sum W + ΔW that is not finite, or a mask of another shape or of a weight
        that is not adapted.
    """
    kind, by_layer = adapter_kind(adapter.config), fitting_arrays(params, adapter)
    masks = checked_masks({} if masks is None else masks, params, [f"{module}.weight" for module in by_layer])
    dtype = next(iter(params.values())).dtype
    merged, errors, sums, updates = dict(params), {}, {}, {}  # the last three: Frobenius norms by name
    for module, arrays in by_layer.items():  # a layer at a time, so that no more than one is dense
        name = f"{module}.weight"
        base, delta = params[name], kind.delta(params[name], arrays, module_config(adapter.config, module))
        wanted = np.asarray(base, dtype=np.float64) + delta  # (out, in)
        if not np.isfinite(wanted).all():
            raise ValueError(f"{name}: W + ΔW holds values that are not finite, expected finite ones alone")
        if delta.any():
            merged[name] = in_format(wanted, base, masks.get(name))
        errors[name] = float(np.linalg.norm(np.asarray(merged[name], dtype=np.float64) - wanted))
        sums[name], updates[name] = float(np.linalg.norm(wanted)), float(np.linalg.norm(delta))
    layers = {name: format_loss(errors[name], sums[name], updates[name]) for name in errors}
    overall = format_loss(*(math.hypot(*norms.values()) for norms in (errors, sums, updates)))
    return MergedInFormat({**merged, **as_dtype(whole_weights(adapter), dtype)}, layers, overall)


def in_format(dense, base, mask):
    """A dense matrix in the base's format, with zeros where the mask, or the array's own zeros, ask for them."""
    if mask is None and not isinstance(base, QuantisedWeight):
        mask = base != 0
    return requantise(dense if mask is None else np.where(mask, dense, 0.0), like=base)


def format_loss(error, merged, update):
    """The two ratios of norms. Without an error both are 0, whatever they are of."""
    return FormatLoss(error / merged if error else 0.0, error / update if error else 0.0)


def checked_masks(masks, params, adapted):
    for name, mask in masks.items():
        if name not in adapted:
            raise ValueError(f"masks: got {name!r}, expected names of adapted weights such as {adapted[:1]}")
        if np.shape(mask) != params[name].shape or np.asarray(mask).dtype != bool:
            raise ValueError(
                f"masks: {name} has shape {np.shape(mask)} and dtype {np.asarray(mask).dtype}, "
                f"expected {params[name].shape} and bool"
            )
    return masks
