"""A reference case: inputs, and the outputs that the package computes from them, in execution order."""

from typing import NamedTuple

import numpy as np

DTYPES = {"float64": np.float64, "float32": np.float32}


class ReferenceCase(NamedTuple):
    """A computation for a port to reproduce.

    compute(settings, inputs) returns the outputs by name, in execution order, in the dtype of the inputs.
    """

    id: str  # never changes, because a port's tests may use it
    tier: int  # key of TIERS, such as 1 for operations
    kind: str  # the kind of computation; SPEC.md has a section for each kind
    settings: dict  # name -> value that JSON can represent
    inputs: dict  # name -> array of integers, or of float64 values that are exact in float32
    compute: object
    description: str
    catches: str  # the mistakes that the case detects
    flags: tuple[str, ...] = ()
    inputs_float32: dict = {}  # name -> array that replaces the input with this name in float32

    def inputs_in(self, dtype):
        """The inputs in "float64" or "float32"; integers are unchanged."""
        inputs = self.inputs if dtype == "float64" else {**self.inputs, **self.inputs_float32}
        return {name: in_dtype(array, dtype) for name, array in inputs.items()}

    def outputs_in(self, dtype):
        """The outputs in "float64" or "float32"."""
        outputs = self.compute(self.settings, self.inputs_in(dtype))
        return {name: in_dtype(np.asarray(array), dtype) for name, array in outputs.items()}


def in_dtype(array, dtype):
    """Copy an array in C order; convert floats to the given precision and leave integers unchanged."""
    floating = np.issubdtype(array.dtype, np.floating)
    return np.array(array, dtype=DTYPES[dtype] if floating else array.dtype, order="C")


def stage(name, inputs):
    """The tensor's stage: "input", "forward", "backward", "merge", "step 10", …"""
    if name in inputs:
        return "input"
    first, _, rest = name.partition(".")
    if first == "step":
        return f"step {rest.partition('.')[0]}"
    return {"grad": "backward", "delta": "merge", "merged": "merge"}.get(first, "forward")
