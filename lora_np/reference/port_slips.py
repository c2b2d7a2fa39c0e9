"""Mutations that imitate common mistakes in ports, in addition to those in `mutants.py` and `slips.py`."""

import ast
import math
import re

from .mutants import name_of, text
from .slips import names

# Variables of the plain program that are not arrays.
NO_ARRAYS = set("settings sizes t acts grads past block attn mlp name names last outputs".split())

WRITTEN_IN = {
    **{"eps": (1e-5, 1e-6, 1e-8, 1e-12), "theta": (1e4,), "beta1": (0.9,), "beta2": (0.999,)},
    **{"weight_decay": (0.0, 0.01, 0.1), "ignore_index": (-100, -1, 0), "final_share": (0.0,)},
}


def values_of_ports(node, facts):
    """Use another constant, another value of a variable, or the first row of an array in all rows."""
    match node:
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            wrong = number - 1 if isinstance(number, int) else number / 2
            yield f"({wrong})", f"has {wrong} in place of {number}"
        case ast.Name(name, ast.Load()) if any(name == other for _, other in facts.bound):
            for sign in "+-":
                yield f"({name} {sign} 1)", f"has {name} {sign} 1 in place of {name}"
            yield f"np.broadcast_to({name}[:1], {name}.shape)", f"has the first row of {name} in all rows"


def extra_factors(node, facts):
    """Multiply by a variable that was computed before."""
    match node:
        case ast.BinOp(_, ast.Add() | ast.MatMult() | ast.Div(), _) | ast.Call(ast.Name(), _, _):
            for name in dict.fromkeys(name for line, name in facts.bound if line < node.lineno):
                yield f"({text(node)}) * {name}", f"has the extra factor {name}"


def layouts(node, facts):
    """Read or write a matrix column by column instead of row by row."""
    match node:
        case ast.BinOp(_, ast.MatMult()):
            for side in ("left", "right"):
                operand = getattr(node, side)
                inner = operand.value if isinstance(operand, ast.Attribute) and operand.attr == "T" else operand
                new = f"wrong.reread({text(inner)})" + (".T" if inner is not operand else "")
                sides = {"left": text(node.left), "right": text(node.right), side: new}
                yield f"({sides['left']}) @ ({sides['right']})", f"has {text(inner)} with the axes swapped in memory"
        case ast.Attribute(x, "T"):
            yield f"wrong.reread({text(x)}).T", f"has {text(x)} reshaped, not transposed"
        case ast.Call(ast.Attribute(_, "sum"), _, _):
            for way in ("reread", "rewritten"):
                yield f"wrong.{way}({text(node)})", f"has {text(node)} with the axes swapped in memory"


def written_in(node, facts):
    """Replace a setting with a constant."""
    match node:
        case ast.Name(name, ast.Load()) if name in WRITTEN_IN:
            for number in WRITTEN_IN[name]:
                yield repr(number), f"has {number:g} in place of {name}, whatever the settings say"


def sums_of_ports(node, facts):
    """Replace a sum with its last term or with some of its terms, or change the divisor of a mean."""
    match node:
        case ast.Call(ast.Attribute(x, "sum"), [], [ast.keyword("axis", ast.Constant(0))]):
            terms, first = text(x), facts.bound[0][1]
            yield f"({terms})[-1]", f"is only the last of {terms}, not their sum"
            as_many = f"sums only the first len({first}) of {terms}"
            yield f"({terms})[: len({first})].sum(axis=0)", as_many
            of_last = f"({terms}).reshape(len({first}), -1, *({terms}).shape[1:])[-1].sum(axis=0)"
            yield of_last, f"sums only the part of {terms} that comes from {first}[-1]"
        case ast.Call(ast.Attribute(x, "sum"), [], [ast.keyword("axis", ast.Constant(2))]):
            yield f"({text(x)})[:, :, -1]", f"is only the last of {text(x)}, not their sum"
        case ast.Call(ast.Attribute(x, "mean"), [], _):
            n = f"({text(x)}).shape[-1]"
            yield f"{text(node)} * {n} / ({n} - 1)", f"is divided by n - 1, not by n, in {text(node)}"
        case ast.Call(ast.Attribute(_, "repeat"), [x, n], [ast.keyword("axis", axis)]):
            yield f"np.concatenate([{text(x)}] * ({text(n)}), axis={text(axis)})", f"tiles {text(x)}"
        case ast.Call(_, [x], _) if name_of(node) == "cumsum":
            yield f"{text(node)} - {text(x)}", f"excludes the current entry of {text(x)}"


def readings(node, facts):
    """Replace an array with any other array, or with 0."""
    match node:
        case ast.Name(name, ast.Load()) if name not in NO_ARRAYS:
            yield from (change for change in names(node, facts) if change[0] not in NO_ARRAYS)
            if any(line < node.lineno and name == other for line, other in facts.bound):
                yield f"(0 * {name})", f"has 0 in place of {name}"


def digits(node, facts):
    """Write a constant with too few digits, or with an incorrect digit."""
    match node:
        case ast.Constant(float() as number):
            pass
        case ast.Call(ast.Attribute(ast.Name("math"), "sqrt"), [ast.Constant() | ast.BinOp(ast.Constant())]):
            number = eval(text(node), {"math": math})  # such as the square root of 2.0 / math.pi
        case _:
            return
    written, found = repr(number), {}
    if len(re.sub(r"\D", "", written).strip("0")) < 3:
        return
    for n in range(1, 12):
        found.setdefault(float(f"{number:.{n}g}"), f"has {number:.{n}g} in place of {text(node)}, too few digits")
    places = [i for i, digit in enumerate(written) if digit.isdigit()]
    for i, j in zip(places, places[1:]):
        swapped = written[:i] + written[j] + written[i + 1 : j] + written[i] + written[j + 1 :]
        found.setdefault(float(swapped), f"has {swapped} in place of {written}: two digits are swapped")
    for i in places:
        for digit in "0123456789":
            other = written[:i] + digit + written[i + 1 :]
            found.setdefault(float(other), f"has {other} in place of {written}: one digit is incorrect")
    yield from ((repr(value), sentence) for value, sentence in found.items() if value != number)


PORTS = (values_of_ports, written_in, layouts, sums_of_ports, digits, extra_factors)
