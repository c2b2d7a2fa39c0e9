"""The gradient check can fail: it finds every wrong version of every backward pass.

`mutants.py` derives the wrong versions. What no small change of a line says is written by hand, in `BACKWARD_BUGS`.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import CodeType
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest

import lora_np
from lora_np.reference.gradcheck_cases import PARTS, WHOLE_MODELS
from lora_np.reference.mutants import NEW_ARRAYS, mutants, name_of

from .bugs_by_hand import BACKWARD_BUGS, ELSEWHERE

PACKAGE = Path(lora_np.__file__).parent
check = importlib.import_module("lora_np.reference.gradcheck")  # the module, not its function


# ------------------------------------------------------------------ the functions that go backward


class Function(NamedTuple):
    real: object
    tree: ast.FunctionDef


def package_functions(folder):
    """(name, Function) of all functions and methods of a folder: "ops.linear.linear_backward"."""
    for file in sorted((PACKAGE / folder).glob("[a-z]*.py")):
        module = importlib.import_module(f"lora_np.{folder}.{file.stem}")
        text = ast.parse(file.read_text(encoding="utf-8"))
        for owner in [text, *(node for node in text.body if isinstance(node, ast.ClassDef))]:
            for tree in [node for node in owner.body if isinstance(node, ast.FunctionDef)]:
                real = getattr(module if owner is text else getattr(module, owner.name), tree.name)
                CACHES.append(getattr(real, "cache_clear", lambda: None))
                real = inspect.unwrap(getattr(real, "fget", real))  # not a property, nor what a cache wraps
                yield f"{folder}.{file.stem}.{tree.name}", Function(real, tree)


CACHES = []  # functions that empty them: no wrong result is to stay, nor a right one
ALL = {name: function for folder in ("ops", "adapters", "model") for name, function in package_functions(folder)}

# Beside the backward passes: GELU's slope, which its forward pass computes, and the gate that it reads; AdaLoRA's
# distance from orthonormal, which comes with its gradient; the objectives; the forward passes of cross-entropy, with
# and without the head, and of SwiGLU, which compute the gradients or their factors.
BACKWARD = (
    r"[._]back(ward)?($|_)|\.(gate|slope|orthogonality|loss_and_gradients)$"
    r"|\.((linear_)?cross_entropy|swiglu)_forward$|objective\.token_log_probs$"
)
TESTED_ELSEWHERE = {  # in test_variants.py, test_blocks.py, test_training.py
    *("adapters.vera.projections", "ops.blocks.blocks", "ops.cross_entropy.target_weights"),
    *(f"ops.linear.{name}" for name in ("dense_if_small", "is_tiled", "sum_of", "tiles")),
}


def backward_functions():
    """The names of the functions that go backward, and of those that they call, except forward passes."""
    by_id = {id(function.real): name for name, function in ALL.items()}
    names = [name for name in ALL if re.search(BACKWARD, name)]
    for name in names:  # the list grows on the way
        real, tree = ALL[name]
        used = [real.__globals__.get(node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)]
        helpers = [by_id.get(id(inspect.unwrap(value))) for value in used if callable(value)]
        names += {helper for helper in helpers if helper and "forward" not in helper} - {*names, *TESTED_ELSEWHERE}
    return sorted(names)


FUNCTIONS = backward_functions()


@functools.cache
def mutants_of(name):
    return list(mutants(ALL[name].tree))


# ------------------------------------------------------------------ the judge

measure = check.measured_gradients


@functools.cache
def right_gradients(case):
    """What the forward pass shows. A whole model's differences take a second: in their place is what its backward
    pass says, which test_gradcheck.py holds to them."""
    drawn, doutput = check.draw_case(case, 0)
    return measure(drawn, doutput) if case in PARTS else check.claimed_gradients(drawn, doutput, tuple(drawn.operands))


@functools.cache
def called_by(case):
    """The code of all functions that a case calls: (forward, backward)."""
    forward, backward = set(), set()
    drawn, doutput = check.draw_case(case, 0)
    for clear in CACHES:
        clear()
    try:
        sys.setprofile(lambda frame, event, argument: forward.add(frame.f_code))
        _, pull = drawn.run(tuple(drawn.operands), **drawn.operands, **drawn.constants)
        sys.setprofile(lambda frame, event, argument: backward.add(frame.f_code))
        pull(doutput)
    finally:
        sys.setprofile(None)
    return forward, backward


@functools.cache
def cases_of(name):
    """The cases that call a function, fast ones first; whether an operation's case goes forward with it.

    If so, wrong code is measured as it is. A whole model is not measured, and is no judge of such a function.
    """
    code = ALL[name].real.__code__
    single, whole = ([case for case in cases if code in set.union(*called_by(case))] for cases in (PARTS, WHOLE_MODELS))
    goes_forward = any(code in called_by(case)[0] for case in single)
    whole.sort(key=lambda case: ("activations" not in case, "recompute" not in case))
    return single if goes_forward else single + whole, goes_forward


def rows_of(case, measured):
    """The rows of one case, with the first seed."""
    with mock.patch.object(check, "measured_gradients", measured), np.errstate(all="ignore"):
        return check.check_case(case, 0)


@functools.cache
def compared(case):
    """What the rows of a case compare."""
    return [(row.operand, row.n_checked) for row in rows_of(case, lambda *_: right_gradients(case))]


@contextlib.contextmanager
def with_code(real, code):
    """A function with the code of a text in the place of its own."""
    right, compiled = real.__code__, compile(code, real.__code__.co_filename, "exec")
    wrong = next(c for c in compiled.co_consts if isinstance(c, CodeType) and c.co_name == real.__name__)
    try:
        real.__code__ = wrong
        for clear in CACHES:
            clear()
        yield
    finally:
        real.__code__ = right
        for clear in CACHES:
            clear()


def outcomes(name, code):
    """What each case says of a function with other code: which rows fail or are missing, or that it raises."""
    cases, goes_forward = cases_of(name)
    for case in cases:
        expected, gradients = compared(case), right_gradients(case)
        compile(code, name, "exec")  # a SyntaxError is a mistake of the test
        try:
            with with_code(ALL[name].real, code):
                rows = rows_of(case, measure if goes_forward else lambda *_, gradients=gradients: gradients)
            complete = [(row.operand, row.n_checked) for row in rows] == expected
            yield [row.operand for row in check.failures(rows)] + ["missing"] * (not complete)
        except Exception:
            yield ["raises"]


# ------------------------------------------------------------------ mutants

IN_VAIN = "computes more than is wanted, which test_accounting.py counts"
OTHER = "is the gradient of another function, which the forward pass computes too"
SAME = "is the same number"
CHUNKS = f"{OTHER}; test_blocks.py holds it to cross_entropy_forward"
TOKENS = f"{OTHER}; test_rewards.py holds it to linear_cross_entropy_forward"
LLAMA = f"{OTHER}; test_model.py holds it to a Llama by hand"
RECOMPUTED = "costs memory or time, or is for readers; test_model.py holds recompute to what it promises"
READER = "is for readers alone; test_vectors.py compares it with attention_backward's"
RELEASED = "saves memory; see test_training.py"
EQUIVALENT = [  # (function, its mutants' sentences and lines, why no row can show them)
    ("cross_entropy_forward", r"lacks axis=-1 in take_along_axis|^(picked has|largest)", SAME),
    ("cross_entropy_forward", r"lacks ignore_index in|^picked reads counts|average.* regardless", SAME),
    ("cross_entropy_forward", r"weights is ignored|^weights = .* left out", SAME),
    ("cross_entropy_forward", r"^gradients is \[dlogits\] regardless|condition dx is dropped", IN_VAIN),
    ("cross_entropy_backward", r"whether dloss == 1.0|2.0 in place of 1.0", SAME),
    ("linear_cross_entropy_backward", r"dloss == 1.0 never holds", SAME),
    ("linear_cross_entropy_forward", r"^weight (= .* left out|skips)|[12] in place of [01], .*max\(1, ", SAME),
    ("linear_cross_entropy_forward", r"^(start (has 1|reads chunk)|share (has|lacks the divisor))", CHUNKS),
    ("linear_cross_entropy_forward", r"^(real|piece) has the wrong sign|1.0 in place of 0.0", CHUNKS),
    ("linear_cross_entropy_forward", r"is \('logits',\) regardless of wanted", IN_VAIN),
    ("linear_cross_entropy_forward", r"^the condition (wanted|grads.dweight.*) is dropped", IN_VAIN),
    ("token_log_probs.chunks", r"^(outside has the|expected)|outside.size never", "only refuses targets"),
    ("token_log_probs.chunks", r"^(real|rows) has .*wrong sign|2 in place of 1|^rows reads V", TOKENS),
    ("token_log_probs_backward", r"lacks wanted=wanted in linear_forward", IN_VAIN),
    ("(layer|rms)_norm_backward", r"^(through_variance|dx) has dx and cache.x_hat swapped", SAME),
    ("rope.rotate", r"^(heads|the result) has the wrong sign|lacks the factor cos", LLAMA),
    ("swiglu.sigmoid", r"^sigma is set to 0.5, .*\*= 0.5", LLAMA),
    ("swiglu_forward", r"^by_(gate|up) is np.empty_like.* regardless", IN_VAIN),
    ("swiglu_forward", r"^outputs includes each array regardless", SAME),
    ("gelu.gate", r"^g is set to 0.5, .*g \*= 0.5", OTHER),
    ("row_mean", r"(lacks the divisor|2 in place of 1).*vecdot", OTHER),
    ("low_rank_backward", r"condition 'x' in wanted or 'A' in wanted or 'e' in wanted is dropped", IN_VAIN),
    ("(linear|low_rank)_backward", r"^the result is d[yz] where nothing is wanted", SAME),
    ("orthogonality", r"(term|has) np.eye", OTHER),
    ("orthogonality", r"has of_[AB] transposed", SAME),
    ("backward_layers", r"(left out|skips getattr|weight' in|in a name|of module.prefix).*ion.steps", READER),
    ("backward_layers", r"lacks steps", READER),
    ("passes.backward", r"^(back|dx) skips wrap|ignores whether wrap", "counts costs: see test_accounting.py"),
    ("passes.backward", r"^the condition dx is not None is dropped|^again lacks|^dx lacks record", RECOMPUTED),
    ("objective.loss_and_gradients", r"^release (=|ignores whether part|skips|lacks)|lacks release=", RELEASED),
    (
        "passes.backward",
        r"^(the condition )?release is (not None never|ignored)|^release\(|release\(grads|in rel",
        RELEASED,
    ),
    ("bert.embed_backward", r"dpos and dtype swapped", SAME),
    ("objective", r"lacks (recompute=|'recompute')|^the condition not config.n_classes never holds", RECOMPUTED),
    ("objective.token_log_probs", r"^grads is {table: dtable} regardless", "adds a name whose gradient is None"),
    ("objective", r"check_writes", "only refuses a classifier or an encoder; see test_new_encoder.py"),
    (
        "objective",
        r"^(wanted is \('logits'|grads is back|dlogits is ops).* regardless of wanted|lacks wanted=\('logits'",
        IN_VAIN,
    ),
    ("objective", r"^n_targets (has the|has mean|lacks|reads(?! ops.cross_entropy_forward))", "is no gradient"),
    ("objective", r"float\(loss\) and n_targets swapped", "is no gradient"),
]


def described(name):
    """(mutant, its sentence with the line that it changes, whether it is equivalent) of a function's mutants."""
    of_function = [what for where, what, _ in EQUIVALENT if re.search(where, name)]
    for mutant in mutants_of(name):
        description = f"{mutant.sentence}, in line {mutant.line}: {mutant.place}"
        yield mutant, description, any(re.search(what, description) for what in of_function)


QUICK = [pytest.param(n, marks=[] if "ops.linear." in n else pytest.mark.slow) for n in FUNCTIONS]


@pytest.mark.parametrize("name", QUICK)
def test_every_mutant_is_found_and_nothing_in_the_right_code(name):
    assert cases_of(name)[0] and not any(outcomes(name, ast.unparse(ALL[name].tree)))
    assert [what for m, what, same in described(name) if not same and not any(outcomes(name, m.code))] == []


@pytest.mark.nightly
def test_exceptions_are_mutants_and_hide_none_that_is_found():
    of_all = {name: list(described(name)) for name in FUNCTIONS}
    for where, what, _ in EQUIVALENT:
        sentences = [s for name in FUNCTIONS if re.search(where, name) for _, s, _ in of_all[name]]
        assert any(re.search(what, sentence) for sentence in sentences), (where, what)
    for name, of in of_all.items():
        assert [what for mutant, what, same in of if same and any(outcomes(name, mutant.code))] == []


@pytest.mark.slow
def test_every_line_has_a_mutant():
    """Every line that computes: not docstrings, None, {}, another name, nor arrays that are to be filled."""
    for name in FUNCTIONS:
        changed = {mutant.line for mutant in mutants_of(name)}
        for node in ast.walk(ALL[name].tree):
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)) and node.value is not None:
                nothing = isinstance(node.value, (ast.Constant, ast.Attribute)) or ast.unparse(node.value) == "{}"
                assert node.lineno in changed or nothing or name_of(node.value) in NEW_ARRAYS, (name, node.lineno)


def test_the_mutants_of_a_small_function():
    code = """
    def slope(dy, x, n):
        'x - y'
        if n < 1:
            raise ValueError(n + 1)
        dx = -dy @ x.T
        dx *= 0.5
        return dx.sum(axis=0, dtype=x.dtype)
    """
    derived = list(mutants(ast.parse(textwrap.dedent(code)).body[0]))
    assert len({mutant.code for mutant in derived}) == len(derived)
    assert {mutant.sentence for mutant in derived} == {
        *("dx has the wrong sign", "dx has dy with the wrong sign", "dx has -dy and x.T swapped"),
        *("dx has -dy transposed", "dx has x not transposed", "axis has 1 in place of 0"),
        *("dx *= 0.5 is left out", "dx is set to 0.5, not updated with it", "dx *= 0.5 has the opposite sign"),
        *("dx has 1.0 in place of 0.5", "the result has the wrong sign", "the result has mean in place of sum"),
        "the result lacks axis=0 in sum",
    }


# ------------------------------------------------------------------ bugs by hand


def planted(bug, functions):
    """The name of the function that has the bug, and its wrong code."""
    codes = {name: ast.unparse(function.tree) for name, function in functions.items() if name.startswith(bug.where)}
    places = [name for name, code in codes.items() for _ in range(code.count(bug.right))]
    assert len(places) == 1, f"{bug.right!r} is in {places or 'no function'}"
    return places[0], codes[places[0]].replace(bug.right, bug.wrong)


@pytest.mark.parametrize("bug", BACKWARD_BUGS, ids=lambda bug: f"{bug.where} {bug.what}")
def test_a_bug_by_hand_is_found(bug):
    found = outcomes(*planted(bug, ALL))
    assert any(rows and "raises" not in rows and bug.found_by in (None, *rows) for rows in found)


passes = functools.cache(lambda test: test())
EVERYWHERE = ALL | {name: of for folder in ("compress", "formats") for name, of in package_functions(folder)}


@pytest.mark.parametrize("bug", ELSEWHERE, ids=lambda bug: f"{bug.where} {bug.what}")
def test_a_bug_elsewhere_is_found(bug):
    """By another test than the gradient check, because what goes forward is wrong too."""
    name, code = planted(bug, EVERYWHERE)
    passes(bug.found_by)
    with with_code(EVERYWHERE[name].real, code), pytest.raises(AssertionError):
        bug.found_by()
