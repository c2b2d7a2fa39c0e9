"""Arrays with a shape and a dtype but no numbers. The real passes run on them to count their costs.

A `Hollow` behaves like an array of its shape, except that nothing is computed: each result is another `Hollow`. NumPy
itself says which shape and dtype the result has, because it does the same on arrays with one more axis, of length 0. A
`Hollow` stores a single number, so a model of 175 billion parameters takes no memory. Views share the memory that they
would share, and products of two matrices are listed.
"""

import math
from typing import NamedTuple

import numpy as np


class Product(NamedTuple):
    """A product of two matrices, (n, k) by (k, m)."""

    flops: int  # 2 n k m: a multiplication and an addition for each of n k m
    name: str  # of its first operand that has one, such as a parameter; or ""


class Hollow(np.ndarray):
    """See the module's docstring; `hollow` makes one.

    Products with a vector are not listed, because they are sums over rows or columns. `name` is a parameter's name, or
    None. `maker` is the layer whose output has this memory, or None. `terms` are the products whose result or sum this
    array is.
    """

    products = []  # all products since the list was last cleared

    def __array_finalize__(self, parent):
        for field in ("owner", "name", "maker", "terms"):
            setattr(self, field, getattr(parent, field, None))

    @property
    def base(self):
        """The array whose memory this one looks into, or None."""
        return None if self.owner is self else self.owner

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        terms, result = (), result_of_none(ufunc, method, *inputs, **kwargs)
        if ufunc is np.matmul and min(np.ndim(x) for x in inputs) > 1:
            names = (getattr(x, "name", None) for x in inputs)
            product = Product(2 * math.prod(result.shape[1:]) * inputs[0].shape[-1], next(filter(None, names), ""))
            self.products.append(product)
            terms = (product,)
        elif ufunc is np.add and method == "__call__":  # such as a gradient that arrives on two paths
            terms = sum((getattr(x, "terms", None) or () for x in inputs), start=())
        if out is not None:
            if isinstance(out[0], Hollow):
                out[0].terms = terms
            return out[0]
        return hollow(result.shape[1:], result.dtype, terms=terms)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.einsum:
            inputs, output = args[0].split("->")  # the axis Z of length 0 comes first, as in `none_of`
            result = np.einsum(f"Z{inputs.replace(',', ',Z')}->Z{output}", *(none_of(x, x.ndim) for x in args[1:]))
            return hollow(result.shape[1:], result.dtype)
        if function in (np.empty_like, np.zeros_like, np.ones_like):
            shape = kwargs.get("shape") or args[0].shape
            return hollow(shape, kwargs.get("dtype") or args[0].dtype)
        if function in (np.dot, np.inner, np.outer, np.tensordot, np.vdot):
            raise TypeError(f"{function.__name__} is not counted; use @")
        return super().__array_function__(function, types, args, kwargs)

    def __getitem__(self, index):
        part = np.broadcast_to(False, self.shape)[index]  # a view for slices, a copy for arrays of indices
        view = part.base is not None or part.ndim == 0
        return np.ndarray.__getitem__(self, index) if view else hollow(part.shape, self.dtype)

    def __setitem__(self, index, value):
        pass

    def astype(self, dtype, copy=True, **kwargs):
        return self if not copy and self.dtype == dtype else hollow(self.shape, dtype)

    def copy(self, order="C"):
        return hollow(self.shape, self.dtype)


def hollow(shape, dtype=np.float32, name=None, terms=()):
    """A `Hollow` with memory of its own."""
    array = np.broadcast_to(np.zeros((), dtype), shape).view(Hollow)
    array.owner, array.name, array.terms = array, name, terms
    return array


def flops_of(function, *args):
    """The result of a function of hollow arrays, and the FLOPs of its matrix products."""
    Hollow.products.clear()
    result = function(*args)
    return result, sum(product.flops for product in Hollow.products)


def none_of(x, ndim):
    """x without numbers: an array with an axis of length 0 before `ndim` others. A Python number stays as it is."""
    return np.empty((0,) + (1,) * (ndim - x.ndim) + x.shape, x.dtype) if isinstance(x, np.ndarray) else x


def result_of_none(ufunc, method, *inputs, axis=0, where=True, **kwargs):
    """What a universal function makes of `none_of` its inputs; without the first axis it has the result's shape."""
    ndim = max(np.ndim(x) for x in inputs)
    if method == "__call__":
        # matmul takes a vector as it is: with more axes it would be a stack of matrices.
        none = [x.view(np.ndarray) if ufunc is np.matmul and x.ndim == 1 else none_of(x, ndim) for x in inputs]
        return ufunc(*none, **kwargs)
    axes = range(ndim) if axis is None else np.atleast_1d(axis)
    kwargs["axis"] = tuple(int(a) % ndim + 1 for a in axes)  # one further on, after the axis of length 0
    return getattr(ufunc, method)(none_of(inputs[0], ndim), *inputs[1:], **kwargs)
