"""Wrong programs derived from a right one: small changes to the code of a function, each with a sentence.

The changes are the slips that people make in a backward pass: a term or a factor left out, a sign flipped, a transpose
forgotten, operands exchanged, a mean for a sum, another axis, one array read in place of another, a condition
dropped. What cannot change a number is left alone: docstrings, errors, dtypes, memory order.
"""

import ast
import copy
import re
from typing import NamedTuple

NO_NUMBERS = {"dtype", "order", "kind", "out", "copy", "keepdims"}  # arguments and attributes that change no number
NEW_ARRAYS = {"empty", "empty_like", "zeros", "zeros_like"}  # their arguments are shapes
NO_ARRAYS = {"wanted", "shape", "ndim", "T", "any", "tuple", "len", "range", "int", "float", "print"} | NO_NUMBERS
SYMMETRIC = {"multiply", "vecdot", "einsum", "add", "maximum", "minimum"}
FOR_ANOTHER = {"sum": "mean", "mean": "sum", "add": "subtract", "subtract": "add", "zeros": "ones", "any": "all"}
STEP = re.compile(r"back(ward)?$|forward$|^(exp|tanh|sqrt|reversed)$")  # calls that a program may forget
GRADIENT = re.compile(r"(\w+\.)?d\w*")  # how gradients are called: dx, d, through_up.dx


class Mutant(NamedTuple):
    sentence: str  # what is wrong, in the code's own names
    line: int  # where
    code: str  # the wrong function


class Facts(NamedTuple):
    """What a change has to know about the function around it."""

    operands: list  # (line, name) of each parameter and variable that is an operand somewhere, as they come about
    alike: dict  # text of an expression -> that of another of its kind
    inner: set  # id of each expression of which an attribute or an item is taken
    filled: dict  # name of a parameter or variable -> the first line where it is more than a constant such as None


def mutants(function):
    """The wrong versions of a function.

    Parameters
    ----------
    function : ast.FunctionDef

    Yields
    ------
    Mutant, no code twice
    """
    function = copy.deepcopy(function)
    function.decorator_list = []
    facts, seen = facts_about(function), {ast.unparse(function)}
    for line in ast.walk(function):
        if isinstance(line, ast.stmt) and line is not function:
            for old, new, sentence in changes_of(line, function, facts):
                new = ast.parse(new, mode="eval").body if isinstance(new, str) else new
                code = ast.unparse(copy.deepcopy(function, {id(old): new}))  # a copy with `new` in the place of `old`
                if code not in seen:
                    seen.add(code)
                    yield Mutant(sentence, line.lineno, code)


text = ast.unparse


def name_of(node):
    """The last name of what is called: `sum` of np.sum(x) and of x.sum(); "" for what is no call."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def is_pair(a, b):
    """Whether two neighbours may have been exchanged: no text, nothing starred."""
    return not isinstance(a, (ast.Constant, ast.JoinedStr, ast.Starred)) and type(b) is not ast.Starred


def facts_about(function):
    nodes = list(ast.walk(function))
    inner = {id(n.value) for n in nodes if isinstance(n, (ast.Attribute, ast.Subscript))}
    pairs = [(n.left, n.right) for n in nodes if isinstance(n, ast.BinOp)]
    pairs += [(n.target, n.value) for n in nodes if isinstance(n, ast.AugAssign)]
    operands = {n.id for pair in pairs for n in pair if isinstance(n, ast.Name)}
    stored = sorted((n.lineno, n.id) for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    bound = [(0, parameter.arg) for parameter in function.args.args] + stored
    kinds = {}  # what could be taken for one another: fields of an object, keys of a dict, names asked for, layers
    for node in nodes:
        match node:
            case ast.Attribute(ast.Name(base), field, ast.Load()) if base != "np" and field not in NO_ARRAYS:
                kinds.setdefault((base, id(node) in inner), []).append(text(node))
            case ast.Subscript(base, ast.Constant(str()) | ast.JoinedStr(), ast.Load()):
                kinds.setdefault(text(base), []).append(text(node))
            case ast.Compare(ast.Constant(str()), [ast.In() | ast.NotIn()]):
                kinds.setdefault("asked for", []).append(text(node))
            case ast.JoinedStr():
                kinds.setdefault("names", []).append(text(node))
    alike = {}
    for group in map(list, map(dict.fromkeys, kinds.values())):
        alike |= {a: b for a, b in zip(group, group[1:] + group[:1]) if a != b}
    none = {n.lineno for n in nodes if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)}
    filled = dict(reversed([(name, line) for line, name in bound if line not in none]))
    return Facts([(line, name) for line, name in bound if name in operands], alike, inner, filled)


# ---------------------------------------------------------------- changes: (what is there, what comes, sentence)


def changes_of(line, function, facts):
    """The changes of one statement, without those of the statements inside it."""
    if isinstance(line, (ast.Raise, ast.Assert)) or isinstance(getattr(line, "value", None), ast.Constant):
        return
    if isinstance(line, ast.If) and isinstance(line.body[0], ast.Raise):
        return
    target = getattr(line, "target", None) or getattr(line, "targets", [None])[0]
    about = text(target) if target else {ast.Return: "the result", ast.If: "the condition"}.get(type(line), "it")
    known = {name for at, name in facts.operands if at < line.lineno}
    again = isinstance(target, ast.Subscript) or isinstance(target, ast.Name) and target.id in known
    match line:
        case ast.If(test):
            yield test, "True", f"always does what is for {text(test)}"
            yield test, "False", f"never does what is for {text(test)}"
        case ast.AugAssign(_, op, value):
            opposite = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}.get(type(op))
            yield line, ast.Pass(), f"leaves out {text(line)}"
            yield line, ast.Assign([target], value, lineno=0), f"{about} is replaced in {text(line)}"
            if opposite:
                yield line, ast.AugAssign(target, opposite(), value), f"does the opposite of {text(line)}"
        case ast.Expr() | ast.Assign() if isinstance(line, ast.Expr) or again:
            yield line, ast.Pass(), f"leaves out {text(line)}"
    if isinstance(line, (ast.Assign, ast.Return)) and not isinstance(target, ast.Tuple):
        called = name_of(line.value)
        if isinstance(line.value, (ast.BinOp, ast.Call, ast.Name)) and not called[:1].isupper():
            if called not in NO_ARRAYS | NEW_ARRAYS:
                yield line.value, f"-({text(line.value)})", f"{about} has the wrong sign"
    for value in [v for v in ast.iter_child_nodes(line) if isinstance(v, ast.expr)]:
        for node, its_name in expressions(value, about):
            for change in CHANGES:
                yield from ((node, new, f"{its_name} {sentence}") for new, sentence in change(node, facts))


def expressions(node, about):
    """(node, what it is about) of everything inside an expression that can change a number."""
    yield node, about
    inside = list(ast.iter_child_nodes(node))
    names = {}
    if isinstance(node, ast.Dict):
        names = {id(value): text(key) for key, value in zip(node.keys, node.values) if key}
    if name_of(node) in NEW_ARRAYS:
        inside = [node.func]
    if name_of(node) in ("reshape", "transpose"):
        inside = [node.func, *(n for n in node.args if isinstance(n, ast.BinOp))]
    for child in inside:
        if isinstance(child, ast.keyword) and child.arg not in NO_NUMBERS:
            yield from expressions(child.value, child.arg or about)
        elif isinstance(child, (ast.expr, ast.comprehension)):
            yield from expressions(child, names.get(id(child), about))


def arithmetic(node, facts):
    match node:
        case ast.BinOp(left, op, right):
            a, b = text(left), text(right)
            plus, minus, times, over, product = (
                isinstance(op, kind) for kind in (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult)
            )
            if plus or minus:
                yield a, f"lacks the term {b}"
                yield b if plus else f"-({b})", f"lacks the term {a}"
                yield f"({a}) {'-' if plus else '+'} ({b})", f"has {b} with the wrong sign"
            if times or over:
                yield a, f"lacks the {'factor' if times else 'divisor'} {b}"
                yield b, f"lacks the {'factor' if times else 'dividend'} {a}"
                yield f"({a}) * ({a}) * ({b})" if times else f"({a}) / ({b}) / ({b})", f"has a factor twice in {text(node)}"
            if minus or over or product:
                yield text(ast.BinOp(right, op, left)), f"has {a} and {b} exchanged"
            if product:
                yield f"({a}).swapaxes(-1, -2) @ ({b})", f"has {a} transposed"
                yield f"({a}) @ ({b}).swapaxes(-1, -2)", f"has {b} transposed"
        case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
            yield text(operand), f"has {text(operand)} with the wrong sign"
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            wrong = number + 1 if isinstance(number, int) else 2.0 * number or 1.0
            yield str(wrong), f"has {wrong} in place of {number}"
        case ast.Attribute(value, "T") | ast.Call(ast.Attribute(value, "transpose" | "swapaxes")):
            yield text(value), f"has {text(value)} not transposed"


def calls(node, facts):
    """A call left out, or of another function; an argument left out, or with the wrong sign."""
    if isinstance(node, ast.Attribute) and node.attr in FOR_ANOTHER:
        other = FOR_ANOTHER[node.attr]
        yield f"({text(node.value)}).{other}", f"has {other} in place of {text(node)}"
    call = node.value if isinstance(node, (ast.Attribute, ast.Subscript)) else node
    name = name_of(call)
    if name and call.args and id(node) not in facts.inner and name not in NO_ARRAYS:
        if STEP.search(name) or isinstance(call.func, ast.Name) and isinstance(call.args[0], (ast.Name, ast.Attribute)):
            yield text(call.args[0]), f"skips {name}({text(call.args[0])})"
    if not isinstance(node, ast.Call):
        return
    for i, argument in enumerate(map(text, node.args)):
        if GRADIENT.fullmatch(argument) and argument not in NO_NUMBERS and name not in NEW_ARRAYS | NO_ARRAYS:
            yield text(with_items(node, "args", i, [ast.Name(f"(-{argument})")])), f"has {argument} with the wrong sign"
        if i and isinstance(node.func, ast.Name) and not STEP.search(name) and name[0].islower():
            yield text(with_items(node, "args", i, [])), f"lacks {argument} in {name}"
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in NO_NUMBERS:
            yield text(with_items(node, "keywords", i, [])), f"lacks {text(keyword)} in {name}"
    if name in ("subtract", "add", "multiply", "vecdot", "einsum"):
        first, second = node.args[-2:]
        yield text(with_items(node, "args", -1, [first])), f"has {text(first)} in place of {text(second)}"
        alone = ast.Call(ast.Name("np.positive"), [first], node.keywords)
        yield text(alone), f"lacks {text(second)} beside {text(first)}"


def with_items(node, field, i, new, n=1):
    """A copy of a node with `new` in place of n items of a list."""
    changed, items = copy.copy(node), list(getattr(node, field))
    i %= len(items)
    items[i : i + n] = new
    setattr(changed, field, items)
    return changed


def lists(node, facts):
    """Neighbours exchanged, or one item left out: arguments, outputs, values of a dict, names in a tuple."""
    field = {ast.Call: "args", ast.Tuple: "elts", ast.Dict: "values"}.get(type(node))
    if any(isinstance(n, ast.Slice) for n in ast.iter_child_nodes(node)):
        return  # a part of an index
    if field and not STEP.search(name_of(node)) and name_of(node) not in SYMMETRIC | NEW_ARRAYS:
        items = getattr(node, field)
        for i, (a, b) in enumerate(zip(items, items[1:])):
            if is_pair(a, b) and any(facts.filled.get(text(n), 0) <= node.lineno for n in (a, b)):
                yield text(with_items(node, field, i, [b, a], 2)), f"has {text(a)} and {text(b)} exchanged"
    if isinstance(node, ast.Dict) and len(node.keys) > 1:
        for i, key in enumerate(node.keys):
            yield text(with_items(with_items(node, "keys", i, []), "values", i, [])), f"lacks {text(key or node.values[i])}"
    if isinstance(node, ast.Tuple) and any(isinstance(n, (ast.Starred, ast.Constant)) for n in node.elts):
        for i, item in enumerate(node.elts):
            yield text(with_items(node, "elts", i, [])), f"lacks {text(item)} in {text(node)}"


def others(node, facts):
    """One array, field, key or name in place of another of its kind; the gradient with the wrong sign."""
    match node:
        case ast.Name(name, ast.Load()) if id(node) not in facts.inner:
            before = [other for line, other in facts.operands if line < node.lineno and other != name]
            before = [other for other in before if bool(GRADIENT.fullmatch(other)) == bool(GRADIENT.fullmatch(name))]
            if name in (operand for _, operand in facts.operands):
                for other in list(dict.fromkeys(reversed(before)))[:2]:  # the last two
                    yield other, f"reads {other} in place of {name}"
        case ast.Attribute() | ast.Subscript() | ast.Compare() | ast.JoinedStr():
            other = facts.alike.get(text(node))
            if other and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
                yield other, f"reads {other} in place of {text(node)}"
                if isinstance(node, ast.Compare):
                    yield f"{text(node)} and {other}", f"asks for {other} beside {text(node)}"
        case ast.FormattedValue(ast.Name(name)):
            yield ast.FormattedValue(ast.Constant(0), -1), f"has 0 in place of {name} in a name"
        case ast.DictComp(key, ast.Name(value), generators):
            yield ast.DictComp(key, ast.Name(f"(-{value})"), generators), f"has {value} with the wrong sign"


def conditions(node, facts):
    match node:
        case ast.BoolOp(op, values):
            for i, value in enumerate(values):
                rest = values[:i] + values[i + 1 :]
                yield text(ast.BoolOp(op, rest) if len(rest) > 1 else rest[0]), f"ignores whether {text(value)}"
        case ast.IfExp(test, body, orelse):
            yield text(body), f"is {text(body)} whatever {text(test)}"
            yield text(orelse), f"is {text(orelse)} whatever {text(test)}"
        case ast.comprehension(target, iterable, [test]):
            yield ast.comprehension(target, iterable, [], 0), f"takes each {text(target)} whatever {text(test)}"
            wrong = ast.UnaryOp(ast.Not(), test)
            yield ast.comprehension(target, iterable, [wrong], 0), f"takes each {text(target)} but those with {text(test)}"


def indices(node, facts):
    """An index moved by one, or left out."""
    match node:
        case ast.Subscript(value, ast.Tuple(elements)):
            for i, index in enumerate(elements):
                if isinstance(index, (ast.Name, ast.Attribute)):
                    moved = text(with_items(node.slice, "elts", i, [ast.Name(f"{text(index)} - 1")]))
                    yield f"{text(value)}[{moved}]", f"has the index {text(index)} moved by one"
        case ast.Subscript(value, ast.Name(index), ast.Load()):
            yield text(value), f"lacks the index {index}"


CHANGES = (arithmetic, calls, lists, others, conditions, indices)
