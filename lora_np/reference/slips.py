"""Mutations that imitate common mistakes in students' code, in addition to those in `mutants.py`.

A change is a function (node, facts) that yields (new code, sentence). The sentence omits its subject, the name of
the value that the line computes: "dx" + "lacks the term du @ A".
"""

import ast
import copy
import itertools
import re

from . import mutants as base
from .mutants import Mutant, name_of, text, with_items

AXES = (0, 1, -1, -2)
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@"}
ORDER = (">", ">=", "<", "<=")
SINGLE = {"sqrt", "exp", "log", "abs", "norm", "rint", "sign", "tanh"}  # functions that take one array
REDUCING = {"sum", "mean", "max", "min", "cumsum"}
FOR_ANOTHER = {  # functions that are easily confused
    **{"max": ("min", "mean", "sum"), "min": ("max", "mean"), "sum": ("max",), "argmax": ("argmin",)},
    **{"argmin": ("argmax",), "tril": ("triu",), "triu": ("tril",), "rint": ("trunc", "floor", "ceil")},
    **{"exp": ("exp2", "positive"), "log": ("log2", "log10"), "abs": ("sign", "positive"), "sqrt": ("positive",)},
}


def code(new):
    return ast.parse(new, mode="eval").body


# ---------------------------------------------------------------- axes, slices and indices


def axes(node, facts):
    """Reduce along a different axis."""
    for i, keyword in enumerate(getattr(node, "keywords", ())):
        if keyword.arg == "axis":
            old = text(keyword.value)
            for axis in [str(axis) for axis in AXES if str(axis) != old]:
                new = with_items(node, "keywords", i, [ast.keyword("axis", code(axis))])
                yield new, f"takes the {name_of(node)} along axis {axis}, not along axis {old}"


def slices(node, facts):
    """Take a different slice or index, or rows instead of columns."""
    if not (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load)):
        return
    array, places = text(node.value), node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for at, place in enumerate(places):
        for new in other_places(place):
            inside = ", ".join([*map(text, places[:at]), new, *map(text, places[at + 1 :])])
            yield f"({array})[{inside}]", f"takes {text(code(f'({array})[{inside}]'))}, not {text(node)}"
    if len(places) == 2 and text(places[0]) == ":":
        yield f"({array})[{text(places[1])}]", f"takes rows of {array}, not columns"
        yield f"({array})[{text(places[1])}].T", f"takes rows of {array}, not columns"
    if isinstance(node.slice, ast.Slice):
        yield f"({array})[:, {text(node.slice)}]", f"takes columns of {array}, not rows"
        yield f"({array})[:, {text(node.slice)}].T", f"takes columns of {array}, not rows"


def other_places(place):
    match place:
        case ast.Slice(None, ast.expr() as stop, None):
            end = text(stop)
            all_but = [":", f"{end}:", f"-({end}):", f":{end} + 1", f":{end} - 1"]
            return [*all_but, f"1:{end} + 1", f"{end} - 1:{end}", f"{end}:{end} + 1"]
        case ast.Slice(ast.expr() as start, None, None):
            begin = text(start)
            return [f":{begin}", f"{begin} + 1:", f"{begin} - 1:", ":"]
        case ast.Name() | ast.BinOp():
            return [f"{text(place)} + 1", f"{text(place)} - 1"]
        case ast.Constant(int() as value):
            return [str(value + 1), str(value - 1)]
    return []


# ---------------------------------------------------------------- powers, functions and their order


def powers(node, facts):
    match node:
        case ast.BinOp(x, ast.Pow(), n):
            yield text(x), f"has {text(x)} without the exponent {text(n)}"
            yield f"np.abs({text(x)})", f"has |{text(x)}| in place of {text(node)}"
        case ast.Call(function, [ast.BinOp(x, ast.Pow(), n), *rest], keywords) if name_of(node) in REDUCING:
            inner = ast.Call(function, [x, *rest], keywords)
            yield f"({text(inner)}) ** {text(n)}", f"applies the exponent {text(n)} after {name_of(node)}, not before"
            yield f"np.sqrt({text(node)})", f"has the root of {text(node)}"
        case ast.Call(ast.Attribute(ast.BinOp(x, ast.Pow(), n), reducing), arguments, keywords) if reducing in REDUCING:
            inner = ast.Call(ast.Attribute(x, reducing), arguments, keywords)
            yield f"({text(inner)}) ** {text(n)}", f"applies the exponent {text(n)} after {reducing}, not before"
        case ast.Call(_, [x], _) if name_of(node) == "sqrt":
            yield f"({text(x)}) ** 2", f"has the square of {text(x)} in place of its root"
        case ast.Name(name, ast.Load()) if name in facts.operands:
            yield f"{name} ** 2", f"has {name} squared"
            yield f"np.sqrt({name})", f"has the root of {name} in place of {name}"


def functions(node, facts):
    """Call another function, omit a call, or swap the order of two calls."""
    name = name_of(node)
    match node:
        case ast.Attribute(value, attribute, ast.Load()) if attribute in FOR_ANOTHER:
            for other in FOR_ANOTHER[attribute]:
                said = f"lacks {attribute}" if other == "positive" else f"has {other} in place of {attribute}"
                yield f"({text(value)}).{other}", said
        case ast.Call(_, [condition, a, b]) if name == "where":
            test, a, b = map(text, (condition, a, b))
            yield a, f"is not masked by {test}" if "inf" in b else f"is {a} everywhere, whether {test} or not"
            yield b, f"is {b} everywhere, whether {test} or not"
            yield f"np.where({test}, {b}, {a})", f"has the two cases of {test} swapped"
        case ast.Call(ast.Attribute(ast.Name("np"), "argsort" | "argmax" | "argmin"), [x, *more], keywords):
            turned = ast.Call(node.func, [ast.UnaryOp(ast.USub(), x), *more], keywords)
            yield turned, f"has {text(x)} sorted in the opposite order"
        case ast.Call(ast.Attribute(x, "argsort" | "argmax" | "argmin" as attribute), arguments, keywords):
            turned = ast.Attribute(ast.UnaryOp(ast.USub(), x), attribute)
            yield ast.Call(turned, arguments, keywords), f"has {text(x)} sorted in the opposite order"
        case ast.Call(_, [ast.List() | ast.ListComp() as pieces, *_]) if name in ("concatenate", "hstack", "vstack"):
            yield f"sum({text(pieces)})", "adds the arrays instead of concatenating them"
        case ast.Call(function, [ast.BinOp(a, ast.Mult(), b)], keywords) if name == "sum":
            apart = [text(ast.Call(function, [x], keywords)) for x in (a, b)]
            yield f"{apart[0]} * {apart[1]}", f"sums {text(a)} and {text(b)} before it multiplies them"
        case ast.UnaryOp(ast.USub(), ast.Attribute(_, "inf")):
            yield "0.0", "has 0 in place of −∞"
        case ast.Call(ast.Attribute(x, "transpose"), _):
            yield f"({text(x)}).reshape({text(node)}.shape)", f"has {text(x)} reshaped instead of transposed"
        case ast.Call(ast.Name("min" | "max" as old), [a, b]):
            a, b = text(a), text(b)
            for new in (f"{'max' if old == 'min' else 'min'}({a}, {b})", a, b, f"{a} + {b}", f"{a} * {b}"):
                yield f"({new})", f"has {new} in place of {text(node)}"
        case ast.Call(ast.Attribute(_, "tril" | "triu"), [mask]):
            for by, side in ((1, "above"), (-1, "below")):
                yield f"{text(node.func)}({text(mask)}, {by})", f"has {name} cut off one place {side} the diagonal"
        case ast.Call(ast.Subscript(), [x], []):
            yield text(x), f"skips {text(node.func)}"
        case ast.Call(ast.Attribute(_, "reshape"), _):
            columns = ast.Call(node.func, node.args, [ast.keyword("order", ast.Constant("F"))])
            yield columns, "is filled column by column, not row by row"
    match node:
        case ast.Call(outer, [ast.Call(inner, [x, *more], keywords)], outside) if {name, name_of(node.args[0])} <= BOTH:
            first = ast.Call(outer, [x], outside)
            yield ast.Call(inner, [first, *more], keywords), f"applies {name} before {name_of(node.args[0])}, not after"
        case ast.Call(outer, [ast.Call(ast.Attribute(x, reducing), arguments, keywords)], []) if reducing in REDUCING:
            first = ast.Attribute(ast.Call(outer, [x], []), reducing)
            yield ast.Call(first, arguments, keywords), f"applies {name} before the {reducing}, not after"


BOTH = SINGLE | REDUCING


# ---------------------------------------------------------------- sums and products


def operators(node, facts):
    """Use another operator."""
    if not isinstance(node, ast.BinOp):
        return
    a, b, operator = text(node.left), text(node.right), node.op
    match operator:
        case ast.Add() | ast.Sub():
            sign = SIGNS[type(operator)]
            yield f"({a}) * ({b})", f"has {a} and {b} multiplied"
            for factor, said in (("2 *", "twice"), ("0.5 *", "half")):
                yield f"{factor} ({a}) {sign} ({b})", f"has {said} the term {a}"
                yield f"({a}) {sign} {factor} ({b})", f"has {said} the term {b}"
        case ast.Mult():
            yield f"({a}) + ({b})", f"has {a} and {b} added, not multiplied"
            yield f"({a}) / ({b})", f"is divided by {b}, not multiplied"
            yield f"({b}) / ({a})", f"is divided by {a}, not multiplied"
            yield f"({a}) * ({b}) * ({b})", f"has the factor {b} twice"
            yield f"({a}) * np.sqrt({b})", f"has the root of {b} in place of {b}"
            yield f"({a}) * ({b}).T", f"has {b} transposed"
        case ast.Div():
            yield f"1 / ({b})", f"lacks the factor {a}"
            yield f"({a}) * ({b})", f"is multiplied by {b}, not divided"
            yield f"({a}) / np.sqrt({b})", f"has the root of {b} in place of {b}"
            yield f"({a}) / ({b}) ** 2", f"is divided by {b} twice"
            yield f"({a}) / ({b} - 1)", f"has {b} - 1 in place of {b}"
            yield f"({a}) // ({b})", f"is rounded down to integers by // {b}"
        case ast.FloorDiv():
            yield f"({a}) / ({b})", "is not rounded to an integer"
            if isinstance(node.left, ast.UnaryOp):  # -(-x // b) is rounded up
                yield f"-({text(node.left.operand)} // ({b}))", "is rounded down, not up"
                whole = f"{text(node.left.operand)} is a multiple of {b}"
                yield f"-({text(node.left.operand)} // ({b}) + 1)", f"is one too large where {whole}"
            else:
                yield f"-(-({a}) // ({b}))", "is rounded up, not down"
                yield f"({a}) // ({b}) + 1", "is one too large"
        case ast.MatMult():
            yield a, f"lacks the factor {b}"
            yield b, f"lacks the factor {a}"
            yield f"({a}) * ({b})", f"has {a} and {b} multiplied elementwise"
            yield f"np.outer(({a}).sum(axis=-1), ({b}).sum(axis=0))", f"sums {a} and {b} before it multiplies them"


def brackets(node, facts):
    """Apply a factor, a term or a function to a larger or smaller part of an expression than is correct."""
    match node:
        case ast.BinOp(a, (ast.Add() | ast.Sub()) as operator, b):
            sign = SIGNS[type(operator)]
            for term, other, together in ((a, b, "({0}) {1} ({2})"), (b, a, "({2}) {1} ({0})")):
                if isinstance(term, ast.BinOp) and isinstance(term.op, (ast.Mult, ast.MatMult, ast.Div)):
                    by, factor = SIGNS[type(term.op)], text(term.right)
                    said = f"also {'divides' if by == '/' else 'multiplies'} {text(other)} by {factor}"
                    yield f"({together.format(text(term.left), sign, text(other))}) {by} ({factor})", said
                if (0, "s") in facts.bound and "s" not in {n.id for n in ast.walk(term) if isinstance(n, ast.Name)}:
                    new = together.format(f"s * ({text(term)})", sign, text(other))
                    yield new, f"also multiplies {text(term)} by s"
        case ast.BinOp(ast.BinOp(a, ast.Add() | ast.Sub() as inner, b), ast.Mult() | ast.Div() as outer, c) | ast.BinOp(
            c, ast.Mult() as outer, ast.BinOp(a, ast.Add() | ast.Sub() as inner, b)
        ):
            by, sign = SIGNS[type(outer)], SIGNS[type(inner)]
            said = "divides only {1} by {0}" if by == "/" else "multiplies only {1} by {0}"
            yield f"({text(a)}) {by} ({text(c)}) {sign} ({text(b)})", said.format(text(c), text(a))
            yield f"({text(a)}) {sign} ({text(b)}) {by} ({text(c)})", said.format(text(c), text(b))
        case ast.Call(function, [ast.BinOp(a, operator, b)], keywords) if name_of(node) in BOTH:
            if type(operator) in SIGNS:
                outside = ast.BinOp(ast.Call(function, [a], keywords), operator, b)
                yield outside, f"has {SIGNS[type(operator)]} {text(b)} outside of {name_of(node)}"
                outside = ast.BinOp(a, operator, ast.Call(function, [b], keywords))
                yield outside, f"has {text(a)} outside of {name_of(node)}"
    for side, other in (("left", "right"), ("right", "left")) if isinstance(node, ast.BinOp) else ():
        match getattr(node, side):
            case ast.Call(function, [argument], keywords) as call if name_of(call) in BOTH:
                whole = ast.BinOp(**{side: argument, "op": node.op, other: getattr(node, other)})
                yield ast.Call(function, [whole], keywords), f"has {text(getattr(node, other))} inside {name_of(call)}"


# ---------------------------------------------------------------- names, numbers and comparisons


def names(node, facts):
    """Replace a variable with any other variable."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        before = dict.fromkeys(other for line, other in facts.bound if line < node.lineno)
        for other in [other for other in before if node.id in before and other != node.id]:
            yield other, f"has {other} in place of {node.id}"


def comparisons(node, facts):
    match node:
        case ast.Compare(a, [_], [b]):
            for order in ORDER:
                yield f"({text(a)}) {order} ({text(b)})", f"tests {text(a)} {order} {text(b)}, not {text(node)}"
        case ast.Constant(int() as value) if not isinstance(value, bool):
            yield str(value - 1), f"has {value - 1} in place of {value}"


CHANGES = (axes, brackets, functions, powers, operators, slices, comparisons)
# Would make a list contain itself, or double the length of a dictionary's keys in each iteration.
HOLDS_ITSELF = re.compile(r"\b(\w+)(\.(append|extend)\(\1\)|\[f[^]]*\{\1\})")


def slips(function, outputs):
    """The mutations of a correct function, as a list of Mutants.

    The most likely mutations come first: changes in one place, then in several places, then replaced variables.
    """
    in_one_place = (base.mutants(function, changes, outputs) for changes in (base.CHANGES, CHANGES))
    elsewhere = throughout(function), in_statements(function), of_whole_svd(function, outputs)
    changes = itertools.chain(*in_one_place, *elsewhere, base.mutants(function, (names,), outputs))
    unclear = ("axis has", "reshape has")  # `axes` describes the same changes better
    return [c for c in changes if not HOLDS_ITSELF.search(c.code) and not c.sentence.startswith(unclear)]


def throughout(function):
    """Change an axis, a slice, an exponent or a variable everywhere in the function."""
    facts, nodes = base.facts_about(function), list(ast.walk(function))
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    axis_of = [k for n in calls for k in n.keywords if k.arg == "axis" and not name_of(n).endswith("along_axis")]
    for axis in AXES if len(axis_of) > 1 else ():
        new = ast.keyword("axis", code(str(axis)))
        yield changed(function, dict.fromkeys(axis_of, new), f"every operation is along axis {axis}")
    norms = [n for n in calls if name_of(n) == "norm" and len(n.args) == 1 and not n.keywords]
    for order in ("2", "1", "'nuc'") if len(norms) > 1 else ():
        new = {n: ast.Call(n.func, [*n.args, code(order)], []) for n in norms}
        yield changed(function, new, f"every norm is replaced by norm(…, {order})")
    places = {}
    for node in nodes:
        if isinstance(node, ast.Slice):
            places.setdefault(text(node), []).append(node)
    for old, same in places.items():
        for new in other_places(same[0]) if len(same) > 1 else ():
            place = code(f"a[{new}]").slice
            yield changed(function, dict.fromkeys(same, place), f"[{text(place)}] is used throughout, not [{old}]")
    if len(places) > 1:
        everything = dict.fromkeys(itertools.chain(*places.values()), ast.Slice())
        yield changed(function, everything, "every slice is [:], so nothing is truncated")
    for name in dict.fromkeys(name for _, name in facts.bound):
        same = [n for n in nodes if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
        for other in dict.fromkeys(other for line, other in facts.bound if line == 0 or other in facts.operands):
            if len(same) > 1 and other != name:
                new = dict.fromkeys(same, ast.Name(other))
                yield changed(function, new, f"{other} is used in place of {name} throughout")


def in_statements(function):
    """Replace a constant with another one, add a term, or omit a variable or some iterations of a loop."""
    facts, nodes = base.facts_about(function), list(ast.walk(function))
    numbers = [n for n in nodes if isinstance(n, ast.Constant) and type(n.value) in (int, float)]
    for node, other in itertools.permutations(numbers, 2):
        if node.value != other.value:
            yield changed(function, {node: other}, f"{other.value} is used in place of {node.value}")
    for node in nodes:
        match node:
            case ast.AugAssign(_, ast.Add(), value):
                for name in dict.fromkeys(other for line, other in facts.bound if line < node.lineno):
                    more = ast.BinOp(value, ast.Add(), ast.Name(name))
                    yield changed(function, {value: more}, f"{text(node.target)} also has {name} added")
            case ast.For(_, rounds):
                parts = {"[:1]": "only the first iteration runs", "[1:]": "the loop skips its first iteration"}
                for part, said in (parts | {"[-1:]": "only the last iteration runs"}).items():
                    yield changed(function, {rounds: code(f"list({text(rounds)}){part}")}, said)
            case ast.Assign([ast.Name(name)], ast.BinOp() | ast.Call() as value):
                yield changed(function, {value: code(f"np.ones_like({text(value)})")}, f"1 is used in place of {name}")


def of_whole_svd(function, outputs):
    """Replace a thin singular value decomposition with a full one, and take different slices of it."""
    thin = [n for n in ast.walk(function) if isinstance(n, ast.keyword) and n.arg == "full_matrices"]
    if thin:
        whole = changed(function, dict.fromkeys(thin, ast.keyword("full_matrices", ast.Constant(True))), "")
        yield from base.mutants(ast.parse(whole.code).body[0], (slices,), outputs)


def changed(function, new, sentence):
    """The Mutant in which nodes are replaced; `new` maps old nodes to new ones."""
    return Mutant(sentence, 0, "", text(copy.deepcopy(function, {id(old): node for old, node in new.items()})))
