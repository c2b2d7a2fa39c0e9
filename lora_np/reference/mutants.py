"""Mutations of a correct function: small changes to its code, each with a sentence that describes it.

The mutations are common slips in backward passes. They omit a term or a factor, flip a sign, forget a transpose, swap
operands, take a mean instead of a sum, reduce along a different axis, read one array in place of another, or drop a
condition. Code that does not affect values is not mutated: docstrings, errors, dtypes and memory order.
"""

import ast
import copy
import re
from typing import NamedTuple

NO_NUMBERS = {"dtype", "order", "kind", "out", "copy", "keepdims"}  # arguments and fields that do not change values
NO_ARRAYS = {"wanted", "shape", "ndim", "T", "any", "tuple", "len", "range", "int", "float", "min", "max"} | NO_NUMBERS
NEW_ARRAYS = {"empty", "empty_like", "zeros", "zeros_like"}  # their arguments are shapes
SYMMETRIC = {"multiply", "vecdot", "einsum", "add", "maximum", "minimum"}
FOR_ANOTHER = {"sum": "mean", "mean": "sum", "add": "subtract", "subtract": "add", "zeros": "ones", "any": "all"}
OPPOSITE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
STEP = re.compile(r"back(ward)?$|forward$|^(exp|tanh|sqrt|reversed)$")  # calls that programmers forget
GRADIENT = re.compile(r"(\w+\.)?d\w*(\[.*\])?")  # names of gradients: dx, d, through_up.dx

text = ast.unparse


class Mutant(NamedTuple):
    sentence: str  # describes the mistake, with the names that the code uses
    line: int  # number of the changed line
    place: str  # text of the changed line in the correct function
    code: str  # source of the mutated function


class Facts(NamedTuple):
    """Facts about a function that determine its mutations."""

    bound: list  # (line, name) of each parameter and each assignment to a variable, in order
    operands: set  # names that are operands of an operator
    alike: dict  # text of an expression -> text of another expression of the same kind
    inner: set  # ids of the expressions from which an attribute or an item is read
    filled: dict  # name of a variable -> first line where it gets a value other than a constant such as None


def mutants(function, changes=None, outputs=(), line_number=None):
    """Yield the distinct mutations of a function, an ast.FunctionDef, as Mutants.

    `changes` are functions like those in CHANGES, which is the default. `outputs` names the values that the function
    returns. `line_number` is the number of the only line to change; None means all lines.
    """
    function = copy.deepcopy(function)
    function.decorator_list = []
    facts, seen = facts_about(function), {text(function)}
    for line in ast.walk(function):
        if isinstance(line, ast.stmt) and line is not function and line_number in (None, line.lineno):
            for old, new, sentence in changes_of(line, facts, changes or CHANGES, outputs):
                new = ast.parse(new, mode="eval").body if isinstance(new, str) else new
                code = text(copy.deepcopy(function, {id(old): new}))  # a copy in which `new` replaces `old`
                if code not in seen:
                    seen.add(code)
                    yield Mutant(sentence, line.lineno, text(line).splitlines()[0], code)


def name_of(node):
    """The name of the called function, such as `sum` for np.sum(x) and x.sum(); "" for a node that is not a call."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def facts_about(function):
    nodes = list(ast.walk(function))
    inner = {id(n.value) for n in nodes if isinstance(n, (ast.Attribute, ast.Subscript))}
    pairs = [(n.left, n.right) for n in nodes if isinstance(n, ast.BinOp)]
    pairs += [(n.target, n.value) for n in nodes if isinstance(n, ast.AugAssign)]
    operands = {n.id for pair in pairs for n in pair if isinstance(n, ast.Name)}
    stored = sorted((n.lineno, n.id) for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    bound = [(0, parameter.arg) for parameter in function.args.args] + stored
    constant = {n.lineno for n in nodes if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)}
    kinds = {}  # expressions that may be confused: fields of an object, keys of a dict, wanted names, layers
    for node in nodes:
        match node:
            case ast.Attribute(ast.Name(base), field, ast.Load()) if base != "np" and field not in NO_ARRAYS:
                kinds.setdefault((base, id(node) in inner), []).append(text(node))
            case ast.Subscript(base, ast.Constant(str()) | ast.JoinedStr(), ast.Load()):
                kinds.setdefault(text(base), []).append(text(node))
            case ast.Compare(ast.Constant(str()), [ast.In() | ast.NotIn()]):
                kinds.setdefault("wanted", []).append(text(node))
            case ast.JoinedStr():
                kinds.setdefault("layers", []).append(text(node))
    alike = {}
    for kind in kinds.values():
        kind = list(dict.fromkeys(kind))
        alike |= {a: b for a, b in zip(kind, kind[1:] + kind[:1]) if a != b}
    filled = {}
    for line, name in bound:
        if line not in constant:
            filled.setdefault(name, line)
    return Facts(bound, operands, alike, inner, filled)


# ---------------------------------------------------------------- changes: (old node, new node, sentence)


def changes_of(line, facts, changes, outputs):
    """Yield the changes to one statement, except those to the statements inside it."""
    target = getattr(line, "target", None) or getattr(line, "targets", [None])[0]
    match line:
        case ast.Raise() | ast.Assert() | ast.If(_, [ast.Raise()]):
            return
        case ast.Expr(ast.Constant()) | ast.Return(ast.Constant()) | ast.Assign(_, ast.Constant()):
            return
    result = outputs[0] if len(outputs) == 1 else "the result"
    about = text(target) if target else {ast.Return: result, ast.If: "the condition"}.get(type(line), "the call")
    match line:
        case ast.If(test):
            yield test, "True", ignored(test, ast.Is) or f"{about} {text(test)} is dropped"
            yield test, "False", ignored(test, ast.IsNot) or f"{about} {text(test)} never holds"
        case ast.AugAssign(_, op, value):
            yield line, ast.Pass(), f"{text(line)} is left out"
            yield line, ast.Assign([target], value, lineno=0), f"{about} is set to {text(value)}, not updated with it"
            if type(op) in OPPOSITE:
                yield line, ast.AugAssign(target, OPPOSITE[type(op)](), value), f"{text(line)} has the opposite sign"
        case ast.Expr() | ast.Assign([ast.Subscript()]):
            yield line, ast.Pass(), f"{text(line)} is left out"
        case ast.Assign([ast.Name(name)]) if any(at < line.lineno and name == n for at, n in facts.bound):
            yield line, ast.Pass(), f"{text(line)} is left out"
    match line:
        case ast.Assign(_, value) | ast.Return(value) if not isinstance(target, ast.Tuple):
            several = name_of(value)[:1].isupper() or name_of(value) in NO_ARRAYS | NEW_ARRAYS
            if isinstance(value, (ast.BinOp, ast.Call, ast.Name, ast.Subscript)) and not several:
                yield value, f"-({text(value)})", f"{about} has the wrong sign"
    for value in [child for child in ast.iter_child_nodes(line) if isinstance(child, ast.expr)]:
        for node, its_name in expressions(value, about, outputs if isinstance(line, ast.Return) else ()):
            for change in changes:
                yield from ((node, new, f"{its_name} {sentence}") for new, sentence in change(node, facts))


def ignored(test, operator):
    """If a condition says whether a value is None, say that this value is ignored; else return None."""
    match test:
        case ast.Compare(value, [actual], [ast.Constant(None)]) if isinstance(actual, operator):
            return f"{text(value)} is ignored"


def expressions(node, about, outputs=()):
    """Yield (node, name of the value it is part of) for each subexpression that can change the result."""
    yield node, about
    inside, names = list(ast.iter_child_nodes(node)), {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.BinOp):
        names = {id(node.right): f"the divisor of {about}"}
    if isinstance(node, ast.Tuple) and len(node.elts) == len(outputs):
        names = {id(value): name for value, name in zip(node.elts, outputs)}
    if isinstance(node, ast.Dict):
        names = {id(value): text(key) for key, value in zip(node.keys, node.values) if key}
    if name_of(node) in NEW_ARRAYS | {"reshape", "transpose"}:
        inside = [node.func, *(n for n in node.args if isinstance(n, ast.BinOp))]
    for child in inside:
        if isinstance(child, ast.keyword) and child.arg not in NO_NUMBERS:
            yield from expressions(child.value, child.arg or about)
        elif isinstance(child, (ast.expr, ast.comprehension)):
            yield from expressions(child, names.get(id(child), about))


def arithmetic(node, facts):
    a, b = text(getattr(node, "left", node)), text(getattr(node, "right", node))
    match node:
        case ast.BinOp(_, ast.Add()):
            yield a, f"lacks the term {b}"
            yield b, f"lacks the term {a}"
            yield f"({a}) - ({b})", f"has {b} with the wrong sign"
        case ast.BinOp(_, ast.Sub()):
            yield a, f"lacks the term {b}"
            yield f"-({b})", f"lacks the term {a}"
            yield f"({a}) + ({b})", f"has {b} with the wrong sign"
            yield f"({b}) - ({a})", f"has {a} and {b} swapped"
        case ast.BinOp(_, ast.Mult()):
            yield a, f"lacks the factor {b}"
            yield b, f"lacks the factor {a}"
            yield f"({a}) * ({a}) * ({b})", f"has the factor {a} twice"
        case ast.BinOp(_, ast.Div()):
            yield a, f"lacks the divisor {b}"
            yield f"({b}) / ({a})", f"has {a} and {b} swapped"
        case ast.BinOp(_, ast.MatMult()):
            yield f"({b}) @ ({a})", f"has {a} and {b} swapped"
            yield f"({a}).swapaxes(-1, -2) @ ({b})", transposed(node.left)
            yield f"({a}) @ ({b}).swapaxes(-1, -2)", transposed(node.right)
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            wrong = number + 1 if isinstance(number, int) else 2.0 * number or 1.0
            yield str(wrong), f"has {wrong} in place of {number}"
        case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
            yield text(operand), f"has {text(operand)} with the wrong sign"
        case ast.Attribute(value, "T") | ast.Call(ast.Attribute(value, "transpose" | "swapaxes")):
            yield text(value), f"has {text(value)} not transposed"


def transposed(node):
    """Describe the mistake of transposing an operand, or of not transposing it."""
    match node:
        case ast.BinOp(_, ast.Mult(), right):  # a scale times an array
            return transposed(right)
        case ast.Attribute(value, "T") | ast.Call(ast.Attribute(value, "transpose" | "swapaxes")):
            return f"has {text(value)} not transposed"
    return f"has {text(node)} transposed"


def calls(node, facts):
    """Omit a call or one of its arguments, or call another function."""
    match node:
        case ast.Attribute(value, attribute) if attribute in FOR_ANOTHER:
            yield f"({text(value)}).{FOR_ANOTHER[attribute]}", f"has {FOR_ANOTHER[attribute]} in place of {attribute}"
        case ast.Name("any"):
            yield "all", "has all in place of any"
    call = node.value if isinstance(node, (ast.Attribute, ast.Subscript)) else node
    name = name_of(call)
    if name and call.args and id(node) not in facts.inner and name not in NO_ARRAYS:
        if STEP.search(name) or isinstance(call.func, ast.Name) and isinstance(call.args[0], (ast.Name, ast.Attribute)):
            yield text(call.args[0]), f"skips {name}({text(call.args[0])})"
    if isinstance(node, ast.Call):
        needed = len(node.args) if STEP.search(name) or not isinstance(node.func, ast.Name) or name[0].isupper() else 1
        for i, argument in list(enumerate(node.args))[needed:]:
            yield with_items(node, "args", i, []), f"lacks {text(argument)} in {name}"
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in NO_NUMBERS:
                yield with_items(node, "keywords", i, []), f"lacks {text(keyword)} in {name}"
        if name in SYMMETRIC | {"subtract"}:
            first, second = node.args[-2:]
            yield with_items(node, "args", -1, [first]), f"has {text(first)} in place of {text(second)}"
            yield ast.Call(ast.Name("np.positive"), [first], node.keywords), f"lacks {text(second)} in {name}"


def with_items(node, field, i, new, n=1):
    """Copy a node, and replace n items of one of its list fields, starting at item i, with `new`."""
    changed, items = copy.copy(node), list(getattr(node, field))
    i %= len(items)
    items[i : i + n] = new
    setattr(changed, field, items)
    return changed


def lists(node, facts):
    """Swap neighbouring arguments, outputs or values of a dict, drop one of them, or flip its sign."""
    field = {ast.Call: "args", ast.Tuple: "elts", ast.Dict: "values"}.get(type(node))
    items = getattr(node, field) if field else []
    if any(isinstance(item, ast.Slice) for item in items) or name_of(node) in NEW_ARRAYS | NO_ARRAYS:
        return
    for i, item in enumerate(items):
        if isinstance(item, ast.Starred) and isinstance(item.value, ast.Name) and len(items) == 1:
            turned = ast.Starred(ast.Name(f"{text(item.value)}[::-1]"))
            yield with_items(node, field, i, [turned]), f"has {text(item.value)} in reverse order"
        if GRADIENT.fullmatch(text(item)) and isinstance(item.ctx, ast.Load) and text(item) != "dtype":
            yield with_items(node, field, i, [ast.Name(f"(-{text(item)})")]), f"has {text(item)} with the wrong sign"
    pairs = [] if STEP.search(name_of(node)) or name_of(node) in SYMMETRIC else list(zip(items, items[1:]))
    nothing = [text(n) in ("None", "{}") or facts.filled.get(text(n), 0) > node.lineno for n in items]
    for i, (a, b) in enumerate(pairs):
        no_array = any(isinstance(n, (ast.Constant, ast.JoinedStr, ast.Starred)) for n in (a, b))
        if not no_array and not (nothing[i] and nothing[i + 1]):
            yield with_items(node, field, i, [b, a], 2), f"has {text(a)} and {text(b)} swapped"
    if isinstance(node, ast.Dict) and len(items) > 1:
        for i, value in enumerate(items):
            rest = with_items(with_items(node, "keys", i, []), "values", i, [])
            yield rest, f"lacks {text(node.keys[i] or value)}"
    if items and all(nothing):
        something = next(iter(facts.filled))  # the first parameter: the upstream gradient
        yield with_items(node, field, 0, [ast.Name(something)]), f"is {something} where nothing is wanted"


def others(node, facts):
    """Replace an array, field, key or name with another of the same kind."""
    match node:
        case ast.Name(name, ast.Load()) if id(node) not in facts.inner:
            before = [other for line, other in facts.bound if line < node.lineno and other in facts.operands - {name}]
            alike = [other for other in before if bool(GRADIENT.fullmatch(other)) == bool(GRADIENT.fullmatch(name))]
            for other in list(dict.fromkeys(reversed(alike)))[:2] if name in facts.operands else []:  # the last two
                yield other, f"reads {other} in place of {name}"
        case ast.Attribute(_, _, ast.Load()) | ast.Subscript(_, _, ast.Load()) | ast.Compare() | ast.JoinedStr():
            other = facts.alike.get(text(node))
            if other:
                yield other, f"reads {other} in place of {text(node)}"
            if other and isinstance(node, ast.Compare):
                yield f"{text(node)} and {other}", f"also requires {other}"
        case ast.FormattedValue(ast.Name(name)):
            yield ast.FormattedValue(ast.Constant(0), -1), f"has 0 in place of {name} in a name"
        case ast.DictComp(key, ast.Name(value), generators):
            yield ast.DictComp(key, ast.Name(f"(-{value})"), generators), f"has {value} with the wrong sign"


def conditions(node, facts):
    match node:
        case ast.BoolOp(op, values):
            for i, value in enumerate(values):
                rest = values[:i] + values[i + 1 :]
                yield ast.BoolOp(op, rest) if len(rest) > 1 else rest[0], f"ignores whether {text(value)}"
        case ast.Compare(left, [ast.Eq() | ast.NotEq() as op], right):
            opposite = ast.NotEq() if isinstance(op, ast.Eq) else ast.Eq()
            yield ast.Compare(left, [opposite], right), f"has the opposite of {text(node)}"
        case ast.IfExp(test, body, orelse):
            yield body, f"is {text(body)} regardless of {text(test)}"
            yield orelse, f"is {text(orelse)} regardless of {text(test)}"
        case ast.comprehension(target, iterable, [test]):
            wrong = ast.UnaryOp(ast.Not(), test)
            yield ast.comprehension(target, iterable, [], 0), f"includes each {text(target)} regardless of {text(test)}"
            yield ast.comprehension(target, iterable, [wrong], 0), f"includes each {text(target)} unless {text(test)}"


def indices(node, facts):
    """Shift an index by one, or omit it."""
    match node:
        case ast.Subscript(value, ast.Tuple([*_, ast.Name() | ast.Attribute() as index]) as whole, context):
            moved = with_items(whole, "elts", -1, [ast.BinOp(index, ast.Sub(), ast.Constant(1))])
            yield ast.Subscript(value, moved, context), f"has the index {text(index)} shifted by one"
        case ast.Subscript(value, ast.Name(index), ast.Load()):
            yield value, f"lacks the index {index}"


CHANGES = (arithmetic, calls, lists, others, conditions, indices)
