"""LoRA on one linear layer (Hu et al. 2021, section 4.1, equation 3).

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ        A (r, in),  B (out, r),  s = α/r

The update ΔW = s B A has at most rank r. It is never formed in training: x passes through r
numbers, which costs r (in + out) products a row in place of in · out.
"""

import math
from typing import NamedTuple

import numpy as np

from ..ops import dropout_backward, dropout_forward, linear_backward, linear_forward
from ..ops.dropout import DropoutCache
from ..ops.linear import LinearCache
from .config import scaling
from .counting import linear_flops, linear_kept


class LoRACache(NamedTuple):
    base: LinearCache  # of x Wᵀ + b; with W frozen it holds W for dx and no activation
    down: LinearCache  # of u = x̃ Aᵀ; its x is the layer's input before dropout
    up: LinearCache  # of z = (s u) Bᵀ
    dropout: DropoutCache
    scale: float
    wanted: tuple[str, ...]


class LoRAOperands(NamedTuple):
    """What each of the three linear layers is asked for: names among x, weight and bias."""

    base: tuple[str, ...]  # x Wᵀ + b
    down: tuple[str, ...]  # u = x̃ Aᵀ
    up: tuple[str, ...]  # z = (s u) Bᵀ


def shapes(n_out, n_in, r):
    """Shapes of the arrays of one layer's adapter.

    Parameters
    ----------
    n_out, n_in : int, of the layer's base weight
    r : int

    Returns
    -------
    dict: lora_A (r, in), lora_B (out, r)
    """
    return {"lora_A": (r, n_in), "lora_B": (n_out, r)}


def init(weight, config, rng):
    """A random, B zero: ΔW = 0, so the adapted model starts as the base.

    Were A zero too, both gradients would be zero for ever: dB ∝ A and dA ∝ B. One of the two must
    be random; B is the one at zero, after the paper.

    Parameters
    ----------
    weight : array (out, in), the layer's base weight
    config : AdapterConfig of this layer
    rng : np.random.Generator

    Returns
    -------
    dict: lora_A (r, in), lora_B (out, r), of the weight's dtype
    """
    shape = shapes(*weight.shape, config.r)
    if config.init == "kaiming":
        bound = 1.0 / math.sqrt(weight.shape[1])  # kaiming-uniform with a = √5: gain √(1/3), so ±√(3 · 1/3 / in)
        lora_A = rng.uniform(-bound, bound, shape["lora_A"])
    else:
        lora_A = rng.normal(0.0, 1.0 / config.r, shape["lora_A"])
    return {
        "lora_A": lora_A.astype(weight.dtype),
        "lora_B": np.zeros(shape["lora_B"], dtype=weight.dtype),
    }


def operands_wanted(wanted):
    """The gradients that the layer is asked for, as those of its three linear layers.

    dx goes back through W and through A, and du = s dy B leads on to dx and to dA.
    """
    u_wanted = "x" in wanted or "lora_A" in wanted
    return LoRAOperands(
        base=tuple(name for name in ("x", "weight", "bias") if name in wanted),
        down=("x",) * ("x" in wanted) + ("weight",) * ("lora_A" in wanted),
        up=("x",) * u_wanted + ("weight",) * ("lora_B" in wanted),
    )


def forward(x, weight, bias, adapter, config, wanted=("x", "lora_A", "lora_B"), mask=None):
    """The adapted layer's output.

    Parameters
    ----------
    x : array (..., in)
    weight : array (out, in), bias : array (out,) or None
    adapter : dict with lora_A (r, in) and lora_B (out, r)
    config : AdapterConfig of this layer
    wanted : names of the operands whose gradient will be asked for, among x, weight, bias, lora_A, lora_B
    mask : array of x's shape from `dropout_mask`, or None

    Returns
    -------
    y : array (..., out)
    cache : LoRACache
    """
    asked = operands_wanted(wanted)
    scale = scaling(config)
    y, base = linear_forward(x, weight, bias, asked.base)  # (..., out)
    dropped, dropout = dropout_forward(x, mask)  # (..., in)
    u, down = linear_forward(dropped, adapter["lora_A"], None, asked.down)  # (..., r)
    # s multiplies u, which has r columns, and not z, which has `out`: the same number, fewer products.
    z, up = linear_forward(scale * u, adapter["lora_B"], None, asked.up)  # (..., out)
    y += z
    # x stands in its neighbours' caches too, as one array. x ⊙ mask would be one array more, so it is
    # the mask that is kept, and the backward pass multiplies again.
    down = down._replace(x=None if down.x is None else x)
    return y, LoRACache(base, down, up, dropout, scale, tuple(wanted))


def backward(dy, cache):
    """Gradients of the adapted layer.

    With x̃ = x ⊙ mask, u = x̃ Aᵀ and y = x Wᵀ + b + s u Bᵀ, each step is a linear layer:

        dB = s dyᵀ u                    (out, r)
        du = s dy B                     (..., r)
        dA = duᵀ x̃                      (r, in)
        dx = dy W + (du A) ⊙ mask       (..., in)

    At B = 0 the middle lines give du = 0 and so dA = 0: in the first step only B moves.

    Parameters
    ----------
    dy : array (..., out)
    cache : LoRACache

    Returns
    -------
    dx : array (..., in) or None
    grads : dict with the wanted ones of weight, bias, lora_A, lora_B, as arrays of their shapes
    """
    # y = x Wᵀ + b + z
    through_base = linear_backward(dy, cache.base)
    # z = (s u) Bᵀ
    through_up = linear_backward(dy, cache.up)
    grads = {"weight": through_base.dweight, "bias": through_base.dbias, "lora_B": through_up.dweight}
    dx = None
    if through_up.dx is not None:
        du = cache.scale * through_up.dx  # (..., r)
        # u = x̃ Aᵀ
        down = cache.down
        if down.x is not None:
            down = down._replace(x=dropout_forward(down.x, cache.dropout.mask)[0])
        through_down = linear_backward(du, down)
        grads["lora_A"] = through_down.dweight
        if "x" in cache.wanted:
            dx = through_base.dx + dropout_backward(through_down.dx, cache.dropout).dx
    return dx, {name: grads[name] for name in grads if name in cache.wanted}


def delta(weight, adapter, config):
    """ΔW = s B A, the change of the weight that the adapter stands for, (out, in)."""
    return scaling(config) * (adapter["lora_B"] @ adapter["lora_A"])


def flops(name, rows, shape, config, wanted, masked=False):
    """FLOPs of one layer's step by term: x Wᵀ, u = x Aᵀ and s u Bᵀ are three linear layers.

    Parameters
    ----------
    name : str, of the layer
    rows : int, rows of x
    shape : (out, in)
    config : AdapterConfig of this layer
    wanted : as in `forward`
    masked : bool, whether there is a dropout mask

    Returns
    -------
    dict, such as "{name}.lora_A.dweight" -> FLOPs
    """
    operands, (n_out, n_in) = operands_wanted(wanted), shape
    return {
        **linear_flops(name, rows, shape, operands.base),
        **linear_flops(f"{name}.lora_A", rows, (config.r, n_in), operands.down),
        **linear_flops(f"{name}.lora_B", rows, (n_out, config.r), operands.up),
    }


def kept(name, x, rows, shape, config, wanted, array):
    """Bytes that the cache holds: x for dW and for dA, and s u for dB. The mask is counted elsewhere.

    Parameters
    ----------
    name, rows, shape, config, wanted : as in `flops`
    x : dict, the name of the layer's input -> its bytes
    array : function (name, *shape) -> {name: bytes}

    Returns
    -------
    dict, name -> bytes
    """
    operands = operands_wanted(wanted)
    su = array(f"{name}.lora_A", rows, config.r)
    return linear_kept(x, operands.base) | linear_kept(x, operands.down) | linear_kept(su, operands.up)
