"""One graded item: what a student's function is given, what is right, and which mistakes are known.

An item holds data and small functions; `examine.py` carries out the check that they describe.
"""

import copy
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

# Two draws of each check. In the second all sizes that meet in one array differ, so that an exchanged pair of axes
# shows; and a formula that holds for one set of sizes alone fails for the other.
SIZES = (
    SimpleNamespace(N=3, n_in=4, n_out=5, r=2, B=2, T=4, C=6, H=3, D=2, F=7, V=9, alpha=5.0),
    SimpleNamespace(N=7, n_in=6, n_out=4, r=3, B=3, T=5, C=8, H=2, D=4, F=9, V=11, alpha=2.0),
)


class Unfit(ValueError):
    """Raised by an item's `compared`: outputs that cannot be compared, with the reason in words for the student."""


class Item(NamedTuple):
    """A graded item.

    `i` below is a SimpleNamespace of the inputs by their names, with the sizes as `i.size`, the right outputs as
    `i.right`, a dict, and as `i.given`, another dict, the copies of the inputs that the student's function gets.
    """

    name: str  # of the student's function and of the check
    arguments: str  # as the student's function is called, such as "dy, x, W"
    outputs: tuple[str, ...]  # names of what it returns, in order
    task: str  # one sentence
    draw: Callable  # (rng, size) -> dict of inputs in the order of `arguments`
    right: Callable  # (*inputs) -> the right outputs, computed by the package's own functions; one, or a tuple
    hints: dict  # output -> a question that leads on, without the formula
    formula: str  # shown on asking
    mistakes: dict = {}  # output -> list of (what it looks like, i -> the wrong value)
    factors: Callable = lambda i: {}  # i -> {"α/r": 2.0, …}, what an output may be multiplied or divided by
    # (i, outputs) -> dict of what is compared in place of the outputs, where several outputs are right
    compared: Callable = lambda i, outputs: outputs
    # (i, outputs) -> {property: what is wrong or None}, where no single value is right
    properties: Callable | None = None
    finite: bool = True  # False where −inf is right in some places
    rtol: float = 1e-7  # of the norm


def draw_inputs(item, seed):
    """The inputs of one draw as a namespace, with `size`, `right` and `given` beside them.

    Parameters
    ----------
    item : Item
    seed : int, 0 or 1: which draw, of which sizes

    Returns
    -------
    inputs : dict, name -> value, in the order of the arguments
    i : SimpleNamespace
    """
    size = SIZES[seed]
    inputs = item.draw(np.random.default_rng(seed), size)
    i = SimpleNamespace(**inputs, size=size, right={}, given=copy.deepcopy(inputs))
    if item.properties is None:
        with np.errstate(all="ignore"):
            i.right = item.compared(i, named_outputs(item, item.right(*inputs.values())))
    return inputs, i


def named_outputs(item, returned):
    """What a function returned, as a dict by the item's names of outputs.

    Parameters
    ----------
    item : Item
    returned : one value, a tuple or list of them in order, or a dict by name, where one that is missing is None

    Raises
    ------
    ValueError
        If there are more or fewer, or a dict has none of the names.
    """
    names = item.outputs
    expected = f"expected {', '.join(names)}"
    if returned is None:
        raise ValueError(f"it returns nothing; {expected} (is there a `return`?)")
    if isinstance(returned, dict):
        if not set(returned) & set(names):
            raise ValueError(f"it returns a dict of {', '.join(map(str, returned)) or 'nothing'}; {expected}")
        return {name: returned.get(name) for name in names}
    if len(names) == 1:
        return {names[0]: returned[0] if isinstance(returned, tuple) and len(returned) == 1 else returned}
    if isinstance(returned, np.ndarray) and returned.ndim and len(returned) == len(names):
        returned = list(returned)  # several numbers in one array
    if not isinstance(returned, (tuple, list)):
        raise ValueError(f"it returns one value, {kind_of(returned)}; {expected}, {len(names)} values in this order")
    if len(returned) != len(names):
        raise ValueError(f"it returns {len(returned)} values; {expected}, {len(names)} in this order")
    return dict(zip(names, returned))


def kind_of(value):
    """What a value is, in words, and what it may come from if nobody returns such a thing on purpose."""
    name = type(value).__name__
    advice = ""
    if inspect.isgenerator(value):
        advice = " (does it say `yield` in place of `return`?)"
    elif inspect.iscoroutine(value):
        value.close()  # or Python complains on stderr that nobody has waited for it
        advice = " (is it an `async def`?)"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}{advice}"
