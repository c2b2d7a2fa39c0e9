"""The gradient check: all its rows, and that it leaves nothing out."""

import copy
import importlib
import json
import math

import numpy as np
import pytest

from lora_np.adapters import KINDS
from lora_np.ops.numerical_gradient import numerical_gradient, relative_error
from lora_np.reference import CASES, TOLERANCE, Row, failures, format_rows, gradcheck, rows_to_dicts
from lora_np.reference.gradcheck_cases import PARTS, WHOLE_MODELS

check = importlib.import_module("lora_np.reference.gradcheck")  # the module, not its function
STEPS_BETWEEN = {"probs", "scores"}  # what attention_backward returns beside its operands' gradients


def test_every_row_of_the_parts_passes():
    rows = [row for name in PARTS for row in check.check_case(name, 0)]
    assert failures(rows) == []
    # Well below the tolerance, or it would be luck: a right backward pass has errors near 1e-9 and less.
    assert max(row.error for row in rows) < TOLERANCE / 10


@pytest.mark.slow
def test_every_row_of_the_command_passes():
    """Of all cases, with two seeds that check them alike."""
    rows = gradcheck()
    assert failures(rows) == [] and max(row.error for row in rows) < TOLERANCE / 10
    assert list(dict.fromkeys(row.name for row in rows)) == list(CASES)
    first, second = ([(r.name, r.operand, r.n_checked) for r in rows if r.seed == seed] for seed in (0, 1))
    assert first == second and len(set(first)) == len(first) == len(rows) / 2


@pytest.mark.parametrize("name", WHOLE_MODELS)
def test_whole_models_along_random_directions(name):
    """In place of each index: the slope of the loss along directions that move all parameters at once."""
    for seed in (0, 1):
        case, doutput = check.draw_case(name, seed)
        claimed, rng = check.claimed_gradients(case, doutput, tuple(case.operands)), np.random.default_rng(seed)

        def loss(step, direction, case=case, doutput=doutput):
            moved = {operand: array + step * direction[operand] for operand, array in case.operands.items()}
            return np.sum(doutput * case.run((), **moved, **case.constants)[0])

        for _ in range(5):
            direction = {operand: rng.normal(size=array.shape) for operand, array in case.operands.items()}
            slopes = [(loss(h, direction) - loss(-h, direction)) / (2 * h) for h in (1e-5, 2e-5)]
            slope = (4 * slopes[0] - slopes[1]) / 3  # without the error of order h²
            terms = [np.sum(claimed[operand] * direction[operand]) for operand in case.operands]
            assert abs(slope - sum(terms)) < TOLERANCE * np.linalg.norm(terms)


def test_one_case_can_be_chosen_and_every_kind_of_adapter_goes_through_all_models():
    assert {(row.name, row.seed) for row in gradcheck(seeds=(3, 5), only="softmax")} == {("softmax", 3), ("softmax", 5)}
    with pytest.raises(ValueError, match="only: no case's name contains 'rnn'"):
        gradcheck(only="rnn")
    models = ("language model", "classifier", "llama", "llama classifier", "bert")
    assert {f"{model}: {kind}" for model in models for kind in KINDS} <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_mutated_and_no_gradient_is_zero_from_the_start(name):
    """The cache is an input too: what a backward pass writes into it, a second one reads. A caller may write into the
    gradients. A gradient of zeros would be right by chance, as lora_A's is at B = 0."""
    case, doutput = check.draw_case(name, 0)
    before = copy.deepcopy((case.operands, case.constants, doutput))
    output, pull = case.run(tuple(case.operands), **case.operands, **case.constants)
    output_before = np.copy(output)
    first, second, third = copy.deepcopy(pull(doutput)), pull(doutput), pull(doutput)
    np.testing.assert_equal((case.operands, case.constants, doutput), before)
    np.testing.assert_equal(output, output_before)
    np.testing.assert_equal(second, first)
    for operand, array in case.operands.items():
        assert not any(np.shares_memory(second[operand], other) for other in (third[operand], array)), operand
        # softmax does not feel a number added to every score, so no loss feels k's bias
        if not operand.endswith("k_proj.bias"):
            assert np.linalg.norm(first[operand]) > 1e-4 * np.linalg.norm(doutput), operand


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, draw in CASES.items() if draw(np.random.default_rng(0)).selective])
def test_what_is_wanted_comes_back_the_same_and_nothing_else(name):
    case, doutput = check.draw_case(name, 0)
    alone = [(operand,) for operand in case.operands]
    all_but = [tuple(other for other in case.operands if other != operand) for operand in case.operands]
    together = check.claimed_gradients(case, doutput, tuple(case.operands))
    for wanted in [(), *alone, *all_but]:
        grads = check.claimed_gradients(case, doutput, wanted)
        assert {n for n, grad in grads.items() if grad is not None} - STEPS_BETWEEN == set(wanted)
        assert all(np.array_equal(grads[operand], together[operand]) for operand in wanted)


@pytest.mark.parametrize("name", PARTS)
def test_float32_stays_float32(name):
    case, doutput = check.draw_case(name, 0)
    exact = check.claimed_gradients(case, doutput, tuple(case.operands))
    given = {**case.operands, **case.constants}
    given = {n: a.astype(np.float32) if getattr(a, "dtype", None) == np.float64 else a for n, a in given.items()}
    output, pull = case.run(tuple(case.operands), **given)
    claimed = pull(np.float32(doutput))
    assert type(output) is float or output.dtype == np.float32  # Python's float leaves float32 what it is
    for operand in case.operands:
        assert claimed[operand].dtype == np.float32
        assert relative_error(claimed[operand], exact[operand]) < 1e-5


def test_the_measured_gradient_of_a_cubic():
    x = np.array([[0.5, -2.0, 30.0]])
    assert relative_error(numerical_gradient(lambda a: np.sum(a**3), x), 3 * x**2) < 1e-9
    with pytest.raises(TypeError, match="float64"):
        numerical_gradient(np.sum, x.astype(np.float32))


def test_the_difference_of_gradients():
    a, b = {"a": np.array([[3.0, 4.0]])}, {"b": np.array([1.0])}
    nan, zero, less = ({"a": factor * a["a"]} for factor in (np.nan, 0, 0.9))
    assert check.difference(a | b, b | a) == check.difference(zero, zero) == 0.0
    assert check.difference(a, less) == pytest.approx(0.1)
    for one, other in ((a, {"a": a["a"].T}), (a, {}), ({}, a)):
        assert check.difference(one, other) == math.inf
    assert math.isnan(check.difference(nan, a)) and math.isnan(check.difference(a, nan))


def test_reports_tell_which_rows_fail():
    rows = [Row("gelu", "x", 0, error, 60) for error in (1e-9, 2e-7, math.inf, math.nan)]
    assert failures(rows) == rows[1:] and failures(rows[:1]) == []
    lines = format_rows(rows).splitlines()
    assert lines[0].split() == ["case", "operand", "seed", "numbers", "error"]
    assert lines[1].split() == ["gelu", "x", "0", "60", "1.0e-09"]
    assert [line.endswith("FAIL") for line in lines[1:]] == [False, True, True, True]
    plain = rows_to_dicts(rows)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain[0] == {"name": "gelu", "operand": "x", "seed": 0, "error": 1e-9, "n_checked": 60, "passed": True}
    assert [(row["error"], row["passed"]) for row in plain[1:]] == [(2e-7, False), (None, False), (None, False)]
