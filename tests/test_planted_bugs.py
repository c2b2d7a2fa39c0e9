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

from lora_np.reference.gradcheck_cases import PARTS, WHOLE_MODELS

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
# distance from orthonormal, which comes with its gradient; the objective; the forward passes of cross-entropy, with
# and without the head, and of SwiGLU, which compute the gradients or their factors.
BACKWARD = (
    r"[._]back(ward)?($|_)|\.(gate|slope|orthogonality|loss_and_gradients)$"
    r"|\.((linear_)?cross_entropy|swiglu)_forward$"
)
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
CHUNKS = f"{OTHER}; test_blocks.py holds it to cross_entropy_forward"
LLAMA = f"{OTHER}; test_model.py holds it to a Llama by hand"
RECOMPUTED = "costs memory or time, or is for readers; test_model.py holds recompute to what it promises"
READER = "is for readers alone; test_gradcheck.py holds it to attention_backward"
EQUIVALENT = [  # (function, its mutants' sentences and lines, why no row can show them)
    ("cross_entropy_forward", r"lacks axis=-1 in take_along_axis|^(picked has|largest)", SAME),
    ("cross_entropy_forward", r"lacks ignore_index in|^picked reads counts|average.* whatever", SAME),
    ("cross_entropy_forward", r"weights is not None never|^weights = .* left out", SAME),
    ("cross_entropy_forward", r"^gradients is \[dlogits\] whatever|condition dx is dropped", IN_VAIN),
    ("cross_entropy_backward", r"whether dloss == 1.0|2.0 in place of 1.0|dloss == 1.0 never holds", SAME),
    ("linear_cross_entropy_forward", r"^weight = .* left out|2 in place of 1, in line 5[89]", SAME),
    ("linear_cross_entropy_forward", r"^(start (has 1|reads chunk)|share (has|lacks))|1.0 in place of 0.0", CHUNKS),
    ("linear_cross_entropy_forward", r"^(real|piece) has the wrong sign", CHUNKS),
    ("linear_cross_entropy_forward", r"whatever wanted|^the condition (wanted|grads.dweight.*) is dropped", IN_VAIN),
    ("(layer|rms)_norm_backward", r"^(through_variance|dx) has dx and cache.x_hat exchanged", SAME),
    ("rope.rotate", r"^(heads|the result) has the wrong sign|lacks the factor cos", LLAMA),
    ("swiglu.sigmoid", r"^sigma is set to 0.5", LLAMA),
    ("swiglu_forward", r"^by_(gate|up) is .* whatever", IN_VAIN),
    ("swiglu_forward", r"^outputs takes each array whatever", SAME),
    ("gelu.gate", r"^g is set to 0.5, .*g \*= 0.5", OTHER),
    ("row_mean", r"(lacks the divisor|2 in place of 1).*vecdot", OTHER),
    ("low_rank_backward", r"condition 'x' in wanted or 'A' in wanted or 'e' in wanted is dropped", IN_VAIN),
    ("(linear|low_rank)_backward", r"^the result is d[yz] where nothing is wanted", SAME),
    ("orthogonality", r"(term|has) np.eye", OTHER),
    ("orthogonality", r"has of_[AB] transposed", SAME),
    ("backward_layers", r"(left out|skips getattr|weight' in|in a name|of module.prefix).*ion.steps", READER),
    ("backward_layers", r"lacks steps", READER),
    ("passes.backward", r"^(back|dx) skips around|ignores whether around", "counts costs: see test_accounting.py"),
    ("passes.backward", r"^the condition dx is not None is dropped|^again lacks|^dx lacks record", RECOMPUTED),
    ("objective", r"^given lacks 'recompute'|^the condition not config.n_classes never holds", RECOMPUTED),
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
    Bug("gradients from before", "model.", "({} if grads is None",
        "({name: np.ones_like(array) for name, array in cache.call.params.items()} if grads is None", ALONE),
    Bug("gradients of another batch", "model.", "loss_cache).dlogits,", "loss_cache).dlogits[::-1],"),
    Bug("divided by the number of targets again", "model.", "linear_cross_entropy_backward(1.0,",
        "linear_cross_entropy_backward(1.0 / n_targets,"),
    Bug("divided by the number of texts again", "model.", "(cross_entropy_backward(1.0,",
        "(cross_entropy_backward(1.0 / n_targets,"),
    # Llama's operations
    Bug("the mean of all rows", "ops.rms_norm", "row_mean(dx, cache.x_hat)", "(dx * cache.x_hat).mean()", "x"),
    Bug("the mean subtracted, as in a layer norm", "ops.rms_norm", "dx *= cache.inv_rms",
        "dx = (dx - row_mean(dx)) * cache.inv_rms", "x"),
    Bug("ε forgotten", "ops.rms_norm", "inv_rms=inv_rms if", "inv_rms=1 / np.sqrt(row_mean(x, x)) if", "x"),
    Bug("ε outside the root", "ops.rms_norm", "inv_rms=inv_rms if", "inv_rms=1 / (np.sqrt(row_mean(x, x)) + eps) if", "x"),
    Bug("x in place of x̂", "ops.rms_norm", "x_hat=x_hat if", "x_hat=x if", "weight"),
    Bug("dweight not summed over rows", "ops.rms_norm", "'nc,nc->c'", "'nc,nc->nc'", "weight"),
    Bug("dweight averaged over rows", "ops.rms_norm", "'nc,nc->c'", "',nc,nc->c', C / dy.size", "weight"),
    Bug("neighbours turned together", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy.reshape(*dy.shape[:-1], -1, cache.cos.shape[-1], 2).swapaxes(-1, -2).reshape(dy.shape), cache.cos, "
        "-cache.sin).reshape(*dy.shape[:-1], -1, 2, cache.cos.shape[-1]).swapaxes(-1, -2).reshape(dy.shape)", "x"),
    Bug("turned by the angles of the position before", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy, np.roll(cache.cos, 1, -2), -np.roll(cache.sin, 1, -2))", "x"),
    Bug("turned by the angles of the first row", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy, cache.cos[:1], -cache.sin[:1])", "x"),
    Bug("frequencies in reverse order", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy, cache.cos[..., ::-1], -cache.sin[..., ::-1])", "x"),
    Bug("σ′ alone", "ops.swiglu", "slope *= silu", "slope *= 0.0 * silu + a", "gate"),
    Bug("σ′ = 1 − σ", "ops.swiglu", "slope *= silu", "slope *= a", "gate"),
    Bug("a(1 − σ) forgotten", "ops.swiglu", "slope *= silu", "slope *= 0.0 * silu", "gate"),
    Bug("the slope of ReLU", "ops.swiglu", "slope *= u", "slope[...] = (a > 0) * u", "gate"),
    Bug("the sigmoid in place of silu", "ops.swiglu", "np.multiply(silu, u, out=y_piece)",
        "np.multiply(silu, u, out=y_piece)\n        silu /= a", "up"),
    Bug("query heads dealt out to the key heads in turn", "ops.attention", "d_out = stack_groups(d_out, n_kv_heads)",
        "d_out = stack_groups(d_out.reshape(len(d_out), -1, n_kv_heads, *d_out.shape[2:]).swapaxes(1, 2), n_kv_heads)",
        "v"),
    Bug("dv of each group's first head alone", "ops.attention",
        "stack_groups(probs, n_kv_heads).transpose(0, 1, 3, 2) @ d_out",
        "stack_groups(probs, n_kv_heads)[..., :probs.shape[2], :].transpose(0, 1, 3, 2) "
        "@ d_out[..., :probs.shape[2], :]", "v"),
    Bug("dk of each group's first head alone", "ops.attention",
        "stacked.transpose(0, 1, 3, 2) @ stack_groups(cache.q, n_kv_heads)",
        "stacked[..., :probs.shape[2], :].transpose(0, 1, 3, 2) "
        "@ stack_groups(cache.q, n_kv_heads)[..., :probs.shape[2], :]", "k"),
    Bug("dv averaged over a group", "ops.attention", "dv = merge_heads(", "dv = n_kv_heads / n_heads * merge_heads(", "v"),
    Bug("dk averaged over a group", "ops.attention", "dk = merge_heads(", "dk = n_kv_heads / n_heads * merge_heads(", "k"),
    Bug("dv not summed over a group", "ops.attention", "dv = merge_heads(stack_groups(probs, n_kv_heads).transpose(0, 1, 3, 2)"
        " @ d_out)", "dv = merge_heads(probs.transpose(0, 1, 3, 2) @ unstack_groups(d_out, n_heads))", "v"),
    Bug("scaled by the key heads' width", "ops.attention", "sqrt(d_out.shape[-1])",
        "sqrt(d_out.shape[-1] * n_kv_heads)", "q"),
    Bug("the values of another key head", "ops.attention", "cache.v.transpose", "cache.v[:, ::-1].transpose", "q"),
    Bug("the keys of another head", "ops.attention", "stacked @ cache.k", "stacked @ cache.k[:, ::-1]", "q"),
    Bug("the softmax's gradient over the queries", "ops.attention", "softmax_backward(dprobs, SoftmaxCache(probs)).dx",
        "softmax_backward(dprobs.swapaxes(2, 3), SoftmaxCache(probs.swapaxes(2, 3))).dx.swapaxes(2, 3)", "q"),
    Bug("dweight of the last chunk alone", "ops.linear_cross", "dweight = grads.dweight if dweight is None else"
        " np.add(dweight, grads.dweight, out=dweight)", "dweight = grads.dweight", "weight"),
    Bug("dweight of the first chunk alone", "ops.linear_cross", "np.add(dweight, grads.dweight, out=dweight)", "dweight",
        "weight"),
    Bug("the gradient of the mean of the chunks' means", "ops.linear_cross", "cross_entropy_backward(share,",
        "cross_entropy_backward(step / max(step, len(real)),", "x"),
    Bug("a chunk's gradient not weighted", "ops.linear_cross", "cross_entropy_backward(share,",
        "cross_entropy_backward(1.0,", "x"),
    Bug("the gradient of a mean over ignored rows too", "ops.linear_cross", "cross_entropy_backward(share,",
        "cross_entropy_backward(len(piece) / targets.size,", "x"),
    Bug("no gradient from the last chunk", "ops.linear_cross", "if wanted:", "if wanted and start + step < len(real):"),
    Bug("gradients in the rows from the chunk's start", "ops.linear_cross", "dx[piece]", "dx[start:start + len(piece)]",
        "x"),
    # Llama, and what it shares with GPT-2
    Bug("a tied head's gradient lost", "model.objective", "{} if dtable is None else {table: dtable}", "{}"),
    Bug("the head's gradient counted twice", "model.objective", "{table: dtable}", "{table: 2.0 * dtable}"),
    Bug("a tied head's gradient under its own name", "model.objective", "{table: dtable}", "{'head.weight': dtable}"),
    Bug("a tied table's gradient replaced by the embedding's", "model.layers", "(grads.get(f'{module.parameters}.weight'),)",
        "(None,)"),
    Bug("the input of another block", "model.passes", "cache.inputs[i]", "cache.inputs[i - 1]"),
    Bug("recomputed without dropout", "model.passes", "again = cache._replace(",
        "again = cache._replace(call=cache.call._replace(masks={}), "),
    Bug("recomputed with other masks", "model.passes", "again = cache._replace(", "again = cache._replace(call=cache.call."
        "_replace(masks={name: mask[::-1] for name, mask in cache.call.masks.items()}), "),
    Bug("recomputed without the positions that are read", "model.passes", "again = cache._replace(",
        "again = cache._replace(call=cache.call._replace(read=0 if cache.call.read is None else 0 * cache.call.read), "),
    Bug("the first block's gradients lost", "model.passes", "elif dx is not None:", "elif dx is not None and i > 0:"),
    Bug("each block's gradients in a dict of its own", "model.passes", "backward_layers(again, grads, record)",
        "backward_layers(again, {}, record)"),
    Bug("a block's input written into", "model.layers", "return (x + branch, cache)",
        "return (np.add(x, branch, out=x), cache)"),
    Bug("dv turned as dk is", "model.llama", "back(f'{attn}.v_proj', dv)",
        "back(f'{attn}.v_proj', back(f'{attn}.k_rotated', dv))"),
    Bug("the gradient through the gate alone", "model.llama", "add(through_gate, through_up)",
        "add(through_gate, None)"),
    Bug("the gate's gradient through up's weight", "model.llama", "back(f'{mlp}.up_proj', dup)",
        "back(f'{mlp}.up_proj', dgate)"),
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
