"""Arrays with a shape and a dtype but no entries; running the real passes on them shows what the passes cost.

A `ShapeOnly` array behaves like an ordinary array, except that nothing is computed: each result is another
`ShapeOnly` array. NumPy itself determines the shape and dtype of the result: the same function runs on empty arrays,
which have an additional axis of length 0. A `ShapeOnly` array stores a single number, so a model of 175 billion
parameters takes almost no memory. Views share memory as they do in NumPy, and products of two matrices are recorded.
"""

import math
from typing import NamedTuple

import numpy as np


class Product(NamedTuple):
    """A product of two matrices, (n, k) by (k, m)."""

    flops: int  # 2 n k m: a multiplication and an addition for each of the n k m terms
    name: str  # the name of the first operand that has one, such as a parameter; or ""


class ShapeOnly(np.ndarray):
    """An array with a shape and a dtype but no entries; `shape_only` creates one.

    Products with a vector are not recorded, because they count as sums over rows or columns. `name` is a parameter's
    name, or None. `layer` is the layer whose output is in this memory, or None. `terms` lists the matrix products
    that produced this array: one product, or several that were summed.
    """

    products = []  # all products since the list was last cleared

    def __array_finalize__(self, parent):
        for field in ("owner", "name", "layer", "terms"):
            setattr(self, field, getattr(parent, field, None))

    @property
    def base(self):
        """The array that this one is a view of, or None."""
        return None if self.owner is self else self.owner

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        terms, result = (), empty_result(ufunc, method, *inputs, **kwargs)
        if ufunc is np.matmul and min(np.ndim(x) for x in inputs) > 1:
            names = (getattr(x, "name", None) for x in inputs)
            product = Product(2 * math.prod(result.shape[1:]) * inputs[0].shape[-1], next(filter(None, names), ""))
            self.products.append(product)
            terms = (product,)
        elif ufunc is np.add and method == "__call__":  # for example, a gradient that arrives along two paths
            terms = sum((getattr(x, "terms", None) or () for x in inputs), start=())
        if out is not None:
            if isinstance(out[0], ShapeOnly):
                out[0].terms = terms
            return out[0]
        return shape_only(result.shape[1:], result.dtype, terms=terms)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.einsum:
            inputs, output = args[0].split("->")  # the axis Z of length 0 comes first, as in `emptied`
            result = np.einsum(f"Z{inputs.replace(',', ',Z')}->Z{output}", *(emptied(x, x.ndim) for x in args[1:]))
            return shape_only(result.shape[1:], result.dtype)
        if function in (np.empty_like, np.zeros_like, np.ones_like):
            shape = kwargs.get("shape") or args[0].shape
            return shape_only(shape, kwargs.get("dtype") or args[0].dtype)
        if function in (np.dot, np.inner, np.outer, np.tensordot, np.vdot):
            raise TypeError(f"the products of np.{function.__name__} would not be counted; use @ instead")
        return super().__array_function__(function, types, args, kwargs)

    def __getitem__(self, index):
        part = np.broadcast_to(False, self.shape)[index]  # a view for slices, a copy for arrays of indices
        view = part.base is not None or part.ndim == 0
        return np.ndarray.__getitem__(self, index) if view else shape_only(part.shape, self.dtype)

    def __setitem__(self, index, value):
        pass

    def astype(self, dtype, copy=True, **kwargs):
        return self if not copy and self.dtype == dtype else shape_only(self.shape, dtype)

    def copy(self, order="C"):
        return shape_only(self.shape, self.dtype)


def shape_only(shape, dtype=np.float32, name=None, terms=()):
    """A new `ShapeOnly` array with its own memory."""
    array = np.broadcast_to(np.zeros((), dtype), shape).view(ShapeOnly)
    array.owner, array.name, array.terms = array, name, terms
    return array


def emptied(x, ndim):
    """Return an empty array: an axis of length 0, then x's shape, padded to `ndim` axes. Return scalars unchanged."""
    return np.empty((0,) + (1,) * (ndim - x.ndim) + x.shape, x.dtype) if isinstance(x, np.ndarray) else x


def empty_result(ufunc, method, *inputs, axis=0, where=True, **kwargs):
    """Apply a universal function to `emptied` inputs. The result has one extra axis at the front."""
    ndim = max(np.ndim(x) for x in inputs)
    if method == "__call__":
        # A vector is passed to matmul unchanged: with more axes, it would be a stack of matrices.
        empty = [x.view(np.ndarray) if ufunc is np.matmul and x.ndim == 1 else emptied(x, ndim) for x in inputs]
        return ufunc(*empty, **kwargs)
    axes = range(ndim) if axis is None else np.atleast_1d(axis)
    kwargs["axis"] = tuple(int(a) % ndim + 1 for a in axes)  # shifted by one, past the axis of length 0
    return getattr(ufunc, method)(emptied(inputs[0], ndim), *inputs[1:], **kwargs)
