"""Operations, their outputs and all their gradients, against torch.nn.functional, where numbers are extreme.

test_reference_torch.py has every operation.
"""

import numpy as np
import pytest

from lora_np import ops

from .comparison import GRADIENT, OUTPUT, check, check_all

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402
from torch.nn.attention.bias import causal_lower_right  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.parametrize("seed", [0, 1])]

B, T, C, H, N_FF, V = 3, 5, 12, 2, 20, 17  # and a head has 6 columns
EXTREMES = np.array([-1e4, -80.0, 0.0, 80.0, 1e4])


def check_op(op, oracle, operands, rng, zero=(), **constants):
    """Output, and the gradient of each operand (dict, name -> float64 array), for a random dout.

    oracle: function of the operands' tensors to the output's tensor; zero: gradients that are zero in theory;
    constants: the forward pass's other arguments.
    """
    before = {name: array.copy() for name, array in operands.items()}
    out, cache = getattr(ops, f"{op}_forward")(**operands, **constants)
    dout = rng.normal(size=np.shape(out))
    grads = getattr(ops, f"{op}_backward")(dout, cache)

    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in before.items()}
    expected = oracle(**tensors)
    expected.backward(torch.tensor(dout))

    check("operations, outputs", op, out, expected, OUTPUT)
    got = {f"{op}: d{name}": getattr(grads, f"d{name}") for name in tensors}
    expected = {f"{op}: d{name}": tensor.grad for name, tensor in tensors.items()}
    check_all("operations, gradients", got, expected, GRADIENT, zero)
    for name in operands:
        assert np.array_equal(operands[name], before[name]), f"{op} has changed its operand {name}"


@pytest.mark.parametrize("rows", [(T,), (B, T), (B, 1)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("mean, spread", [(0.0, 1.0), (50.0, 1.0), (0.3, 1e-3), (0.0, 1e4)])
def test_layer_norm(seed, rows, eps, mean, spread):
    rng = np.random.default_rng(seed)
    operands = {
        "x": mean + spread * rng.normal(size=(*rows, C)),
        "weight": rng.normal(size=C),
        "bias": rng.normal(size=C),
    }

    def oracle(x, weight, bias):
        return F.layer_norm(x, (C,), weight, bias, eps)

    check_op("layer_norm", oracle, operands, rng, eps=eps)


@pytest.mark.parametrize("inputs", ["small", "wide", "far out"])
def test_gelu(seed, inputs):
    rng = np.random.default_rng(seed)
    x = {
        "small": rng.normal(size=(B, T, N_FF)),
        "wide": 4.0 * rng.normal(size=(B, T, N_FF)),
        "far out": np.array([-1e4, -80.0, -6.0, -1e-3, 0.0, 1e-3, 6.0, 80.0]),
    }[inputs]

    check_op("gelu", lambda x: F.gelu(x, approximate="tanh"), {"x": x}, rng)


@pytest.mark.parametrize("spread", [1.0, 20.0])
@pytest.mark.parametrize("extremes", [EXTREMES * 0, EXTREMES], ids=["near", "far"])
def test_softmax(seed, spread, extremes):
    rng = np.random.default_rng(seed)
    x = rng.choice(extremes, size=(B, T, V)) + spread * rng.normal(size=(B, T, V))
    x[0, 0, 3:] = -np.inf  # masked entries
    check_op("softmax", lambda x: F.softmax(x, dim=-1), {"x": x}, rng)


@pytest.mark.parametrize("n_queries, n_keys", [(T, T), (1, 1), (2, T), (1, T)])
@pytest.mark.parametrize("scale", [1.0, 4.0, 30.0])  # scores of about ±1, ±16 and ±1000
def test_attention(seed, n_queries, n_keys, scale):
    """The queries are the last of the keys' positions, so the mask is aligned at the lower right."""
    rng = np.random.default_rng(seed)
    operands = {
        "q": scale * rng.normal(size=(B, n_queries, C)),
        "k": scale * rng.normal(size=(B, n_keys, C)),
        "v": rng.normal(size=(B, n_keys, C)),
    }

    def oracle(q, k, v):
        q, k, v = (x.view(*x.shape[:2], H, C // H).transpose(1, 2) for x in (q, k, v))
        if n_queries == n_keys:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            bias = causal_lower_right(n_queries, n_keys)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return out.transpose(1, 2).reshape(B, n_queries, C)

    # One key alone has the weight 1 whatever its score, and one far above the others too: then q and k
    # have next to no gradient, and what is left of it is rounding.
    saturated = n_keys == 1 or scale == 30.0
    check_op("attention", oracle, operands, rng, ("dq", "dk") if saturated else (), n_heads=H)


@pytest.mark.parametrize("extremes", [EXTREMES * 0, EXTREMES], ids=["near", "far"])
@pytest.mark.parametrize("ignore_index", [-100, 0, 4])
@pytest.mark.parametrize("shape", [(B, T), (B,)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(seed, extremes, ignore_index, shape, weighted):
    rng = np.random.default_rng(seed)
    logits = rng.choice(extremes, size=(*shape, V)) + rng.normal(size=(*shape, V))
    targets = rng.integers(0, V, shape)
    targets.flat[0], targets.flat[1] = V - 1, ignore_index
    targets[..., -1] = ignore_index

    weights = rng.uniform(0.1, 5.0, V) if weighted else None

    def oracle(logits):
        rows, its = logits.flatten(0, -2), None if weights is None else torch.tensor(weights)
        return F.cross_entropy(rows, torch.tensor(targets).flatten(), its, ignore_index=ignore_index)

    constants = {"targets": targets, "ignore_index": ignore_index, "weights": weights}
    check_op("cross_entropy", oracle, {"logits": logits}, rng, **constants)
