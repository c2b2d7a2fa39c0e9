"""Quantise the matrices of a model."""

import math

import numpy as np

from ..checked import one_of, same_shape
from .ggml import quantise_q4_0, quantise_q4_1, quantise_q8_0
from .int8 import quantise_int8
from .nf4 import quantise_nf4
from .weight import QuantisedWeight

# Each value is a function (matrix, **settings) -> QuantisedWeight.
FORMATS = {"nf4": quantise_nf4, "int8": quantise_int8}
FORMATS |= {"q8_0": quantise_q8_0, "q4_0": quantise_q4_0, "q4_1": quantise_q4_1}


def quantise(params, names, format="nf4", **settings):
    """Quantise some of a model's matrices.

    Parameters
    ----------
    params : dict, name -> array; not mutated
    names : names of the matrices to quantise, such as ["blocks.0.attn.q_proj.weight"]
    format : a key of `FORMATS`
    settings : the format's settings, such as block_size=64, double=True

    Returns
    -------
    dict with the same names in the same order; arrays that are not quantised are shared, not copied

    Raises
    ------
    TypeError, ValueError
        If a name, the format or a setting is unknown, or a matrix does not fit the format; the message names the item.
    """
    if isinstance(names, str):
        raise TypeError(f"names: got the string {names!r}, expected a list of strings: [{names!r}]")
    names = list(names)
    unknown = [name for name in names if name not in params]
    if unknown:
        raise ValueError(f"names: got {unknown[0]!r}, expected names of weights such as {next(iter(params), None)!r}")
    one_of("format", format, FORMATS)
    quantised = dict(params)
    for name in names:
        try:
            quantised[name] = FORMATS[format](params[name], **settings)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
    return quantised


def requantise(dense, like):
    """Convert a matrix to the format of another matrix, for merging an adapter into a quantised base.

    Parameters
    ----------
    dense : array (out, in)
    like : QuantisedWeight, whose format, settings and dtype are used; or an array, whose dtype is used

    Returns
    -------
    QuantisedWeight or array, of the same type as `like`; `dense` itself if `like` is an array of the same dtype

    Raises
    ------
    ValueError
        If the shapes differ, or if the format is one that this package only reads.
    """
    same_shape("dense", dense, like)
    dense = dense.astype(like.dtype, copy=False)
    if isinstance(like, QuantisedWeight) and like.format not in FORMATS:
        raise ValueError(f"{like.format} can only be read; merge into dense weights, or into {', '.join(FORMATS)}")
    return FORMATS[like.format](dense, **like.settings) if isinstance(like, QuantisedWeight) else dense


def weight_bytes(params):
    """The total size in bytes of a flat dict's weights. For quantised weights, only the codes and scales are counted.

    A weight that has several names is counted only once. Python's overhead, about 100 bytes per object, is not counted.
    """
    return sum({id(weight): weight.nbytes for weight in params.values()}.values())


def quantisation_error(weight, quantised):
    """The relative error ‖Ŵ − W‖ / ‖W‖ in the Frobenius norm, computed in float64.

    Parameters
    ----------
    weight : array (out, in)
    quantised : QuantisedWeight or array (out, in), Ŵ

    Returns
    -------
    float; if W is zero, the result is 0 if Ŵ is also zero, and infinite otherwise

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    same_shape("quantised", quantised, weight)
    W = np.asarray(weight, dtype=np.float64)
    error = np.linalg.norm(np.asarray(quantised, dtype=np.float64) - W)
    size = np.linalg.norm(W)
    if size == 0:
        return math.inf if error > 0 else 0.0
    return float(error / size)
