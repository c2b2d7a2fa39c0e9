"""Read exercises, draw inputs for their checks, and compute the correct outputs.

An exercise is a module in `exercises/SET/`. Its docstring contains a heading of the form "1. Title (2 points)." and the
text for students. The module must define

    NAME(inputs)           the worked solution, named after the module; its docstring describes inputs and outputs
    HINTS                  output -> a guiding question without the formula
    FORMULA                str, printed if a student asks for it
    draw(rng, size)        -> the inputs of one call, by name; `size` is a Sizes

and may define

    OUTPUTS                names of the values that the solution returns, if they are not those in HINTS
    MISTAKES               description -> (code of the solution, incorrect code in its place), or a function from i to
                           an incorrect output, or to several in a tuple or (by name) in a dict; at most five
    compared(i, outputs)   -> dict of values to compare instead of the outputs, if the correct outputs are not unique
    properties(i, outputs) -> {property: complaint, or None}, if outputs can be checked only by their properties
    also(i)                -> {name: changed inputs} for additional calls; i.also[name] is the dict of a call's outputs
    large(rng, size)       -> inputs, the peak memory in bytes that a call may not exceed, and the complaint if it does
    AFTER                  text that follows the exercise

`i` is a SimpleNamespace with the drawn values by name, `i.size`, `i.inputs`, `i.right` (dict of correct outputs),
`i.solve(W=…)` (calls the solution with changed inputs) and, once the student's function has been called, `i.given` (the
inputs after the call).
"""

import copy
import hashlib
import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..ops.numerical_gradient import relative_error
from .runner import fields_of, in_words

DRAWS, MANY = 3, 9  # number of calls in a check, each with different sizes; number of calls if an output is an int
PRACTICE, GRADING = "practice", "grading"  # names of the draws for the checks in a notebook, and for grading
TRIES = 100
ROUNDING = 16.0  # the tolerance, as a multiple of the solution's error in float32
NEAR = 1e-6  # largest relative error (in norm) at which arrays count as equal, which allows for rounding
NEAR_NUMBER = 1e-9  # the same for a single number: smaller, because many candidates come close to it by chance
LEAST, MOST, EXACT = 2e-6, 1e-4, 1e-9  # the tolerance's bounds, and its value if no input is a float64 array


class Unfit(ValueError):
    """Raised by `compared`, with a reason that is shown to the student, if the outputs cannot be compared."""


class Failed(Exception):
    """Raised, with the reason, if a student's function returns no usable outputs."""


class Exercise(NamedTuple):
    """The contents of a module in `exercises/`, under the same names in lower case."""

    number: int
    name: str
    heading: str
    points: int
    text: str
    solution: Callable
    outputs: tuple[str, ...]
    hints: dict
    formula: str
    draw: Callable
    mistakes: dict = {}
    compared: Callable = lambda i, outputs: outputs
    properties: Callable | None = None
    also: Callable = lambda i: {}
    large: Callable | None = None
    after: str = ""

    @property
    def arguments(self):
        """The names of the solution's inputs, in order."""
        return tuple(inspect.signature(self.solution).parameters)


def read_exercise(module):
    """Read the exercise in a module."""
    heading, _, text = inspect.cleandoc(module.__doc__).partition("\n")
    match = re.fullmatch(r"(\d+)\. .+ \((\d+) points?\)\.", heading)
    if match is None:
        raise ValueError(f'{module.__name__}: got the heading {heading!r}, expected the form "1. Title (2 points)."')
    number, points = map(int, match.groups())
    name = module.__name__.rpartition(".")[2]
    contents = {field.lower(): value for field, value in vars(module).items() if field.lower() in Exercise._fields}
    contents = {"outputs": tuple(module.HINTS), "solution": getattr(module, name)} | contents
    return Exercise(number, name, heading.removesuffix("."), points, text.strip(), **contents)


# ---------------------------------------------------------------- draws


class Sizes:
    """Lengths of axes, no two of which are equal, so that swapped axes are detected.

    N, n_in, n_out, r, B, T, C, H, D, F and V have the same meaning as in the package; C = H · D, and r is smaller than
    n_in and n_out. `alpha` and `s`, the adapter's scale alpha / r, are floats; s is not 1. `number` is the index of the
    draw in the check, for exercises with a special case in one of the draws.
    """

    def __init__(self, rng, number):
        self.number, self.r = number, 2 + number % 3
        self.H, self.D, self.B = rng.permutation([n for n in (2, 3, 4, 5) if n != self.r]).tolist()
        self.C = self.H * self.D
        lengths = rng.permutation([n for n in range(6, 15) if n != self.C])[:6].tolist()
        self.N, self.n_in, self.n_out, self.T, self.F, self.V = *lengths[:5], lengths[5] + 15
        self.alpha = self.r * float(rng.uniform(0.3, 0.8) if number % 2 else rng.uniform(1.3, 2.5))
        self.s = self.alpha / self.r

    def normals(self, rng, **axes):
        """Return a dict of random normal arrays with the given axes: size.normals(rng, W="n_out n_in").

        This includes B, which is not zero in the middle of training.
        """
        return {name: rng.normal(size=[getattr(self, axis) for axis in of.split()]) for name, of in axes.items()}


def generator(*words):
    """Return a random generator whose seed depends only on the given words."""
    return np.random.default_rng(list(hashlib.sha256("\n".join(map(str, words)).encode()).digest()))


def draws_of(exercise, draw=PRACTICE):
    """Return a check's draws: a list of namespaces, each made by `draw_inputs`.

    There are DRAWS of them, or MANY if an output is a single integer, which different mistakes often have in common.
    If an output is a single number, it has at least DRAWS correct values, so that no constant is correct by
    coincidence. Unless `draw` is PRACTICE, the list of these values also differs from that in PRACTICE.
    """
    known = [] if draw == PRACTICE else single_numbers(draws_of(exercise))
    for attempt in range(TRIES):
        rngs = [generator(draw, exercise.name, attempt, n) for n in range(MANY)]
        drawn = [draw_inputs(exercise, rng, number) for number, rng in enumerate(rngs[:DRAWS])]
        if any(np.ndim(x) == 0 and np.asarray(x).dtype.kind == "i" for x in drawn[0].right.values()):
            drawn += [draw_inputs(exercise, rng, n % DRAWS) for n, rng in enumerate(rngs[DRAWS:])]
        numbers = single_numbers(drawn)
        if all(len(set(of_output)) >= DRAWS and of_output not in known for of_output in numbers):
            return drawn
    raise ValueError(f"draw: {exercise.name} has the same correct output in several draws, even after {TRIES} tries")


def single_numbers(drawn):
    """For each output that is a single number, list its values in all draws."""
    return list(zip(*([float(x) for x in i.right.values() if np.ndim(x) == 0] for i in drawn)))


def draw_inputs(exercise, rng, number=0):
    """Draw the inputs of one call; see `complete`."""
    size = Sizes(rng, number)
    return complete(exercise, exercise.draw(rng, size), size)


def complete(exercise, drawn, size):
    """Return a call's inputs as a SimpleNamespace that also has `size`, `inputs`, `solve`, `right` and `rounding`."""
    inputs = {name: drawn[name] for name in exercise.arguments}
    i = SimpleNamespace(**drawn, size=size, inputs=inputs, right={})
    i.solve = lambda **changed: exercise.solution(**inputs | changed)
    if exercise.properties is None:
        with np.errstate(all="ignore"):
            i.right = compared_outputs(exercise, exercise.solution, i, inputs)
            i.rounding = rounding_of(exercise, i)
    return i


def compared_outputs(exercise, function, i, inputs):
    """Call a function with the inputs of a draw; return the values to compare, as a dict, output -> value."""

    def outputs_for(**changed):
        return {
            name: value if value is None else np.asarray(value)
            for name, value in named_outputs(exercise, function(*copy.deepcopy(inputs | changed).values())).items()
        }

    also = {name: outputs_for(**changed) for name, changed in exercise.also(i).items()}
    return exercise.compared(SimpleNamespace(**vars(i) | {"also": also}), outputs_for())


def rounding_of(exercise, i):
    """Return the relative tolerance of each output, estimated from the solution's rounding error in float32."""
    single = {name: in_float32(value) for name, value in i.inputs.items()}
    if all(single[name] is value for name, value in i.inputs.items()):  # no input is a float64 array
        return dict.fromkeys(i.right, EXACT)
    try:
        rounded = compared_outputs(exercise, exercise.solution, i, single)
        lost = {name: relative_error(*finite_pair(rounded[name], right)) for name, right in i.right.items()}
    except Exception:  # the exercise may need float64
        lost = {}
    return {name: float(np.clip(ROUNDING * lost.get(name, 0.0), LEAST, MOST)) for name in i.right}


def in_float32(value):
    """Convert a value's float64 arrays to float32; return the value itself if it has none."""
    if isinstance(value, dict) and any(map(is_float_array, value.values())):
        return {name: in_float32(of_name) for name, of_name in value.items()}
    if isinstance(value, list | tuple) and any(map(is_float_array, value)):
        return type(value)(map(in_float32, value))
    return value.astype(np.float32) if is_float_array(value) else value


def is_float_array(value):
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def finite_pair(got, right):
    got, right = np.asarray(got, float), np.asarray(right, float)
    return got[np.isfinite(right)], right[np.isfinite(right)]


def equal(got, value, rtol=None):
    """Whether two arrays are equal up to a small relative error in norm; non-finite entries must be identical.

    `rtol` defaults to NEAR for arrays and to NEAR_NUMBER for single numbers.
    """
    if value is None:
        return False
    value = np.asarray(value)
    if got.shape != value.shape or got.dtype.kind not in "iufb" or value.dtype.kind not in "iufb":
        return False
    got, value = got.astype(np.float64), value.astype(np.float64)
    keep = np.isfinite(value)
    if not np.array_equal(got[~keep], value[~keep], equal_nan=True) or not np.isfinite(got[keep]).all():
        return False
    return relative_error(got[keep], value[keep]) <= (rtol or (NEAR if value.ndim else NEAR_NUMBER))


# ---------------------------------------------------------------- returned values


def named_outputs(exercise, returned):
    """Convert a function's return values to a dict, output -> value.

    Parameters
    ----------
    exercise : Exercise
    returned : one value; a tuple or list of values in order; or a dict, NamedTuple or dataclass with values by name
        (None if missing)

    Raises
    ------
    Failed
        If the number of values differs from the number of outputs, or if no value has an output's name.
    """
    names = exercise.outputs
    expected = f"expected {', '.join(names)}"
    parts = returned if isinstance(returned, tuple) else (returned,)
    if parts and all(part is ... for part in parts):
        raise Failed("it is not written yet")
    if returned is None:
        raise Failed(f"it returns nothing; {expected} (is there a `return`?)")
    by_name = returned if isinstance(returned, dict) else fields_of(returned)
    if by_name is not None and (isinstance(returned, dict) or set(by_name) & set(names)):
        if not set(by_name) & set(names):
            raise Failed(f"it returns a dict that contains {', '.join(map(str, by_name)) or 'nothing'}; {expected}")
        in_order = not isinstance(returned, dict) and len(by_name) == len(names)
        others = iter([value for name, value in by_name.items() if name not in names] if in_order else [])
        return {name: by_name[name] if name in by_name else next(others, None) for name in names}
    if len(names) == 1:
        return {names[0]: returned[0] if isinstance(returned, tuple) and len(returned) == 1 else returned}
    if isinstance(returned, np.ndarray) and returned.ndim and len(returned) == len(names):
        returned = list(returned)  # several numbers in one array
    if not isinstance(returned, tuple | list):
        raise Failed(f"it returns one value, {in_words(returned)}; {expected}, in this order")
    if len(returned) != len(names):
        raise Failed(f"it returns {len(returned)} values; {expected}, in this order")
    return dict(zip(names, returned))
