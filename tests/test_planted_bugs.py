"""The gradient check can fail: it finds every wrong version of every backward pass.

`mutants.py` derives the wrong versions. What no small change says is written by hand, in `BY_HAND`.
"""

import ast
import functools
import importlib
import inspect
import math
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import numpy as np
import pytest
from mutants import mutants

import lora_np

PACKAGE = Path(lora_np.__file__).parent
check = importlib.import_module("lora_np.reference.gradcheck")  # the module, not its function


# ------------------------------------------------------------------ the functions that go backward

# Beside the backward passes: the slope that GELU's forward pass computes for its own, with the gate that it reads, and
# the distance from orthonormal that AdaLoRA computes together with its gradient.
BACKWARD = re.compile(r"(^|[._])back(ward)?($|[._])|gate|slope|orthogonality|loss_and_gradients")
FORWARD_TOO = {"ops.cross_entropy": "cross_entropy_forward"}  # computes the gradient
DRAWN = {"cached_projections"}  # VeRA's random factors are constants of both passes: see test_variants.py


class Function(NamedTuple):
    real: object
    forget: object  # function without arguments: drops results that it has kept
    tree: ast.FunctionDef


@functools.cache
def functions_of(module):
    """Name -> Function of a module of the package, with those of its classes as Class.name."""
    file = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    loaded, functions = importlib.import_module(f"lora_np.{module}"), {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for tree in node.body if owner else [node]:
            if isinstance(tree, ast.FunctionDef):
                name = f"{owner}{tree.name}"
                real = functools.reduce(getattr, name.split("."), loaded)
                if not isinstance(real, property):
                    forget = getattr(real, "cache_clear", lambda: None)
                    functions[name] = Function(inspect.unwrap(real), forget, tree)
    return functions


def backward_functions():
    """"ops.linear.linear_backward" and the like: all that go backward, and what they call in their own files."""
    for folder in ("ops", "adapters", "model"):
        for file in sorted((PACKAGE / folder).glob("*.py")):
            module = f"{folder}.{file.stem}"
            functions = functions_of(module)
            names = [name for name in functions if BACKWARD.search(name) or name == FORWARD_TOO.get(module)]
            for name in names:  # the list grows on the way
                used = {node.id for node in ast.walk(functions[name].tree) if isinstance(node, ast.Name)} - DRAWN
                names += [helper for helper in functions if helper in used and helper not in names]
            yield from (f"{module}.{name}" for name in names)


FUNCTIONS = list(backward_functions())


def function(name):
    folder, file, rest = name.split(".", 2)
    return functions_of(f"{folder}.{file}")[rest]


@functools.cache
def mutants_of(name):
    return list(mutants(function(name).tree))


# ------------------------------------------------------------------ the judge

WHOLE = [name for name in check.CASES if "model" in name or "classifier" in name]
PARTS = [name for name in check.CASES if name not in WHOLE]
measure = check.measured_gradients


@functools.cache
def right(case):
    """The gradients as they should be, and the rows of the check."""
    drawn, doutput = check.draw_case(case, 0)
    if case in WHOLE:
        # A whole model's differences take a second. In their place are the package's own gradients, which
        # test_gradcheck.py holds to them.
        return check.claimed_gradients(drawn, doutput, tuple(drawn.operands))
    return measure(drawn, doutput)


@functools.cache
def called_by(case):
    """The code of every function that a case calls: (forward, backward)."""
    forward, backward = set(), set()
    drawn, doutput = check.draw_case(case, 0)
    for name in FUNCTIONS:
        function(name).forget()
    try:
        sys.setprofile(lambda frame, event, argument: forward.add(frame.f_code))
        _, pull = drawn.run(tuple(drawn.operands), **drawn.operands, **drawn.constants)
        sys.setprofile(lambda frame, event, argument: backward.add(frame.f_code))
        pull(doutput)
    finally:
        sys.setprofile(None)
    return forward, backward


def cases_of(name):
    code = function(name).real.__code__
    parts = [case for case in PARTS if code in called_by(case)[0] | called_by(case)[1]]
    if any(code in called_by(case)[0] for case in parts):
        return parts
    whole = [case for case in WHOLE if code in called_by(case)[0] | called_by(case)[1]]
    return parts + sorted(whole, key=lambda case: "activations" not in case)


@contextmanager
def replaced(name, code):
    real = function(name).real
    right_code = real.__code__
    module = compile(code, right_code.co_filename, "exec")
    real.__code__ = next(c for c in module.co_consts if isinstance(c, CodeType) and c.co_name == name.rpartition(".")[2])
    try:
        function(name).forget()
        yield
    finally:
        real.__code__ = right_code
        function(name).forget()


def verdict(name, code):
    forward_too = any(function(name).real.__code__ in called_by(case)[0] for case in PARTS)
    cases = cases_of(name)
    for c in cases: right(c)
    with replaced(name, code), np.errstate(all="ignore"):
        for case in cases:
            check.measured_gradients = measure if forward_too else lambda *_, case=case: right(case)
            try:
                rows = check.check_case(case, 0)
            except Exception as e:
                return "raised "+type(e).__name__
            finally:
                check.measured_gradients = measure
            if check.failures(rows) or not rows[0].n_checked:
                return "row"
    return "survived"


if __name__ == "__main__":
    import time, collections
    for name in check.CASES: right(name), called_by(name)
    tot=collections.Counter()
    for name in FUNCTIONS:
        if len(sys.argv)>1 and sys.argv[1] not in name: continue
        t=time.time()
        out=collections.Counter()
        for m in mutants_of(name):
            v=verdict(name,m.code); out[v[:6]]+=1
            print("   ",v, m.line, m.sentence)
        tot+=out
        print(name, dict(out), len(cases_of(name)), f"{time.time()-t:.2f}s")
    print(tot)
