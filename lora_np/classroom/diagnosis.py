"""Explain an incorrect output by finding a mistake that reproduces it. Candidates are tried in order of likelihood:

1. the exercise's few hand-written mistakes;
2. the worked solution with one mutation (`slips.py`);
3. the correct output for changed inputs: only the last row, two inputs swapped, k + 1 instead of k;
4. the correct output after a change (multiplied by a size, squared, transposed, reversed), or another output or input;
5. the worked solution with two mutations.

A candidate must reproduce the student's output in every draw of the inputs. Only the changes in group 4 that involve no
size need not hold where the output is correct. A mutation must also leave those outputs correct that the student has
right; only if no candidate fits, mutations are tried without this condition. If none of them fits either, the report
describes the difference by scale, shift, norm and cosine.
"""

import ast
import inspect
import itertools
import math
import re
import sys
import textwrap
from collections import Counter
from functools import cache

import numpy as np

from ..ops.softmax import softmax
from ..reference import mutants
from ..reference.causes import looks
from ..reference.slips import slips
from .exercise import compared_outputs, equal, is_float_array
from .runner import shown

MOST_PAIRS, LARGE = 600, 200
SHORT = 48  # number of characters
WORDS = {"before", "half", "inside", "order", "root", "up"}  # in sentences, and also names of variables


def suspects(exercise, name, checked):
    """Return a tuple of up to two sentences that describe an incorrect output.

    `checked` has (i, outputs, complaints about their shapes or dtypes) for each draw, the last two as dicts by name.
    """
    for i, arrays, problems in checked:
        i.returned = {output: array for output, array in arrays.items() if not problems.get(output)}
    answers = [(i, np.asarray(i.returned[name])) for i, *_ in checked if name in i.returned]
    wrong = [(i, got) for i, got in answers if not equal(got, i.right[name])]
    if not any(np.isfinite(got).any() for _, got in wrong):  # or there are too many ways to get only NaN
        return ()
    # Constants come first, because many candidates reproduce a constant by chance.
    if len(answers) > 1 == len({float(got) for _, got in answers if got.ndim == 0}):
        return (f"it is {shown(answers[0][1])} for all inputs",)
    cause = len(answers) > 1 and cause_of(exercise, name, answers, wrong)  # in one draw, too many fit by chance
    return (cause,) if cause else description(name, wrong)


def cause_of(exercise, name, answers, wrong):
    """Return the sentence of the first candidate that reproduces an incorrect output, or None."""
    drawn = [i for i, _ in wrong]
    correct = [other for other in drawn[0].right if all(is_correct(other, i.returned, i) for i, _ in answers)]
    groups = by_hand, by_code, by_inputs, by_quantities, by_results, by_two_changes
    for candidates, right in [(group, correct) for group in groups] + [(by_hand, ()), (by_code, ())] * bool(correct):
        # Candidates other than those from `by_results` must also reproduce the student's output where it is correct.
        where = wrong if candidates is by_results else answers
        for sentence, value_of in candidates(exercise, name, drawn, right):
            if all(equal(got, tried(value_of, i)) for i, got in where):
                return in_known_words(exercise, name, sentence) if candidates in (by_code, by_two_changes) else sentence
    return None


def is_correct(name, outputs, i):
    """Whether an output is correct in a draw."""
    return equal(np.asarray(outputs.get(name)), i.right[name], i.rounding[name])


def description(name, wrong):
    """Describe an incorrect output whose cause is unknown, in up to two sentences."""
    (i, got), *_ = wrong
    right = np.asarray(i.right[name])
    if right.ndim == 0 or not np.isfinite(got).all():
        return ()  # the report shows it anyway
    by_one = {"b": ("True, not False", "False, not True")}.get(right.dtype.kind, ("one too large", "one too small"))
    for sign, said in zip((1, -1), by_one):
        if all({0, sign} >= {*np.ravel(got.astype(float) - i.right[name])} for i, got in wrong):
            return (f"some entries are {said}, and the others are correct",)
    in_norm = ("it is off", "its norm") if right.dtype.kind in "iub" else ()  # means nothing for integers
    return tuple(said for said in looks(right.astype(float), got.astype(float))[:2] if not said.startswith(in_norm))


def tried(function, *arguments):
    """Call a function; return its value, or None if it raises."""
    try:
        with np.errstate(all="ignore"):
            return function(*arguments)
    except Exception:  # a mutated solution may raise any exception
        return None


# ---------------------------------------------------------------- known mistakes, and mutations


def by_hand(exercise, name, drawn, correct):
    for sentence, wrong in exercise.mistakes.items():
        yield sentence, lambda i, wrong=wrong: made_by_hand(exercise, wrong, i, correct, name)


def made_by_hand(exercise, wrong, i, correct, name):
    """Return an output of a hand-written mistake, or None if it has no such output."""
    if isinstance(wrong, tuple):  # code of the solution, and incorrect code in its place
        return outcome(exercise, inspect.getsource(exercise.solution).replace(*wrong), i, correct).get(name)
    made = wrong(i)
    made = dict(zip(exercise.outputs, made)) if isinstance(made, tuple) else made
    return made.get(name) if isinstance(made, dict) else made


def by_code(exercise, name, drawn, correct):
    """Yield mutations, those that reproduce most of the student's outputs first, then those on the output's line."""
    (i, *_), changes = drawn, changed_solutions(exercise)

    def likelihood(change):
        made = outcome(exercise, change[1], i)
        agree = sum(equal(np.asarray(got), made.get(output)) for output, got in i.returned.items())
        return agree, change[0].startswith(f"{name} ")

    yield "it is 0 for all inputs", lambda i: np.zeros_like(i.right[name])
    yield "its sign is reversed", lambda i: np.negative(i.right[name])
    for sentence, code in sorted(changes, key=likelihood, reverse=True):
        yield sentence, lambda i, code=code: outcome(exercise, code, i, correct).get(name)


def by_two_changes(exercise, name, drawn, correct):
    """Yield pairs of mutations, unless the output is a float or a small int, which many pairs would match by chance."""
    for right in (np.asarray(i.right[name]) for i in drawn):
        if right.ndim == 0 and (right.dtype.kind != "i" or right < LARGE):
            return
    for sentence, code in pairs_of_changes(exercise, MOST_PAIRS):
        yield sentence, lambda i, code=code: outcome(exercise, code, i, correct).get(name)


@cache
def solution_tree(function):
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    tree.body = tree.body[1:]  # without the docstring
    return tree


@cache
def changed_solutions_of(function, outputs):
    return [(mutant.sentence, mutant.code) for mutant in slips(solution_tree(function), outputs)]


def changed_solutions(exercise):
    return changed_solutions_of(exercise.solution, exercise.outputs)


def own_variables(exercise):
    """Map each variable of the solution that a student has not seen, and that is assigned once, to its code."""
    seen = f"{exercise.text} {exercise.solution.__doc__} {' '.join(exercise.hints.values())} {exercise.formula}"
    nodes, own = list(ast.walk(solution_tree(exercise.solution))), {}
    stored = [getattr(n, "value", n) for n in nodes if isinstance(getattr(n, "ctx", 0), ast.Store)]  # a in a[0] = 1
    times = Counter([*exercise.arguments, *(getattr(n, "id", "") for n in stored)])
    for node in nodes:
        match node:
            case ast.Assign([ast.Name(name)], value) if times[name] == 1 and not re.search(rf"\b{name}\b", seen):
                code = with_code(own, mutants.text(value))
                own[name] = code if isinstance(value, ast.Call | ast.Subscript) else f"({code})"
    return own


def with_code(own, said):
    """Replace variables by their code."""
    return re.sub(r"\w+", lambda match: own.get(match[0], match[0]), said)


def in_known_words(exercise, output, sentence):
    """Replace the solution's own variables by their code, if it is short and belongs to one of them only. As the
    subject of a sentence, such a variable is called an intermediate result."""
    own, same = own_variables(exercise), re.escape(output)
    sentence = re.sub(rf"^{same} has (?!.*, and )(.+) in place of {same}$", r"it is \1", sentence)
    sentence = re.sub(r"\([\w, ]+\) has (\w+ and \w+) swapped", r"\1 are swapped", sentence)
    for name in own:
        sentence = re.sub(rf"^{name} (.+, and) {name} ", rf"{name} \1 ", sentence)
        sentence = re.sub(rf"(^|, and ){name} (?![-+*/@=]|is used)", r"\1an intermediate result ", sentence)
    unclear = {name for name, code in own.items() if len(code) >= SHORT or [*own.values()].count(code) > 1}
    return with_code({name: code for name, code in own.items() if name not in unclear | WORDS}, sentence)


def pairs_of_changes(exercise, most=None):
    """Yield (sentence, code) for up to `most` pairs of mutations on different lines and `most` on the same line."""
    right = ast.unparse(solution_tree(exercise.solution)).splitlines()
    likely = list(mutants.mutants(ast.parse("\n".join(right)).body[0], outputs=exercise.outputs))
    pairs = [(a, b) for a, b in itertools.combinations(likely, 2) if a.line != b.line]
    pairs.sort(key=lambda pair: kind_of_change(pair[0]) != kind_of_change(pair[1]))  # pairs of equal kinds first
    for a, b in pairs[:most]:
        lines = list(right)
        for mutant in (a, b):
            lines[mutant.line - 1] = mutant.code.splitlines()[mutant.line - 1]
        yield f"{a.sentence}, and {b.sentence}", "\n".join(lines)
    in_one = ((first, second) for first in likely for second in in_one_line(first, exercise))
    for a, b in itertools.islice(in_one, most):
        yield f"{a.sentence}, and {b.sentence}", b.code


def in_one_line(mutant, exercise):
    """Mutate a mutated solution once more: yield all mutations on the line of the first mutation."""
    return mutants.mutants(ast.parse(mutant.code).body[0], outputs=exercise.outputs, line_number=mutant.line)


def kind_of_change(mutant):
    """Return the kind of a mutation, without names: "lacks the factor" for "du lacks the factor s"."""
    return mutant.sentence.split()[1:4]


def outcome(exercise, code, i, correct=()):
    """Return a changed solution's outputs in a draw as a dict, empty if it raises or gets a name in `correct` wrong."""
    outcomes = i.__dict__.setdefault("outcomes", {})  # cached, because each incorrect output needs them
    if code not in outcomes:
        outcomes[code] = tried(lambda: compared_outputs(exercise, compiled(exercise, code), i, i.inputs)) or {}
    return outcomes[code] if all(is_correct(name, outcomes[code], i) for name in correct) else {}


def compiled(exercise, code):
    """Compile a changed solution into a function with the globals of the original."""
    space = {"np": np} | vars(sys.modules[exercise.solution.__module__])
    exec(compile(code, "<changed>", "exec"), space)
    return space[exercise.name]


# ---------------------------------------------------------------- other inputs


def by_inputs(exercise, name, drawn, correct):
    """Yield the correct outputs for changed inputs: with one input changed, or two swapped."""

    def value_of(i, sentence):
        if not hasattr(i, "others"):  # computed once for all outputs and sentences
            i.others = dict(other_inputs(i))
        return compared_outputs(exercise, exercise.solution, i, i.inputs | i.others[sentence])[name]

    def of_transposed(i, array):
        return compared_outputs(exercise, exercise.solution, i, i.inputs | {array: i.inputs[array].T})[name].T

    for array in [array for array, value in drawn[0].inputs.items() if np.ndim(value) == 2]:
        sentence = f"it works down the columns of {array}, not along its rows"
        yield sentence, lambda i, array=array: of_transposed(i, array)
    for sentence in dict.fromkeys(sentence for sentence, _ in other_inputs(drawn[0])):
        yield sentence, lambda i, sentence=sentence: value_of(i, sentence)


def other_inputs(i):
    """Yield (sentence, changed inputs)."""
    for name, value in i.inputs.items():
        if isinstance(value, bool) or callable(value):
            continue
        if isinstance(value, int):
            for by in (1, -1):
                yield f"it is correct for {name} {'+' if by > 0 else '−'} 1 instead of {name}", {name: value + by}
        elif isinstance(value, list | tuple) and value:
            yield f"it is correct for only the first item of {name}", {name: value[:1]}
            yield f"it is correct for only the last item of {name}", {name: value[-1:]}
            yield f"{name} is shifted by one place", {name: value[-1:] + value[:-1]}
            yield f"{name} is in reverse order", {name: value[::-1]}
        elif isinstance(value, float):
            if 0 < value < 1:
                yield f"it is correct for 1 − {name} instead of {name}", {name: 1 - value}
            for other, number in quantities(i).items():
                if other != name and number != value:
                    yield f"it is correct for {other} instead of {name}", {name: number}
                if other in ("2", "r", "√r"):
                    yield f"it is correct for {name} · {other} instead of {name}", {name: value * number}
                    yield f"it is correct for {name} / {other} instead of {name}", {name: value / number}
        elif isinstance(value, np.ndarray) and value.ndim:
            yield f"it is correct for only the last row of {name}", {name: alone(value, -1)}
            yield f"it is correct for only the first row of {name}", {name: alone(value, 0)}
            first = np.broadcast_to(value[:1], value.shape)
            yield f"every row of {name} is replaced by the first row", {name: first}
            yield f"the first row of {name} does not count", {name: value - alone(value, 0)}
            yield f"the last row of {name} does not count", {name: value - alone(value, -1)}
            if value.dtype.kind == "f":
                yield f"{name} has the opposite sign", {name: -value}
                yield f"the magnitudes of {name} are used", {name: np.abs(value)}
                yield f"the squares of {name} are used", {name: value**2}
                yield f"a softmax is applied to {name} first", {name: softmax(value)}
            if value.ndim > 1:
                yield f"the last two axes of {name} are swapped", {name: value.swapaxes(-1, -2)}
                yield f"{name} is in reverse order along axis -2", {name: value[..., ::-1, :]}
            yield f"{name} is in reverse order along axis -1", {name: value[..., ::-1]}
    for (a, one), (b, other) in itertools.combinations(i.inputs.items(), 2):
        if type(one) is type(other) and np.shape(one) == np.shape(other) and not callable(one):
            yield f"{a} and {b} are swapped", {a: other, b: one}
            if is_float_array(one):
                yield f"{b} is replaced by {b} - {a}", {b: other - one}
        if min(np.ndim(one), np.ndim(other)) > 1 and np.shape(one)[:2] == np.shape(other)[:2]:
            yield f"position t of {a} is paired with position t + 1 of {b}", {a: one[:, :-1], b: other[:, 1:]}
            yield f"position t of {a} is paired with position t - 1 of {b}", {a: one[:, 1:], b: other[:, :-1]}


def alone(array, row):
    """Return a copy of an array in which all rows except one are zero."""
    single = np.zeros_like(array)
    single[row] = array[row]
    return single


# ---------------------------------------------------------------- changes to the correct output


def by_quantities(exercise, name, drawn, correct):
    """Yield the correct output times or divided by sizes, which differ from draw to draw."""

    def right(i, output=name):
        return np.asarray(i.right[output], float)

    names = dict.fromkeys(itertools.chain(*map(quantities, drawn)))
    for output, quantity in itertools.product(sorted(drawn[0].right, key=lambda other: other != name), names):
        value = "the correct value" if output == name else output
        yield f"it is {value} times {quantity}", lambda i, q=quantity, o=output: right(i, o) * quantities(i)[q]
        yield f"it is {value} divided by {quantity}", lambda i, q=quantity, o=output: right(i, o) / quantities(i)[q]
    for a, b in itertools.permutations(lengths(drawn[0]), 2):
        sentence = f"it is the correct value times {a}, divided by {b}"
        yield sentence, lambda i, a=a, b=b: right(i) * lengths(i)[a] / lengths(i)[b]


def by_results(exercise, name, drawn, correct):
    for sentence, change in CHANGES_OF_A_RESULT.items():
        yield sentence, lambda i, change=change: change(np.asarray(i.right[name], float))
    for other in arrays_of(drawn[0], name):
        yield f"it is {other}", lambda i, other=other: arrays_of(i, name)[other]
        yield f"it is the softmax of {other}", lambda i, other=other: softmax(arrays_of(i, name)[other])
        yield f"it is the correct value times {other}", lambda i, other=other: i.right[name] * arrays_of(i, name)[other]
    for a, b in itertools.permutations(drawn[0].right, 2):
        yield f"it is {a} + {b}", lambda i, a=a, b=b: np.add(i.right[a], i.right[b])
        yield f"it is {a} - {b}", lambda i, a=a, b=b: np.subtract(i.right[a], i.right[b])
        if b == name:
            yield f"it is {a}", lambda i, a=a: i.right[a]
            yield f"it is twice {a}", lambda i, a=a: 2 * np.asarray(i.right[a])


CHANGES_OF_A_RESULT = {
    "its signs are lost": np.abs,
    "it is one too large": lambda right: right + 1,
    "it is one too small": lambda right: right - 1,
    "it is 1 minus the correct value": lambda right: 1 - right,
    "it is the reciprocal of the correct value": lambda right: 1 / right,
    "it is the square of the correct value": np.square,
    "it is the square root of the correct value": np.sqrt,
    "it is the logarithm of the correct value": np.log,
    "it is the angle whose cosine is the correct value": np.arccos,
    "it is in reverse order": lambda right: right[..., ::-1],
    "rows and columns are swapped": lambda right: right.swapaxes(-1, -2),
    "it is sorted, but the correct output is not": lambda right: np.sort(right, axis=-1),
    "it is sorted in descending order, but the correct output is not": lambda right: -np.sort(-right, axis=-1),
    "it is the cumulative sum along its last axis": lambda right: np.cumsum(right, axis=-1),
    "a softmax has been applied to it": softmax,
    "it is set to 0 where a key comes after its query": np.tril,
    "every entry is the sum of the correct values": lambda right: np.full_like(right, right.sum()),
    "every entry is the mean of the correct values": lambda right: np.full_like(right, right.mean()),
    "it is shifted by one place along its last axis": lambda right: np.roll(right, 1, axis=-1),
    "it is shifted back by one place along its last axis": lambda right: np.roll(right, -1, axis=-1),
}
LETTERS = {"n_in": "in", "n_out": "out", "alpha": "α"}


def quantities(i):
    """Return the numbers by which a student may have multiplied or divided an output, as a dict, name -> number."""
    known = {length for value in i.inputs.values() for length in getattr(value, "shape", ())} | {i.size.alpha, i.size.r}
    known |= {i.size.H, i.size.D} if i.size.C in known else set()
    sizes = {LETTERS.get(name, name): float(n) for name, n in vars(i.size).items() if n in known}
    named = {name: float(n) for name, n in i.inputs.items() if isinstance(n, int | float) and n > 0} | lengths(i)
    for name, value in i.inputs.items():
        if isinstance(value, dict) and value and all(isinstance(n, int | float) for n in value.values()):
            named[f"the sum of {name}"] = float(sum(value.values()))
    named = sizes | named | {"α/r": i.size.alpha / i.size.r, "B · T": i.size.B * i.size.T}
    roots = {f"√{name}": math.sqrt(n) for name, n in named.items() if n > 0}
    plain = {"2": 2.0, "3": 3.0, "4": 4.0, "8": 8.0, "100 (per cent)": 100.0, "1.96 (for a 95 % interval)": 1.96}
    return {name: n for name, n in (named | roots | plain).items() if n != 1}


def lengths(i):
    """Return the lengths of the inputs' axes, as a dict, name -> length."""
    arrays = {name: array for name, array in i.inputs.items() if isinstance(array, np.ndarray) and array.ndim}
    rows = {f"the number of rows of {name}": len(array) for name, array in arrays.items()}
    return rows | {f"the number of columns of {name}": a.shape[-1] for name, a in arrays.items() if a.ndim > 1}


def arrays_of(i, name):
    """Return the inputs and other outputs that may have been returned instead of the output `name`."""
    values = i.inputs | {other: right for other, right in i.right.items() if other != name}
    return {other: v for other, v in values.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}


def exchanged(exercise, name, i, got):
    """Return (sentence,) if another output was returned in place of the output `name`, else ()."""
    for other, right in i.right.items():
        if other != name and np.shape(right) != np.shape(i.right[name]) and equal(got, right):
            return (f"it is {other}; the order is {', '.join(exercise.outputs)}",)
    return ()
