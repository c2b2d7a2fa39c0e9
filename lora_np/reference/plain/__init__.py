"""A second program for the reference cases, written from SPEC.md's formulas, with or without a known mistake."""

from functools import cache
from pathlib import Path

import numpy as np

from ..cases import in_dtype
from . import mistakes
from .mistakes import MISTAKES

__all__ = ["KINDS", "MISTAKES", "SOURCES", "plain_outputs"]

FILES = ("training.py", "model.py", "operations.py")
# Each file comes before those that it imports from; `program` needs that.
SOURCES = {file: (Path(__file__).parent / file).read_text("utf-8") for file in FILES}


@cache
def compiled(file, source):
    return compile(source, str(Path(__file__).parent / file), "exec")


@cache
def program(mistake=None):
    """The functions of the plain program by name, with the lines of one mistake changed.

    All files run in one namespace, where each changed function takes the place of the one that was imported.
    """
    functions = dict(vars(mistakes))  # changed lines call functions from there
    for file, source in SOURCES.items():
        for right, wrong in MISTAKES[mistake] if mistake else ():
            source = source.replace(right, wrong)
        exec(compiled(file, source), functions)
    return functions


KINDS = tuple(name.removesuffix("_case") for name in program() if name.endswith("_case"))


def plain_outputs(kind, settings, inputs, dtype, mistake=None):
    """The outputs of a case, or what one mistake makes of them.

    Parameters
    ----------
    kind, settings, inputs : as in the manifest; inputs in the precision
    dtype : "float64" or "float32"
    mistake : a key of `MISTAKES`, or None

    Returns
    -------
    dict, name -> array; empty for a kind that the plain program does not compute (files)
    """
    if kind not in KINDS:
        return {}
    with np.errstate(all="ignore"):  # a mistake may well divide by zero
        outputs = program(mistake)[f"{kind}_case"](settings, inputs)
    return {name: in_dtype(np.asarray(array), dtype) for name, array in outputs.items() if array is not None}
