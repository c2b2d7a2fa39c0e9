"""The gradient check can fail: it finds every wrong version of every backward pass.

`mutants.py` derives the wrong versions. What no small change of a line says is written by hand, in `BY_HAND`.
"""

import ast
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

from .mutants import NEW_ARRAYS, mutants, name_of

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
# distance from orthonormal, which comes with its gradient; the objective; cross-entropy's forward pass, which
# computes the gradient.
BACKWARD = r"[._]back(ward)?($|_)|\.(gate|slope|orthogonality|loss_and_gradients|cross_entropy_forward)$"
TESTED_ELSEWHERE = {  # in test_variants.py, test_blocks.py, test_training.py
    *("adapters.vera.projections", "ops.blocks.blocks", "ops.cross_entropy.target_weights")
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

WHOLE = [case for case in check.CASES if "model" in case or "classifier" in case]
SINGLE = [case for case in check.CASES if case not in WHOLE]
measure = check.measured_gradients


@functools.cache
def right_gradients(case):
    """What the forward pass shows. A whole model's differences take a second: in their place is what its backward
    pass says, which test_gradcheck.py holds to them."""
    drawn, doutput = check.draw_case(case, 0)
    return measure(drawn, doutput) if case in SINGLE else check.claimed_gradients(drawn, doutput, tuple(drawn.operands))


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
    single, whole = ([case for case in cases if code in set.union(*called_by(case))] for cases in (SINGLE, WHOLE))
    goes_forward = any(code in called_by(case)[0] for case in single)
    whole.sort(key=lambda case: "activations" not in case)
    return single if goes_forward else single + whole, goes_forward


def rows_of(case, measured):
    """The rows of one case, with the first seed."""
    with mock.patch.object(check, "measured_gradients", measured), np.errstate(all="ignore"):
        return check.check_case(case, 0)


@functools.cache
def compared(case):
    """What the rows of a case compare."""
    return [(row.operand, row.n_checked) for row in rows_of(case, lambda *_: right_gradients(case))]


def outcomes(name, code):
    """What each case says of a function with other code: which rows fail or are missing, or that it raises."""
    real = ALL[name].real
    right, compiled = real.__code__, compile(code, real.__code__.co_filename, "exec")
    wrong = next(c for c in compiled.co_consts if isinstance(c, CodeType) and c.co_name == real.__name__)
    cases, goes_forward = cases_of(name)
    for case in cases:
        expected, gradients = compared(case), right_gradients(case)
        try:
            real.__code__ = wrong
            for clear in CACHES:
                clear()
            rows = rows_of(case, measure if goes_forward else lambda *_, gradients=gradients: gradients)
            complete = [(row.operand, row.n_checked) for row in rows] == expected
            outcome = [row.operand for row in check.failures(rows)] + ["missing"] * (not complete)
        except Exception:
            outcome = ["raises"]
        finally:
            real.__code__ = right
            for clear in CACHES:
                clear()
        yield outcome


# ------------------------------------------------------------------ mutants

IN_VAIN = "computes more than is wanted, which test_accounting.py counts"
OTHER = "is the gradient of another function, which the forward pass computes too"
SAME = "is the same number"
READER = "is for readers alone; test_gradcheck.py holds it to attention_backward"
EQUIVALENT = [  # (function, its mutants' sentences and lines, why no row can show them)
    ("cross_entropy_forward", r"lacks axis=-1 in take_along_axis|^(picked has|largest)", SAME),
    ("cross_entropy_forward", r"lacks ignore_index in|^picked reads counts|average.* whatever", SAME),
    ("cross_entropy_forward", r"weights is not None never|^weights = .* left out", SAME),
    ("cross_entropy_forward", r"^gradients is \[dlogits\] whatever|condition dx is dropped", IN_VAIN),
    ("cross_entropy_backward", r"whether dloss == 1.0|2.0 in place of 1.0", SAME),
    ("layer_norm_backward", r"^through_variance has dx and cache.x_hat exchanged", SAME),
    ("gelu.gate", r"^g is set to 0.5, .*g \*= 0.5", OTHER),
    ("row_mean", r"(lacks the divisor|2 in place of 1).*vecdot", OTHER),
    ("low_rank_backward", r"condition 'x' in wanted or 'A' in wanted or 'e' in wanted is dropped", IN_VAIN),
    ("(linear|low_rank)_backward", r"^the result is d[yz] where nothing is wanted", SAME),
    ("orthogonality", r"(term|has) np.eye", OTHER),
    ("orthogonality", r"has of_[AB] transposed", SAME),
    ("backward_layers", r"(left out|skips getattr|weight' in|in a name|of module.prefix).*ion.steps", READER),
    ("backward_layers", r"lacks steps", READER),
    ("passes.backward", r"^back (= .*left out|is back whatever|skips around)", "counts costs: see test_accounting.py"),
    ("objective", r"^(wanted is \('logits'|grads is back).* whatever wanted|lacks wanted=\('logits'", IN_VAIN),
    ("objective", r"^n_targets (has the|has mean|lacks|reads)|float\(loss\) and n_targets exchanged", "is no gradient"),
]


def described(name):
    """(mutant, its sentence with the line that it changes, whether it is equivalent) of a function's mutants."""
    for mutant in mutants_of(name):
        description = f"{mutant.sentence}, in line {mutant.line}: {mutant.place}"
        reasons = [why for where, what, why in EQUIVALENT if re.search(where, name) and re.search(what, description)]
        yield mutant, description, bool(reasons)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_mutant_is_found(name):
    assert cases_of(name)[0]
    assert [what for m, what, same in described(name) if not same and not any(outcomes(name, m.code))] == []


@pytest.mark.slow
def test_no_exception_hides_a_mutant_that_is_found():
    for name in FUNCTIONS:
        assert [what for m, what, same in described(name) if same and any(outcomes(name, m.code))] == []


def test_every_exception_is_a_mutant():
    for where, what, _ in EQUIVALENT:
        names = [name for name in FUNCTIONS if re.search(where, name)]
        assert any(re.search(what, sentence) for name in names for _, sentence, _ in described(name)), (where, what)


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
        *("dx has the wrong sign", "dx has dy with the wrong sign", "dx has -dy and x.T exchanged"),
        *("dx has -dy transposed", "dx has x.T transposed", "dx has x not transposed"),
        *("dx *= 0.5 is left out", "dx is set to 0.5, not changed by it", "dx *= 0.5 has the opposite sign"),
        *("dx has 1.0 in place of 0.5", "the result has the wrong sign", "the result has mean in place of sum"),
        *("the result lacks axis=0 in sum", "axis has 1 in place of 0"),
    }


# ------------------------------------------------------------------ bugs by hand


class Bug(NamedTuple):
    what: str
    where: str  # what the function's name begins with
    right: str  # code that exists there once, as ast.unparse writes it
    wrong: str
    row: str | None = None  # that must show it; None: any


ALONE = check.ALONE
# fmt: off
BY_HAND = [
    Bug("rows flattened column by column", "ops.linear", "= dy.reshape(", "= dy.swapaxes(0, 1).reshape(", "weight"),
    Bug("dweight averaged over rows", "ops.linear", "drows.T @", "drows.T / len(drows) @", "weight"),
    Bug("the mean of all rows", "ops.layer_norm", "through_mean = row_mean(dx)", "through_mean = dx.mean()", "x"),
    Bug("the unbiased variance", "ops.layer_norm", "(dx, cache.x_hat)", "(dx, cache.x_hat) * C / (C - 1)", "x"),
    Bug("inv_std without ε", "ops.layer_norm", "inv_std=inv_std", "inv_std=1 / x.std(axis=-1, keepdims=True)", "x"),
    Bug("the diagonal alone", "ops.softmax", "subtract(dp, expected,", "multiply(dp, 1.0 - p,", "x"),
    Bug("digits lost", "ops.softmax", "np.empty_like(dprobs, order='C')", "np.empty_like(dprobs, np.float16)", "x"),
    Bug("the gate of ReLU", "ops.gelu", "slope(x_piece, g, y_piece)", "slope(x_piece, x_piece > 0, y_piece)", "x"),
    Bug("a repeated id counted once", "ops.embedding", "np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts)",
        "dy.reshape(-1, dy.shape[-1])[order][starts]", "weight"),
    Bug("a tied head's gradient added twice", "ops.embedding", "is None else into", "is None else 2.0 * into"),
    Bug("class 0 taken for padding", "ops.cross_entropy", "(counts / counts.", "((targets > 0) / counts.", "logits"),
    Bug("ignored targets count", "ops.cross_entropy", "(counts / counts.", "(np.ones(real.shape) / counts.", "logits"),
    Bug("masked but not scaled", "ops.dropout", "dy * cache.mask", "dy * (cache.mask > 0)", "x"),
    Bug("heads not transposed", "ops.attention", "split_heads(dcontext, n_heads)",
        "dcontext.reshape(*probs.shape[:3], -1)", "v"),
    Bug("columns dealt out to the heads in turn", "ops.attention", "n_heads, C // n_heads).transpose(0, 2, 1, 3)",
        "C // n_heads, n_heads).transpose(0, 3, 1, 2)", "v"),
    Bug("scaled by the width", "ops.attention", "sqrt(d_out.shape[-1])", "sqrt(dcontext.shape[-1])", "k"),
    Bug("softmax of something else", "ops.attention", "SoftmaxCache(probs)", "SoftmaxCache(probs * probs)", "scores"),
    Bug("no dq without dv", "ops.attention", "if not cache.wanted", "if 'v' not in cache.wanted", ALONE),
    Bug("w kept without e", "ops.low_rank", "wanted, mask, u, w)", "wanted, mask, u, u)", "lora_B"),
    Bug("one operand for each gradient", "ops.wanted", "'').split()", "'').split()[:1]", ALONE),
    Bug("dA masked only beside dB", "ops.low_rank", "dropout_forward(x, mask)[0]\n",
        "dropout_forward(x, mask if 'B' in wanted else None)[0]\n", ALONE),
    Bug("the base's dx through V", "adapters.dora", "x=left_out, weight=weight", "x=left_out, weight=V", "x"),
    Bug("factors of another seed", "adapters.vera", "cache.seed, dy.dtype", "cache.seed + 1, dy.dtype", "x"),
    Bug("stops at the highest wanted parameter", "model.", "lowest = min((", "lowest = max(("),
    Bug("stops one layer early", "model.", "if lowest <", "if lowest + 1 <", ALONE),
    Bug("layers of one depth", "model.", "module.operation != previous", "module.operation == 'layer_norm'", ALONE),
    Bug("v's gradient never asked for", "model.", "for name in 'qkv' if", "for name in 'qk' if"),
    Bug("a tied head at the input", "model.", "< module.depth", "< layers[module.parameters].depth"),
    Bug("a tied head never asked for dW", "model.", "get(module.parameters,", "get(module.name,"),
    Bug("gradients from before", "model.", "({}, cache.call.config)",
        "({name: np.ones_like(array) for name, array in cache.call.params.items()}, cache.call.config)", ALONE),
    Bug("gradients of another batch", "model.", "loss_cache).dlogits,", "loss_cache).dlogits[::-1],"),
    Bug("divided by the number of targets again", "model.", "cross_entropy_backward(1.0,",
        "cross_entropy_backward(1.0 / n_targets,"),
]
# fmt: on


@pytest.mark.parametrize("bug", BY_HAND, ids=lambda bug: f"{bug.where} {bug.what}")
def test_a_bug_by_hand_is_found(bug):
    codes = {name: ast.unparse(function.tree) for name, function in ALL.items() if name.startswith(bug.where)}
    places = [name for name, code in codes.items() for _ in range(code.count(bug.right))]
    assert len(places) == 1, f"{bug.right!r} is in {places or 'no function'}"
    wrong = outcomes(places[0], codes[places[0]].replace(bug.right, bug.wrong))
    assert any(rows and "raises" not in rows and bug.row in (None, *rows) for rows in wrong)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if "linear" in n else pytest.mark.slow) for n in FUNCTIONS])
def test_nothing_is_found_in_the_right_code(name):
    assert not any(outcomes(name, ast.unparse(ALL[name].tree)))
