"""The process that runs the cells of a student's submission and calls its functions.

It needs only NumPy and the standard library, and receives no worked solutions. It reads JSON messages, one per line,
and answers each:

    {"run": source}                  -> {"error": sentence or null}
    {"call": name, "inputs": {...}}  -> {"returned": value, "inputs": {...}, "peak": bytes}, or {"error": sentence}

If an input of a call is a function, it stays in the grading process. To call it, this process sends
{"function": key, "arguments": [...]}.
"""

import ast
import asyncio
import base64
import contextlib
import io
import json
import math
import os
import re
import sys
import traceback
import tracemalloc
import types
import warnings
from collections import namedtuple
from dataclasses import fields, is_dataclass
from fractions import Fraction
from importlib.machinery import ModuleSpec

import numpy as np

MOST_BITS = 10_000  # larger integers, with more than 3,010 digits, are described in words
MOST_CHARACTERS = 300  # of the description of an error
KINDS = "biufc"  # dtype kinds of the arrays that are sent; arrays of other kinds are described in words


class Words(str):
    """A description of a value that cannot be sent."""


# ---------------------------------------------------------------- values as JSON


def encode(value, functions=None):
    """Encode a value for JSON. A function is stored in the dict `functions`, and only its key is sent."""
    if isinstance(value, int | Fraction) and max(value.numerator, -value.numerator, value.denominator) >> MOST_BITS:
        return {"words": "a number with more than 3,000 digits"}
    if isinstance(value, Words):
        return {"words": value}
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in KINDS:
        array = np.asarray(value)
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {"array": data, "dtype": array.dtype.str, "shape": array.shape, "number": isinstance(value, np.generic)}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return {"objects": [encode(x, functions) for x in value.flat], "shape": value.shape}
    if isinstance(value, Fraction):
        return {"fraction": [str(value.numerator), str(value.denominator)]}
    if isinstance(value, np.random.Generator):
        state = value.bit_generator.state
        return {"generator": json.loads(json.dumps(state, default=np.ndarray.tolist))}
    if fields_of(value) is not None:
        return {"fields": [[name, encode(part, functions)] for name, part in fields_of(value).items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__ if type(value) in (list, tuple) else "list": [encode(x, functions) for x in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(name, functions), encode(part, functions)] for name, part in value.items()]}
    if callable(value) and functions is not None:
        functions[str(len(functions))] = value
        return {"function": str(len(functions) - 1)}
    return {"words": in_words(value)}


def fields_of(value):
    """Return the fields of a NamedTuple or a dataclass as a dict, or None for any other value."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def decode(value, function=None):
    """Decode a value from JSON; `function(key)` returns the function with that key."""
    if not isinstance(value, dict):
        return value
    ((kind, content), *_) = value.items()
    match kind:
        case "array":
            array = np.frombuffer(base64.b64decode(content), np.dtype(value["dtype"])).reshape(value["shape"]).copy()
            return array[()] if value["number"] else array
        case "objects":
            array = np.empty(len(content), object)
            array[:] = [decode(x, function) for x in content]
            return array.reshape(value["shape"])
        case "fraction":
            return Fraction(*map(int, content))
        case "generator":
            generator = np.random.default_rng()
            generator.bit_generator.state = content
            return generator
        case "fields":
            outputs = namedtuple("Outputs", [name for name, _ in content])
            return outputs(*(decode(part, function) for _, part in content))
        case "list" | "tuple":
            return {"list": list, "tuple": tuple}[kind](decode(x, function) for x in content)
        case "dict":
            return {decode(name, function): decode(part, function) for name, part in content}
        case "function":
            return function(content)
    return Words(content)


def in_words(value):
    """Describe a value's type, with advice if a value of this type is usually returned by mistake."""
    if isinstance(value, Words):
        return str(value)
    name, advice = type(value).__name__, ""
    if isinstance(value, types.GeneratorType):
        advice = " (does it say `yield` instead of `return`?)"
    elif isinstance(value, types.CoroutineType):
        value.close()  # otherwise Python warns on stderr that it was never awaited
        advice = " (is it an `async def`?)"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}{advice}"


def shown(number):
    """Format a number: an integer with all its digits, any other number with six."""
    number = float(number)
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"


# ---------------------------------------------------------------- errors and memory of a student's code


def what_was_raised(error, function, call):
    """Describe in one sentence, with the line number, an exception that a student's function raised.

    Parameters
    ----------
    error : BaseException
    function : the student's function
    call : str, the call, such as "merge(W, A, B, s)"
    """
    if isinstance(error, NotImplementedError):
        return "it is not written yet"
    code, where = getattr(function, "__code__", None), ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            where = f", in line {line - code.co_firstlineno + 1} of the function"
    shapes = isinstance(error, ValueError) and re.search("broadcast|matmul|reshape|aligned", text_of(error))
    advice = ". Print the shapes just before that line, and compare them with those you wrote down" if shapes else ""
    if isinstance(error, TypeError) and (error.__traceback__ is None or error.__traceback__.tb_next is None):
        advice = f". It is called as {call}"  # the call itself failed
    return f"it raises {in_plain_words(error)}{where}{advice}"


NUMPY_ERRORS = (  # pattern of an error of NumPy, and what it means
    (
        r"matmul: .*\(size (\d+) is different from (\d+)\)",
        r"the inner lengths of a product A @ B differ: A has \2 columns, and B has \1 rows. Is a .T missing?",
    ),
    (
        r"shapes (\(.*?\)) and (\(.*?\)) not aligned.*",
        r"arrays of shapes \1 and \2 cannot be multiplied. Is a .T missing?",
    ),
    (
        r"operands could not be broadcast together with (?:remapped )?shapes (\(.*?\)) (\(.*?\)).*",
        r"arrays of shapes \1 and \2 cannot be combined elementwise",
    ),
    (r"cannot reshape array of size (\d+) into shape (\(.*\))", r"an array of \1 numbers cannot get the shape \2"),
    (
        r"numpy boolean (subtract|negative), .*",
        r"- is not defined for arrays of bools; convert them to numbers first, as in x.astype(float)",
    ),
)


def text_of(error):
    try:
        return str(error)
    except Exception:  # str() of a student's exception can fail as well
        return ""


def in_plain_words(error):
    """Return an exception's name and message; NumPy's common messages are explained, and long ones are shortened."""
    said = text_of(error)
    for pattern, words in NUMPY_ERRORS if isinstance(error, ValueError | TypeError) else ():
        if found := re.fullmatch(pattern, said, re.DOTALL):
            said = found.expand(words)
            break
    if len(said) > MOST_CHARACTERS:
        said = f"{said[:MOST_CHARACTERS]}…"
    return f"{type(error).__name__}: {said}".removesuffix(": ")


@contextlib.contextmanager
def quiet():
    """Suppress warnings, stdout and stderr."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield


def peak_of(function, arguments):
    """Call a function; return its value and the call's peak memory in bytes."""
    tracemalloc.start()
    try:
        return function(*arguments), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- the process


class Absent(types.ModuleType):
    """What replaces lora_np, its modules and their contents during grading: it can be imported, but not used."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")

    def __call__(self, *given, **more):
        if self.__name__.startswith("lora_np.classroom.check."):
            return None  # the grader runs the checks itself
        raise RuntimeError(f"{self.__name__} is not available during grading: write it yourself")


class FindAbsent:
    """An import finder that replaces lora_np and all of its modules with Absent."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, FindAbsent, is_package=True) if name.partition(".")[0] == "lora_np" else None

    @staticmethod
    def create_module(spec):
        return Absent(spec.name)

    @staticmethod
    def exec_module(module):
        pass


class Ignored:
    """What replaces `display` and `get_ipython`: anything can be called, and nothing happens."""

    def __getattr__(self, name):
        return self

    def __call__(self, *given, **more):
        return self


def python_of(source):
    """Return a cell's source without what only IPython understands, such as %timeit f(), files = !ls, and f?."""
    with contextlib.suppress(SyntaxError, ValueError):
        ast.parse(source)
        return source
    if re.match(r"\s*%%(?!time|timeit|capture|prun)", source):
        return ""  # another language, or a file
    source = re.sub(r"^(\s*)([%!?].*|[\w.]+\?+ *)$", r"\1pass", source, flags=re.MULTILINE)
    return re.sub(r"^(\s*[\w, ]+= *)[%!].*$", r"\1None", source, flags=re.MULTILINE)


def run_cell(source, space):
    """Run a cell, which may contain `await`; return a description of its error, or None."""
    try:
        with quiet():
            code = compile(python_of(source), "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(code, space)
            if waiting is not None:
                asyncio.run(waiting)
    except BaseException as error:
        return f"it raises {in_plain_words(error)}"
    return None


def call_function(message, space, ask):
    """Call a student's function with the inputs from a message; return the reply as a dict."""
    function, inputs = space.get(message["call"]), decode(message["inputs"], ask)
    if function is None:
        return {"error": f"there is no function {message['call']} (does your function have another name?)"}
    if not callable(function):
        return {"error": f"{message['call']} is {in_words(function)}, expected a function"}
    try:
        with quiet():
            given = inputs.values()
            returned, peak = peak_of(function, given) if message.get("measure") else (function(*given), 0)
    except BaseException as error:
        call = f"{message['call']}({', '.join(inputs)})"
        return {"error": what_was_raised(error, function, call)}
    try:
        return {"returned": encode(returned), "inputs": encode(inputs), "peak": peak}
    except Exception as error:  # raised by an object of the student's own class
        said = {"words": f"{in_words(returned)} ({type(error).__name__})"}
        return {"returned": said, "inputs": encode(inputs), "peak": peak}


def main():
    """Read messages from a copy of stdin until it ends, and reply on a copy of stdout; discard what the cells print."""
    messages = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)

    def send(answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    def ask(key):
        def function(*arguments):
            send({"function": key, "arguments": [encode(value) for value in arguments]})
            answer = json.loads(messages.readline())
            if "error" in answer:
                raise ValueError(answer["error"])
            return decode(answer["value"])

        return function

    if "--without-lora-np" in sys.argv:
        sys.meta_path.insert(0, FindAbsent)
    space = {"__name__": "__main__", "np": np, "math": math, "display": Ignored(), "get_ipython": Ignored()}
    sys.modules["__main__"].__dict__.update(space)
    for line in messages:
        message = json.loads(line)
        send({"error": run_cell(message["run"], space)} if "run" in message else call_function(message, space, ask))


if __name__ == "__main__":
    main()
