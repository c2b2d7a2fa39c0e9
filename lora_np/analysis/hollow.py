"""Arrays with a shape and a dtype but no numbers. The real passes run on them to count their costs.

A `Hollow` behaves like an array of its shape, except that nothing is computed: each result is another `Hollow` with
the shape and dtype that NumPy would give. It stores a single number, so a model of 175 billion parameters takes no
memory. Views share the memory that they would share, and products of two matrices are listed.
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
        shape = result_shape(ufunc, method, *inputs, **kwargs)
        terms = ()
        if ufunc is np.matmul and min(np.ndim(x) for x in inputs) > 1:
            names = (getattr(x, "name", None) for x in inputs)
            product = Product(2 * math.prod(shape) * inputs[0].shape[-1], next(filter(None, names), ""))
            self.products.append(product)
            terms = (product,)
        elif ufunc is np.add and method == "__call__":  # such as a gradient that arrives on two paths
            terms = sum((getattr(x, "terms", None) or () for x in inputs), start=())
        if out is not None:
            if isinstance(out[0], Hollow):
                out[0].terms = terms
            return out[0]
        # The dtype is that of the real function on one number of each operand.
        samples = [np.ones((1,) * np.ndim(x), x.dtype) if isinstance(x, np.ndarray) else x for x in inputs]
        return hollow(shape, ufunc(*samples).dtype if method == "__call__" else inputs[0].dtype, terms=terms)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.einsum:
            return hollow(einsum_shape(*args), args[1].dtype)
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


def result_shape(ufunc, method, *inputs, axis=0, keepdims=False, **kwargs):
    """The shape of a universal function's result."""
    shapes = [np.shape(x) for x in inputs]
    if method == "reduce":
        n = len(shapes[0])
        axes = range(n) if axis is None else [a % n for a in (axis if isinstance(axis, tuple) else (axis,))]
        return tuple(1 if i in axes else size for i, size in enumerate(shapes[0]) if keepdims or i not in axes)
    if method == "reduceat":
        return (len(inputs[1]), *shapes[0][1:])
    if ufunc is np.matmul:
        first, second = shapes
        matrix = first[-2:-1] * (len(first) > 1) + second[-1:] * (len(second) > 1)
        return (*np.broadcast_shapes(first[:-2], second[:-2]), *matrix)
    if ufunc is np.vecdot:
        return np.broadcast_shapes(*shapes)[:-1]
    return np.broadcast_shapes(*shapes)


def einsum_shape(subscripts, *operands):
    """The shape of a sum over one or two arrays, such as "...k->..." or "nc,nc->c"."""
    inputs, output = subscripts.split("->")
    sizes = {}
    for letters, operand in zip(inputs.split(","), operands):
        own = letters.replace("...", "")
        sizes |= zip(own, operand.shape[operand.ndim - len(own) :])
        sizes["..."] = operand.shape[: operand.ndim - len(own)]
    leading = sizes["..."] if "..." in output else ()
    return (*leading, *(sizes[letter] for letter in output.replace("...", "")))
