"""The gradient check can fail: each bug planted below, in a copy of the package, must show in a row.

A bug is a replacement of text that stands exactly once in its file. None of them makes Python raise: each is
caught by a number in a row. `test_every_line_of_every_backward_pass_has_a_bug` keeps the list whole.
"""

import ast
import compileall
import difflib
import functools
import importlib
import itertools
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import lora_np

PACKAGE = Path(lora_np.__file__).parent
check = importlib.import_module("lora_np.reference.gradcheck")
NUMBER = itertools.count()


class Bug(NamedTuple):
    what: str
    case: str  # of the gradient check: where it must show
    operand: str | None  # in which row; None: in any
    file: str
    right: str
    wrong: str


# ------------------------------------------------------------------ the bugs

LINEAR, NORM, SOFTMAX, GELU = (f"ops/{name}.py" for name in ("linear", "layer_norm", "softmax", "gelu"))
EMBEDDING, ENTROPY, DROPOUT = (f"ops/{name}.py" for name in ("embedding", "cross_entropy", "dropout"))
ATTENTION, LORA, MODEL, CALL = "ops/attention.py", "adapters/lora.py", "model/transformer.py", "model/call.py"
PROJECTION, OBJECTIVE = "model/projection.py", "model/objective.py"
DORA, VERA, ADALORA = (f"adapters/{name}.py" for name in ("dora", "vera", "adalora"))
ALONE = "each one alone"
# What the gradient check's room imports.
ROOMS = ("ops", "compress", "data", "adapters", "model", "analysis", "formats", "training", "reference")

# fmt: off
BUGS = [
    # linear
    Bug("rows flattened column by column", "linear", "weight", LINEAR,
        "drows = dy.reshape(-1, dy.shape[-1])", "drows = dy.swapaxes(0, 1).reshape(-1, dy.shape[-1])"),
    Bug("dx averaged over rows", "linear", "x", LINEAR,
        "(drows @ np.asanyarray(cache.weight))", "(drows @ np.asanyarray(cache.weight) / len(drows))"),
    Bug("dweight transposed", "linear", "weight", LINEAR,
        "drows.T @ cache.x.reshape(-1, cache.x.shape[-1])",
        "cache.x.reshape(-1, cache.x.shape[-1]).T @ drows"),
    Bug("dweight averaged over rows", "linear: no bias", "weight", LINEAR,
        "dweight = drows.T @", "dweight = drows.T / len(drows) @"),
    Bug("dbias averaged over rows", "linear", "bias", LINEAR,
        "drows.sum(axis=0)", "drows.mean(axis=0)"),
    Bug("dbias summed over everything", "linear", "bias", LINEAR,
        "drows.sum(axis=0)", "drows.sum(axis=0) * 0 + drows.sum()"),
    Bug("gradients in the wrong order", "linear", "bias", LINEAR,
        "return LinearGrads(dx, dweight, dbias)", "return LinearGrads(dx, dbias, dweight)"),
    Bug("dbias only where dx is wanted too", "linear", ALONE, LINEAR,
        'if "bias" in cache.wanted:', 'if "bias" in cache.wanted and "x" in cache.wanted:'),
    # layer norm
    Bug("dbias summed over one axis too few", "layer_norm", "bias", NORM,
        "dbias = dy.reshape(-1, C).sum(axis=0)", "dbias = dy.sum(axis=tuple(range(dy.ndim - 2)))"),
    Bug("dbias averaged over rows", "layer_norm", "bias", NORM,
        "dbias = dy.reshape(-1, C).sum(axis=0)", "dbias = dy.reshape(-1, C).mean(axis=0)"),
    Bug("rows of another axis' length", "layer_norm", "bias", NORM,
        "C = dy.shape[-1]", "C = dy.shape[-2]"),
    Bug("dweight without the normalised input", "layer_norm", "weight", NORM,
        'np.einsum("nc,nc->c", dy.reshape(-1, C), cache.x_hat.reshape(-1, C))',
        'np.einsum("nc->c", dy.reshape(-1, C))'),
    Bug("the weight forgotten", "layer_norm", "x", NORM,
        "dx = dy * cache.weight", "dx = dy.copy()"),
    Bug("the mean taken over all rows", "layer_norm", "x", NORM,
        "through_mean = row_mean(dx)", "through_mean = dx.mean()"),
    Bug("the term through the mean dropped", "layer_norm", "x", NORM,
        "        dx -= through_mean\n", ""),
    Bug("the term through the variance dropped", "layer_norm", "x", NORM,
        "        dx -= cache.x_hat * through_variance\n", ""),
    Bug("the term through the variance with the wrong sign", "layer_norm", "x", NORM,
        "dx -= cache.x_hat * through_variance", "dx += cache.x_hat * through_variance"),
    Bug("the term through the variance without x_hat outside", "layer_norm", "x", NORM,
        "dx -= cache.x_hat * through_variance", "dx -= through_variance"),
    Bug("the term through the variance without x_hat inside", "layer_norm", "x", NORM,
        "through_variance = row_mean(dx, cache.x_hat)",
        "through_variance = row_mean(dx)"),
    Bug("the unbiased variance's C - 1", "layer_norm", "x", NORM,
        "through_variance = row_mean(dx, cache.x_hat)",
        "through_variance = row_mean(dx, cache.x_hat) * C / (C - 1)"),
    Bug("inv_std missing", "layer_norm", "x", NORM,
        "        dx *= cache.inv_std\n", ""),
    Bug("the first array squared in place of a product", "layer_norm", "x", NORM,
        "np.vecdot(a, b)", "np.vecdot(a, a)"),
    Bug("one mean for all rows", "layer_norm", "x", NORM,
        "return (a @ averaging(a.shape[-1], a.dtype))[..., None]", "return a.mean(keepdims=True)"),
    Bug("a sum in place of a mean", "layer_norm", "x", NORM,
        "np.full(n, 1.0 / n, dtype)", "np.full(n, 1.0, dtype)"),
    Bug("inv_std biased by eps", "layer_norm", "x", NORM,
        'inv_std=inv_std if "x"', 'inv_std=1.0 / x.std(axis=-1, keepdims=True) if "x"'),
    Bug("x_hat biased by eps", "layer_norm", "weight", NORM,
        'x_hat=x_hat if "x"', 'x_hat=(x - row_mean(x)) / x.std(axis=-1, keepdims=True) if "x"'),
    Bug("weight and bias swapped", "layer_norm", "bias", NORM,
        "return LayerNormGrads(dx, dweight, dbias)", "return LayerNormGrads(dx, dbias, dweight)"),
    # softmax
    Bug("the other outputs forgotten", "softmax", "x", SOFTMAX,
        "np.subtract(dp, expected, out=dx_piece)", "dx_piece[...] = dp"),
    Bug("the wrong sign", "softmax", "x", SOFTMAX,
        "np.subtract(dp, expected,", "np.add(dp, expected,"),
    Bug("the outer factor forgotten", "softmax", "x", SOFTMAX,
        "        dx_piece *= p\n", ""),
    Bug("the expectation without its weights", "softmax", "x", SOFTMAX,
        "np.vecdot(dp, p)", "dp.sum(axis=-1)"),
    Bug("the expectation over the wrong axis", "softmax", "x", SOFTMAX,
        "np.vecdot(dp, p)[..., None]", "np.sum(dp * p, axis=0, keepdims=True)"),
    Bug("the diagonal of the Jacobian alone", "softmax", "x", SOFTMAX,
        "np.subtract(dp, expected, out=dx_piece)", "np.multiply(dp, 1.0 - p, out=dx_piece)"),
    Bug("the outputs taken for their gradient", "softmax", "x", SOFTMAX,
        "blocks(dprobs, cache.probs, dx)", "blocks(cache.probs, dprobs, dx)"),
    Bug("most of the digits lost", "softmax", "x", SOFTMAX,
        'np.empty_like(dprobs, order="C")', "np.empty_like(dprobs, np.float16)"),
    Bug("the gradient of the negative", "softmax", "x", SOFTMAX,
        "return SoftmaxGrads(dx)", "return SoftmaxGrads(-dx)"),
    # gelu
    Bug("the gate held constant", "gelu", "x", GELU,
        "slope_piece[...] = slope(x_piece, g, y_piece)", "slope_piece[...] = g"),
    Bug("the gate of another argument", "gelu", "x", GELU,
        "slope(x_piece, g, y_piece)", "slope(x_piece, gate(0.5 * x_piece), y_piece)"),
    Bug("the gate of the exact GELU", "gelu", "x", GELU,
        "slope(x_piece, g, y_piece)",
        "slope(x_piece, 0.5 * (1.0 + np.vectorize(math.erf)(x_piece / 2**0.5)), y_piece)"),
    Bug("the cube taken as the square", "gelu", "x", GELU,
        "    s = x * x\n", "    s = 1.0 * x\n"),
    Bug("the 3 of the cubic forgotten", "gelu", "x", GELU,
        "s *= 2.0 * SQRT_2_OVER_PI * 3.0 * CUBIC", "s *= 2.0 * SQRT_2_OVER_PI * CUBIC"),
    Bug("the cubic's coefficient forgotten", "gelu", "x", GELU,
        "s *= 2.0 * SQRT_2_OVER_PI * 3.0 * CUBIC", "s *= 2.0 * SQRT_2_OVER_PI * 3.0"),
    Bug("the linear part of u dropped", "gelu", "x", GELU,
        "s += 2.0 * SQRT_2_OVER_PI  # 2 u′", "s += 0.0  # 2 u′"),
    Bug("the factor y forgotten", "gelu", "x", GELU,
        "    s *= y\n", "    s *= 1.0\n"),
    Bug("x in the place of y", "gelu", "x", GELU,
        "    s *= y\n", "    s *= x\n"),
    Bug("the 2 of the gate's derivative forgotten", "gelu", "x", GELU,
        "s *= 2.0 * SQRT_2_OVER_PI * 3.0 * CUBIC\n    s += 2.0 * SQRT_2_OVER_PI",
        "s *= SQRT_2_OVER_PI * 3.0 * CUBIC\n    s += SQRT_2_OVER_PI"),
    Bug("the 2 of the gate's derivative in one term alone", "gelu", "x", GELU,
        "s *= 2.0 * SQRT_2_OVER_PI * 3.0 * CUBIC", "s *= SQRT_2_OVER_PI * 3.0 * CUBIC"),
    Bug("the wrong sign inside the gate's derivative", "gelu", "x", GELU,
        "s *= 1.0 - g", "s *= 1.0 + g"),
    Bug("the gate's own term dropped", "gelu", "x", GELU,
        "    s += g\n", "    s += 0.0\n"),
    Bug("the result not returned", "gelu", "x", GELU,
        "    return s\n", "    return g\n"),
    Bug("dy forgotten", "gelu", "x", GELU,
        "dy * cache.slope", "np.sign(dy) * cache.slope"),
    Bug("the slope of a ReLU where it is below 0", "gelu", "x", GELU,
        "dy * cache.slope", "dy * np.maximum(cache.slope, 0.0)"),
    Bug("a gradient that was not wanted", "gelu", ALONE, GELU,
        "return GeluGrads(None)", "return GeluGrads(dy)"),
    # gelu's gate, which its forward pass reads too: the derivative is then another function's
    Bug("the gate's cube taken as the square", "gelu", "x", GELU,
        "    g = x * x\n", "    g = 1.0 * x\n"),
    Bug("the gate's cubic without its coefficient", "gelu", "x", GELU,
        "g *= SQRT_2_OVER_PI * CUBIC", "g *= SQRT_2_OVER_PI"),
    Bug("the gate without the linear part of u", "gelu", "x", GELU,
        "g += SQRT_2_OVER_PI", "g += 0.0"),
    Bug("the gate's last factor x forgotten", "gelu", "x", GELU,
        "g *= x  # u", "g *= 1.0  # u"),
    Bug("the gate of the inverse tangent", "gelu", "x", GELU,
        "np.tanh(g, out=g)", "np.arctan(g, out=g)"),
    Bug("the gate not halved", "gelu", "x", GELU,
        "    g *= 0.5\n", "    g *= 1.0\n"),
    Bug("the gate centred on 0", "gelu", "x", GELU,
        "    g += 0.5\n", "    g += 0.0\n"),
    Bug("the gate's complement", "gelu", "x", GELU,
        "    return g\n", "    return 1.0 - 0.9 * g\n"),
    # embedding
    Bug("a repeated id counted once", "embedding", "weight", EMBEDDING,
        "dweight[ids] += np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts)",
        "dweight[cache.ids] += dy"),
    Bug("ids not sorted", "embedding", "weight", EMBEDDING,
        'order = np.argsort(cache.ids, axis=None, kind="stable")', "order = np.arange(cache.ids.size)"),
    Bug("rows not sorted with their ids", "embedding", "weight", EMBEDDING,
        "dy.reshape(-1, dy.shape[-1])[order], starts", "dy.reshape(-1, dy.shape[-1]), starts"),
    Bug("runs cut where the unsorted ids begin", "embedding", "weight", EMBEDDING,
        "np.unique(cache.ids.ravel()[order], return_index=True)",
        "np.unique(cache.ids.ravel(), return_index=True)"),
    Bug("what the table has already thrown away", "language model", None, EMBEDDING,
        " if into is None else into", ""),
    Bug("a repeated id averaged", "embedding", "weight", EMBEDDING,
        "    return EmbeddingGrads(dweight)",
        "    return EmbeddingGrads(dweight / np.maximum(np.bincount(cache.ids.ravel(), minlength=7), "
        "1)[:, None])"),
    Bug("a table of ones to start from", "embedding", "weight", EMBEDDING,
        "np.zeros(cache.table_shape, dtype=dy.dtype)", "np.ones(cache.table_shape, dtype=dy.dtype)"),
    Bug("a gradient that was not wanted", "embedding", ALONE, EMBEDDING,
        "return EmbeddingGrads(None)", "return EmbeddingGrads(np.zeros(cache.table_shape))"),
    # cross-entropy, whose forward pass computes the gradient, its loss then being another function's
    Bug("class 0 taken for padding", "cross_entropy", "logits", ENTROPY,
        "weight = (real / real.sum())", "weight = ((targets > 0) / real.sum())"),
    Bug("averaged over all targets", "cross_entropy", "logits", ENTROPY,
        "(real / real.sum())", "(real / real.size)"),
    Bug("not averaged at all", "cross_entropy", "logits", ENTROPY,
        "(real / real.sum())", "(1.0 * real)"),
    Bug("ignored targets not masked", "cross_entropy", "logits", ENTROPY,
        "(real / real.sum())", "(np.ones(real.shape) / real.sum())"),
    Bug("exp in place of softmax", "cross_entropy", "logits", ENTROPY,
        "exp *= w / exp_sum", "exp *= w"),
    Bug("the 1 of the target forgotten", "cross_entropy", "logits", ENTROPY,
        "np.take_along_axis(dlogits, picked, axis=-1) - weight",
        "np.take_along_axis(dlogits, picked, axis=-1)"),
    Bug("1 at the target whatever the weight", "cross_entropy", "logits", ENTROPY,
        "picked, axis=-1) - weight", "picked, axis=-1) - 1.0"),
    Bug("the class beside the target", "cross_entropy", "logits", ENTROPY,
        "np.put_along_axis(dlogits, picked, at_target", "np.put_along_axis(dlogits, (picked + 1) % K, at_target"),
    Bug("the target's gradient never written", "cross_entropy", "logits", ENTROPY,
        "np.put_along_axis(dlogits, picked, at_target, axis=-1)",
        "np.put_along_axis(dlogits.copy(), picked, at_target, axis=-1)"),
    Bug("dloss taken as 1", "cross_entropy", "logits", ENTROPY,
        "cache.dlogits * float(dloss)", "cache.dlogits"),
    Bug("the wrong sign", "cross_entropy", "logits", ENTROPY,
        "cache.dlogits * float(dloss)", "-cache.dlogits * float(dloss)"),
    Bug("the gradient in place of none", "cross_entropy", ALONE, ENTROPY,
        'if "logits" in wanted else None  # (..., K)', "# (..., K)"),
    Bug("half of the gradient at the end of a model", "language model", None, ENTROPY,
        "return CrossEntropyGrads(cache.dlogits)\n", "return CrossEntropyGrads(0.5 * cache.dlogits)\n"),
    Bug("dloss forgotten where it is not 1", "cross_entropy", "logits", ENTROPY,
        "or dloss == 1.0", "or dloss != 1.0"),
    # dropout
    Bug("the mask forgotten", "dropout", "x", DROPOUT,
        "dy if cache.mask is None else dy * cache.mask", "dy"),
    Bug("masked but not scaled", "dropout", "x", DROPOUT,
        "dy * cache.mask)", "dy * (cache.mask > 0))"),
    # attention
    Bug("heads not transposed on the way in", "attention", "v", ATTENTION,
        "d_out = split_heads(dcontext, probs.shape[1])", "d_out = dcontext.reshape(*probs.shape[:3], -1)"),
    Bug("scaled by D in place of its root", "attention", "q", ATTENTION,
        "scale = 1.0 / math.sqrt(d_out.shape[-1])", "scale = 1.0 / d_out.shape[-1]"),
    Bug("scaled by the model's width", "attention", "k", ATTENTION,
        "scale = 1.0 / math.sqrt(d_out.shape[-1])", "scale = 1.0 / math.sqrt(dcontext.shape[-1])"),
    Bug("probs not transposed for dv", "attention", "v", ATTENTION,
        "probs.transpose(0, 1, 3, 2) @ d_out", "probs @ d_out"),
    Bug("probs of the neighbouring head for dv", "attention", "v", ATTENTION,
        "probs.transpose(0, 1, 3, 2) @ d_out", "probs[:, ::-1].transpose(0, 1, 3, 2) @ d_out"),
    Bug("dprobs without the values", "attention", "q", ATTENTION,
        "dprobs = d_out @ cache.v.transpose(0, 1, 3, 2)",
        "dprobs = d_out @ np.ones_like(cache.v).transpose(0, 1, 3, 2)"),
    Bug("softmax skipped", "attention", "k", ATTENTION,
        "dscores = softmax_backward(dprobs, SoftmaxCache(probs)).dx", "dscores = dprobs"),
    Bug("softmax of something else", "attention: steps between", "scores", ATTENTION,
        "SoftmaxCache(probs)", "SoftmaxCache(probs * probs)"),
    Bug("missing 1/sqrt(D) of dq", "attention", "q", ATTENTION,
        "merge_heads(dscores @ cache.k) * scale", "merge_heads(dscores @ cache.k)"),
    Bug("missing 1/sqrt(D) of dk", "attention: Tq < Tk", "k", ATTENTION,
        "@ cache.q) * scale", "@ cache.q)"),
    Bug("dscores not transposed for dk", "attention", "k", ATTENTION,
        "dscores.transpose(0, 1, 3, 2) @ cache.q", "dscores @ cache.q"),
    Bug("dq and dk swapped", "attention", "q", ATTENTION,
        "\n    return AttentionGrads(dq, dk, dv, dprobs, dscores)",
        "\n    return AttentionGrads(dk, dq, dv, dprobs, dscores)"),
    Bug("dprobs and dscores swapped", "attention: steps between", "probs", ATTENTION,
        "\n    return AttentionGrads(dq, dk, dv, dprobs, dscores)",
        "\n    return AttentionGrads(dq, dk, dv, dscores, dprobs)"),
    Bug("gives up where dv is not wanted", "attention", ALONE, ATTENTION,
        "if not cache.wanted:\n        return AttentionGrads(dq, dk, dv, dprobs, dscores)",
        'if "v" not in cache.wanted:\n        return AttentionGrads(dq, dk, dv, dprobs, dscores)'),
    Bug("a gradient that was not wanted", "attention", ALONE, ATTENTION,
        "        return AttentionGrads(dq, dk, dv, dprobs, dscores)",
        "        return AttentionGrads(dcontext, dk, dv, dprobs, dscores)"),
    Bug("heads in reverse order", "attention", "v", ATTENTION,
        "probs = cache.probs\n", "probs = cache.probs[:, ::-1]\n"),
    Bug("dk only where dq is wanted too", "attention", ALONE, ATTENTION,
        'if "k" in cache.wanted:\n        dk', 'if "k" in cache.wanted and "q" in cache.wanted:\n        dk'),
    # the heads, which attention's forward pass splits and merges too
    Bug("columns dealt out to the heads in turn", "attention", "v", ATTENTION,
        "x.reshape(B, T, n_heads, C // n_heads).transpose(0, 2, 1, 3)",
        "x.reshape(B, T, C // n_heads, n_heads).transpose(0, 3, 1, 2)"),
    Bug("heads split from the reversed batch", "attention", "v", ATTENTION,
        "B, T, C = x.shape\n", "B, T, C = x.shape; x = x[::-1]\n"),
    Bug("heads merged in reverse order", "attention", "v", ATTENTION,
        "x.transpose(0, 2, 1, 3).reshape(B, T, H * D)", "x[:, ::-1].transpose(0, 2, 1, 3).reshape(B, T, H * D)"),
    Bug("heads merged into the reversed batch", "attention", "v", ATTENTION,
        "B, H, T, D = x.shape\n", "B, H, T, D = x.shape; x = x[::-1]\n"),
    # LoRA
    Bug("the base's gradients scaled", "lora adapter: trained base", "weight", LORA,
        "through_base = linear_backward(dy, cache.base)",
        "through_base = linear_backward(cache.scale * dy, cache.base)"),
    Bug("dB unscaled", "lora adapter", "lora_B", LORA,
        'z, up = linear_forward(scale * u, adapter["lora_B"], None, asked.up)',
        'z, up = linear_forward(u, adapter["lora_B"], None, asked.up); z = scale * z'),
    Bug("dB scaled twice", "lora adapter: rslora", "lora_B", LORA,
        "through_up = linear_backward(dy, cache.up)",
        "through_up = linear_backward(cache.scale * dy, cache.up)"),
    Bug("s left out of du", "lora adapter", "lora_A", LORA,
        "du = cache.scale * through_up.dx", "du = through_up.dx"),
    Bug("alpha / sqrt(r) in the backward pass alone", "lora adapter", "x", LORA,
        "du = cache.scale * through_up.dx",
        "du = cache.scale * math.sqrt(through_up.dx.shape[-1]) * through_up.dx"),
    Bug("dA without the dropout mask", "lora adapter: dropout", "lora_A", LORA,
        "down = down._replace(x=dropout_forward(down.x, cache.dropout.mask)[0])", "down = down"),
    Bug("dA masked only where dB is wanted too", "lora adapter: dropout", ALONE, LORA,
        "        down = cache.down\n        if down.x is not None:",
        '        down = cache.down\n        if down.x is not None and "lora_B" in cache.wanted:'),
    Bug("the adapter's dx without the dropout mask", "lora adapter: dropout", "x", LORA,
        "dropout_backward(through_down.dx, cache.dropout).dx", "through_down.dx"),
    Bug("the mask on the base's dx too", "lora adapter: dropout", "x", LORA,
        "through_base.dx + dropout_backward(through_down.dx, cache.dropout).dx",
        "dropout_backward(through_base.dx + through_down.dx, cache.dropout).dx"),
    Bug("dx without the adapter's part", "lora adapter", "x", LORA,
        "through_base.dx + dropout_backward(through_down.dx, cache.dropout).dx", "through_base.dx"),
    Bug("dx without the base's part", "lora adapter: no bias", "x", LORA,
        "through_base.dx + dropout_backward", "dropout_backward"),
    Bug("dA from the unscaled dy", "lora adapter", "lora_A", LORA,
        "through_down = linear_backward(du, down)", "through_down = linear_backward(through_up.dx, down)"),
    Bug("dA scaled twice", "lora adapter", "lora_A", LORA,
        "        down = cache.down\n",
        "        down = cache.down if cache.down.x is None else "
        "cache.down._replace(x=cache.scale * cache.down.x)\n"),
    Bug("dB returned for dA", "lora adapter", "lora_A", LORA,
        'grads["lora_A"] = through_down.dweight', 'grads["lora_A"] = through_up.dweight'),
    Bug("the trained base's bias forgotten", "lora adapter: trained base", "bias", LORA,
        '"bias": through_base.dbias', '"bias": None'),
    Bug("dB left out of the answer", "lora adapter", "lora_B", LORA,
        "return dx, {name: grads[name] for name in grads if name in cache.wanted}",
        'return dx, {name: grads[name] for name in grads if name in cache.wanted and name != "lora_B"}'),
    Bug("B kept for dA alone, though dx reads it too", "lora adapter", ALONE, LORA,
        'u_wanted = "x" in wanted or "lora_A" in wanted', 'u_wanted = "lora_A" in wanted'),
    # DoRA
    Bug("something handed down where nothing is wanted", "dora adapter", ALONE, DORA,
        "return None, {}", "return dy, {}"),
    Bug("dropout or not, the adapter's arrays in another order of their rows", "dora adapter", "lora_A", DORA,
        "(cache.adapter[name] for name in (*FACTORS, MAGNITUDE))",
        "(cache.adapter[name][::-1] for name in (*FACTORS, MAGNITUDE))"),
    Bug("s taken for 1 in the backward pass alone", "dora adapter", "lora_B", DORA,
        "wanted, scale, mask = cache.wanted, cache.scale, cache.dropout.mask",
        "wanted, scale, mask = cache.wanted, 1.0, cache.dropout.mask"),
    Bug("dx through the base's weight", "dora adapter", "x", DORA,
        "V = directions(cache.weight, cache.adapter, scale)", "V = np.asanyarray(cache.weight)"),
    Bug("dA without the dropout mask", "dora adapter: dropout", "lora_A", DORA,
        "dropped = None if cache.x is None else dropout_forward(cache.x, mask)[0]", "dropped = cache.x"),
    Bug("a dx that was not wanted", "dora adapter", ALONE, DORA,
        "grads, dx = {}, None", "grads, dx = {}, dy"),
    Bug("dbias through the lengths", "dora adapter: trained base", "bias", DORA,
        "as_rows(dy).sum(axis=0)", "(m * cache.inv_norm) * as_rows(dy).sum(axis=0)"),
    Bug("dm averaged over rows", "dora adapter", "lora_magnitude_vector", DORA,
        "a = np.sum(as_rows(dy) * as_rows(cache.h), axis=0)", "a = np.mean(as_rows(dy) * as_rows(cache.h), axis=0)"),
    Bug("dm without the norm", "dora adapter: norm held", "lora_magnitude_vector", DORA,
        "grads[MAGNITUDE] = a * cache.inv_norm", "grads[MAGNITUDE] = a"),
    Bug("dh without the length m", "dora adapter: norm held", "x", DORA,
        "dh = (m * cache.inv_norm) * dy", "dh = cache.inv_norm * dy"),
    Bug("dx never asked for", "dora adapter", "x", DORA,
        'asked = tuple(name for name in ("x", "weight") if name in wanted)\n    through_V',
        'asked = tuple(name for name in ("weight",) if name in wanted)\n    through_V'),
    Bug("dx and dW as if W′ were V", "dora adapter: norm held", "x", DORA,
        "linear_backward(dh, LinearCache(dropped, V, asked))", "linear_backward(dy, LinearCache(dropped, V, asked))"),
    Bug("dW scaled as B A is", "dora adapter: norm held", "weight", DORA,
        'grads["weight"] = through_V.dweight', 'grads["weight"] = scale * through_V.dweight'),
    Bug("dB from dy", "dora adapter: norm held", "lora_B", DORA,
        "as_rows(dh).T @ as_rows(cache.su)", "as_rows(dy).T @ as_rows(cache.su)"),
    Bug("dA unscaled", "dora adapter: norm held, dropout", "lora_A", DORA,
        "(scale * (as_rows(dh) @ B)).T", "(as_rows(dh) @ B).T"),
    Bug("the norm's term with the wrong sign", "dora adapter", "lora_B", DORA,
        "dV = (-m * a", "dV = (m * a"),
    Bug("the norm squared in place of cubed", "dora adapter", "lora_A", DORA,
        "cache.inv_norm**3", "cache.inv_norm**2"),
    Bug("the norm's term of dB dropped", "dora adapter", "lora_B", DORA,
        'grads["lora_B"] += scale * (dV @ A.T)', 'grads["lora_B"] += 0.0 * (dV @ A.T)'),
    Bug("the norm's term of dA unscaled", "dora adapter: rslora", "lora_A", DORA,
        'grads["lora_A"] += scale * (B.T @ dV)', 'grads["lora_A"] += B.T @ dV'),
    Bug("the norm's term of dW dropped", "dora adapter: trained base", "weight", DORA,
        'grads["weight"] += dV', 'grads["weight"] += 0.0 * dV'),
    Bug("the adapter's dx without the dropout mask", "dora adapter: norm held, dropout", "x", DORA,
        "        dx = dropout_backward(through_V.dx, cache.dropout).dx", "        dx = through_V.dx"),
    Bug("the base's dW from all of x", "dora adapter: trained base", "weight", DORA,
        "left = None if dropped is None else cache.x - dropped", "left = cache.x"),
    Bug("what dropout leaves to the base goes back through V", "dora adapter: norm held, dropout", "x", DORA,
        "LinearCache(left, cache.weight, asked)", "LinearCache(left, V, asked)"),
    Bug("the base's dx whole under dropout", "dora adapter: norm held, dropout", "x", DORA,
        "(through_base.dx - dropout_backward(through_base.dx, cache.dropout).dx)", "through_base.dx"),
    Bug("the base's dW under dropout dropped", "dora adapter: norm held, dropout", "weight", DORA,
        'grads["weight"] += through_base.dweight', 'grads["weight"] += 0.0 * through_base.dweight'),
    Bug("dm left out of the answer", "dora adapter", "lora_magnitude_vector", DORA,
        "return dx, {name: grads[name] for name in grads if name in wanted}",
        "return dx, {name: grads[name] for name in grads if name in wanted and name != MAGNITUDE}"),
    Bug("V with the scale twice, in both passes", "dora adapter", "lora_B", DORA,
        'scale * (adapter["lora_B"] @ adapter["lora_A"])', 'scale * scale * (adapter["lora_B"] @ adapter["lora_A"])'),
    Bug("the norm's term of dA only where dB is wanted too", "dora adapter", ALONE, DORA,
        'any(name in wanted for name in (*FACTORS, "weight"))', 'any(name in wanted for name in ("lora_B", "weight"))'),
    # VeRA
    Bug("random factors of another seed", "vera adapter", "x", VERA,
        "A, B = projections(cache.shape, cache.r, cache.seed, dy.dtype)",
        "A, B = projections(cache.shape, cache.r, cache.seed + 1, dy.dtype)"),
    Bug("random factors drawn anew each time", "vera adapter", "vera_lambda_d", VERA,
        "return cached_projections(tuple(shape), r, seed,",
        "return cached_projections(tuple(shape), r, cached_projections.cache_info().misses,"),
    Bug("the base's gradients of another sign", "vera adapter: trained base", "weight", VERA,
        "through_base = linear_backward(dy, cache.base)", "through_base = linear_backward(-dy, cache.base)"),
    Bug("the trained base's bias forgotten", "vera adapter: trained base", "bias", VERA,
        '"bias": through_base.dbias', '"bias": None'),
    Bug("dλ_b averaged over rows", "vera adapter", "vera_lambda_b", VERA,
        'grads["vera_lambda_b"] = np.sum(', 'grads["vera_lambda_b"] = np.mean('),
    Bug("dx without the base's part", "vera adapter", "x", VERA,
        "dx = through_base.dx\n", "dx = None if through_base.dx is None else 0.0 * through_base.dx\n"),
    Bug("dz without λ_b", "vera adapter", "vera_lambda_d", VERA,
        'dz = cache.adapter["vera_lambda_b"] * dy', "dz = dy"),
    Bug("dw through B upside down", "vera adapter: no bias", "vera_lambda_d", VERA,
        'LinearCache(None, B, ("x",))', 'LinearCache(None, B[::-1], ("x",))'),
    Bug("dλ_d averaged over rows", "vera adapter", "vera_lambda_d", VERA,
        'grads["vera_lambda_d"] = np.sum(', 'grads["vera_lambda_d"] = np.mean('),
    Bug("dv without λ_d", "vera adapter", "x", VERA,
        'dv = cache.adapter["vera_lambda_d"] * dw', "dv = dw"),
    Bug("dx through A upside down", "vera adapter", "x", VERA,
        'LinearCache(None, A, ("x",))', 'LinearCache(None, A[::-1], ("x",))'),
    Bug("the adapter's dx without the dropout mask", "vera adapter: dropout", "x", VERA,
        "dx + dropout_backward(through_v, cache.dropout).dx", "dx + through_v"),
    Bug("dλ_d left out of the answer", "vera adapter", "vera_lambda_d", VERA,
        "return dx, {name: grads[name] for name in grads if name in cache.wanted}",
        'return dx, {name: grads[name] for name in grads if name in cache.wanted and name != "vera_lambda_d"}'),
    # AdaLoRA
    Bug("s left out", "adalora adapter", "lora_A", ADALORA,
        'cache.wanted, cache.scale * cache.adapter["lora_E"]', 'cache.wanted, cache.adapter["lora_E"]'),
    Bug("the base's gradients of another sign", "adalora adapter: trained base", "weight", ADALORA,
        "through_base = linear_backward(dy, cache.base)", "through_base = linear_backward(-dy, cache.base)"),
    Bug("dx without the base's part", "adalora adapter: no bias", "x", ADALORA,
        '"bias": through_base.dbias}, through_base.dx', '"bias": through_base.dbias}, 0.0'),
    Bug("dB without the singular values", "adalora adapter", "lora_B", ADALORA,
        'w = scaled_E * cache.u if "lora_B" in wanted', 'w = cache.scale * cache.u if "lora_B" in wanted'),
    Bug("dB only where something else is wanted too", "adalora adapter", ALONE, ADALORA,
        'asked = ("x",) * dw_wanted + ("weight",) * ("lora_B" in wanted)',
        'asked = ("x",) * dw_wanted + ("weight",) * ("lora_B" in wanted and dw_wanted)'),
    Bug("dB and dw scaled again", "adalora adapter", "lora_E", ADALORA,
        'linear_backward(dy, LinearCache(w, cache.adapter["lora_B"], asked))',
        'linear_backward(cache.scale * dy, LinearCache(w, cache.adapter["lora_B"], asked))'),
    Bug("dB forgotten", "adalora adapter", "lora_B", ADALORA,
        'grads["lora_B"] = through_w.dweight', 'grads["lora_B"] = None'),
    Bug("dE unscaled", "adalora adapter: rslora", "lora_E", ADALORA,
        'grads["lora_E"] = cache.scale * np.sum(', 'grads["lora_E"] = np.sum('),
    Bug("du without the singular values", "adalora adapter", "lora_A", ADALORA,
        "du = scaled_E * through_w.dx", "du = cache.scale * through_w.dx"),
    Bug("dA without the dropout mask", "adalora adapter: dropout", "lora_A", ADALORA,
        "dropped = None if cache.x is None else dropout_forward(cache.x, cache.dropout.mask)[0]", "dropped = cache.x"),
    Bug("dA only where dx is wanted too", "adalora adapter", ALONE, ADALORA,
        'asked = ("x",) * ("x" in wanted) + ("weight",) * ("lora_A" in wanted)',
        'asked = ("x",) * ("x" in wanted) + ("weight",) * ("lora_A" in wanted and "x" in wanted)'),
    Bug("dw taken for du", "adalora adapter", "x", ADALORA,
        'linear_backward(du, LinearCache(dropped, cache.adapter["lora_A"], asked))',
        'linear_backward(through_w.dx, LinearCache(dropped, cache.adapter["lora_A"], asked))'),
    Bug("dA forgotten", "adalora adapter", "lora_A", ADALORA,
        'grads["lora_A"] = through_u.dweight', 'grads["lora_A"] = None'),
    Bug("the adapter's dx without the dropout mask", "adalora adapter: dropout", "x", ADALORA,
        "dx + dropout_backward(through_u.dx, cache.dropout).dx", "dx + through_u.dx"),
    Bug("dE left out of the answer", "adalora adapter", "lora_E", ADALORA,
        "return dx, {name: grads[name] for name in grads if name in wanted}",
        'return dx, {name: grads[name] for name in grads if name in wanted and name != "lora_E"}'),
    Bug("the distance of another A", "adalora: orthogonality", "lora_A", ADALORA,
        'A, B = adapter["lora_A"], adapter["lora_B"]', 'A, B = 2.0 * adapter["lora_A"], adapter["lora_B"]'),
    Bug("the distance of B averaged", "adalora: orthogonality", "lora_B", ADALORA,
        "B.T @ B - np.eye", "B.T @ B / len(B) - np.eye"),
    Bug("one of the two equal terms dropped", "adalora: orthogonality", "lora_A", ADALORA,
        "4.0 * (of_A @ A)", "2.0 * (of_A @ A)"),
    Bug("dB with the factors of dA", "adalora: orthogonality", "lora_B", ADALORA,
        "4.0 * (B @ of_B)", "4.0 * (B @ of_A)"),
    # the projection of every linear layer
    Bug("an adapted layer goes back as a plain one", "language model: lora", None, PROJECTION,
        "dx, found = KINDS[cache.call.adapter_config.kind].backward(dy, op_cache)",
        "_, found = KINDS[cache.call.adapter_config.kind].backward(dy, op_cache); dx = dy @ "
        "cache.call.params[f'{module}.weight']"),
    Bug("every layer goes back with the batch reversed", "language model", None, PROJECTION,
        "dx, dweight, dbias = linear_backward(dy, op_cache)",
        "dx, dweight, dbias = linear_backward(dy[::-1], op_cache)"),
    Bug("the keys' layer reads the queries' cache", "language model", None, PROJECTION,
        "op_cache = cache.ops[module]", 'op_cache = cache.ops[module.replace("k_proj", "q_proj")]'),
    Bug("biases forgotten", "language model", None, PROJECTION,
        'found = {"weight": dweight, "bias": dbias}', 'found = {"weight": dweight}'),
    Bug("parameters' gradients of another sign", "classifier", None, PROJECTION,
        'grads |= {f"{module}.{leaf}": grad for', 'grads |= {f"{module}.{leaf}": -grad for'),
    Bug("dx returned halved", "classifier: lora", None, PROJECTION,
        "    return dx\n", "    return None if dx is None else 0.5 * dx\n"),
    # the head
    Bug("the tied head's term dropped", "language model", None, MODEL,
        'into=grads.get("tok_emb.weight")', "into=None"),
    Bug("the tied embedding's term dropped", "language model", None, MODEL,
        'embedding_backward(dtok, cache.ops["tok_emb"], into=grads.get("tok_emb.weight")).dweight',
        'grads.get("tok_emb.weight")'),
    Bug("what the table has already added again", "language model", None, MODEL,
        'found = {"tok_emb.weight": through_ids,',
        'found = {"tok_emb.weight": add(grads.get("tok_emb.weight"), through_ids),'),
    Bug("a head's gradient for another batch", "classifier", None, MODEL,
        'linear_backward(dlogits, cache.ops["head"])', 'linear_backward(dlogits[::-1], cache.ops["head"])'),
    Bug("the head's own gradient dropped", "classifier: lora", None, MODEL,
        '.weight"] = dweight', '.weight"] = 0 * dweight'),
    Bug("a language model's dh halved", "language model", None, MODEL,
        "        return dh\n    note", "        return None if dh is None else 0.5 * dh\n    note"),
    Bug("pooled at the last position, padding or not", "classifier", None, MODEL,
        "dx[np.arange(len(dx)), cache.call.read] = dy[:, 0]", "dx[np.arange(len(dx)), -1] = dy[:, 0]"),
    Bug("pooled one position late", "classifier", None, MODEL,
        "dx[np.arange(len(dx)), cache.call.read] = dy[:, 0]",
        "dx[np.arange(len(dx)), cache.call.read - 1] = dy[:, 0]"),
    Bug("a pooled gradient spread over all positions", "classifier", None, MODEL,
        'dx = np.zeros(cache.ops[f"blocks.{i}.attn.all_positions"], dtype=dy.dtype)',
        'dx = np.broadcast_to(dy, cache.ops[f"blocks.{i}.attn.all_positions"]).copy()'),
    Bug("the read position's gradient not handed down", "classifier", None, MODEL,
        "= dy[:, 0]\n    return dx", "= dy[:, 0]\n    return 0 * dx"),
    Bug("the last block's gradients left as they are in every block", "classifier", None, MODEL,
        "if dy is None or not cache.call.reads_one(i):", "if dy is None or i < 9:"),
    Bug("the last block's query taken as all positions'", "classifier", None, MODEL,
        "        return dy\n    dx = np.zeros", "        return 2 * dy if dy is not None else None\n    dx = np.zeros"),
    Bug("the pooled state's gradient recorded as 0", "classifier: activations", None, MODEL,
        'note(record, "pooled", dh)', 'note(record, "pooled", 0 * dh)'),
    Bug("a head's gradient not handed down", "classifier: lora", None, MODEL,
        "    return dh[:, None]  # (B, 1, C)", "    return 0 * dh[:, None]"),
    # backward and its loop
    Bug("the head's gradients collected in another dict", "classifier", None, MODEL,
        "dh = head_backward(dlogits, cache, grads, record)",
        "dh = head_backward(dlogits, cache, {}, record)"),
    Bug("gradients kept from before", "language model", ALONE, MODEL,
        '    grads = {}\n    note(record, "logits", dlogits)',
        '    grads = {"tok_emb.weight": np.ones_like(cache.call.params["tok_emb.weight"])}\n'
        '    note(record, "logits", dlogits)'),
    Bug("the logits' gradient recorded as 0", "language model: activations", None, MODEL,
        'note(record, "logits", dlogits)', 'note(record, "logits", 0 * dlogits)'),
    Bug("the last layer norm skipped", "language model: lora", None, MODEL,
        'dx = norm_backward(dh, "ln_f", cache, grads, record)', "dx = dh"),
    Bug("blocks in forward order", "language model", None, MODEL,
        "for i in reversed(range(cache.call.config.n_layers)):",
        "for i in range(cache.call.config.n_layers):"),
    Bug("each block from the top again", "language model", None, MODEL,
        "dx = block_backward(dx, i, cache, grads, record)", "block_backward(dx, i, cache, grads, record)"),
    Bug("the embeddings left out", "language model: activations", None, MODEL,
        "    embed_backward(dx, cache, grads, record)\n    return grads", "    return grads"),
    Bug("a gradient lost at the last moment", "classifier", None, MODEL,
        "    embed_backward(dx, cache, grads, record)\n    return grads",
        "    embed_backward(dx, cache, grads, record)\n"
        "    return {n: grads[n] for n in grads if n != 'pos_emb.weight'}"),
    # the embeddings
    Bug("the embeddings' dropout mask forgotten", "classifier", None, MODEL,
        'dtok = dropout_backward(dx, cache.ops["embed"]).dx', "dtok = dx"),
    Bug("positions averaged over the batch", "language model", None, MODEL,
        "dpos = dtok.sum(axis=0)", "dpos = dtok.mean(axis=0)"),
    Bug("the positions' gradient recorded as 0", "language model: activations", None, MODEL,
        'note(record, "pos_emb", dpos)', 'note(record, "pos_emb", 0 * dpos)'),
    Bug("the tokens' gradient recorded before the mask", "language model: activations", None, MODEL,
        'note(record, "tok_emb", dtok)', 'note(record, "tok_emb", dx)'),
    Bug("the embeddings' gradient recorded after the mask", "language model: activations", None, MODEL,
        'note(record, "embed", dx)', 'note(record, "embed", dropout_backward(dx, cache.ops["embed"]).dx)'),
    Bug("tokens looked up with another row's ids", "language model", None, MODEL,
        'embedding_backward(dtok, cache.ops["tok_emb"],',
        'embedding_backward(dtok[::-1], cache.ops["tok_emb"],'),
    Bug("positions counted from the end", "language model", None, MODEL,
        'embedding_backward(dpos, cache.ops["pos_emb"])',
        'embedding_backward(dpos[::-1], cache.ops["pos_emb"])'),
    Bug("the embeddings' gradients of another sign", "language model", None, MODEL,
        "through_positions}\n    grads |= {name: grad for", "through_positions}\n    grads |= {name: -grad for"),
    # a block's MLP
    Bug("the first block's MLP in every block", "language model: lora", None, MODEL,
        'f"blocks.{i}.mlp", cache.ops', 'f"blocks.0.mlp", cache.ops'),
    Bug("the MLP's residual gradient recorded as 0", "language model: activations", None, MODEL,
        'note(record, f"{mlp}.residual", dx)', 'note(record, f"{mlp}.residual", 0 * dx)'),
    Bug("the MLP's dropout mask forgotten", "language model: lora", None, MODEL,
        'd = dropout_backward(dx, ops[f"{mlp}.dropout"]).dx', "d = dx"),
    Bug("down_proj's gradient halved", "language model", None, MODEL,
        'd = linear_back(d, f"{mlp}.down_proj", cache, grads, record)',
        'd = linear_back(0.5 * d, f"{mlp}.down_proj", cache, grads, record)'),
    Bug("the activation's gradient recorded as 0", "language model: activations", None, MODEL,
        'note(record, f"{mlp}.gelu", d)', 'note(record, f"{mlp}.gelu", 0 * d)'),
    Bug("gelu skipped", "language model", None, MODEL,
        'd = gelu_backward(d, ops[f"{mlp}.gelu"]).dx if d is not None else None',
        "d = d if d is not None else None"),
    Bug("up_proj's gradient with the wrong sign", "classifier: lora", None, MODEL,
        'd = linear_back(d, f"{mlp}.up_proj", cache, grads, record)',
        'd = linear_back(None if d is None else -d, f"{mlp}.up_proj", cache, grads, record)'),
    Bug("ln2 skipped", "language model: lora", None, MODEL,
        'd = norm_backward(d, f"blocks.{i}.ln2", cache, grads, record)', "d = d"),
    Bug("the MLP's residual term dropped", "language model", None, MODEL,
        "    dx = dx + d\n", "    dx = d\n"),
    Bug("the MLP's own term dropped", "language model: lora", None, MODEL,
        "    dx = dx + d\n", "    dx = dx\n"),
    # a block's attention
    Bug("attention's residual gradient recorded without the MLP's", "language model: activations",
        None, MODEL,
        'note(record, f"{attn}.residual", dx)', 'note(record, f"{attn}.residual", dx - d)'),
    Bug("the attention's dropout mask forgotten", "classifier: lora", None, MODEL,
        'd = dropout_backward(dx, ops[f"{attn}.dropout"]).dx', "d = dx"),
    Bug("o_proj's gradient from above the mask", "classifier", None, MODEL,
        'dcontext = linear_back(d, f"{attn}.o_proj", cache, grads, record)',
        'dcontext = linear_back(dx, f"{attn}.o_proj", cache, grads, record)'),
    Bug("the context's gradient recorded as 0", "classifier: activations", None, MODEL,
        'note(record, f"{attn}.context", dcontext)', 'note(record, f"{attn}.context", 0 * dcontext)'),
    Bug("attention of the reversed batch", "language model", None, MODEL,
        "d = attention_backward(dcontext, ops[attn])", "d = attention_backward(dcontext[::-1], ops[attn])"),
    Bug("the values given the keys' gradient", "language model", "all parameters", MODEL,
        'linear_back(d.dv, f"{attn}.v_proj"', 'linear_back(d.dk, f"{attn}.v_proj"'),
    Bug("the keys given the queries' gradient", "language model", "all parameters", MODEL,
        'linear_back(d.dk, f"{attn}.k_proj"', 'linear_back(d.dq, f"{attn}.k_proj"'),
    Bug("the queries given the keys' gradient", "language model: lora", "all parameters", MODEL,
        'linear_back(d.dq, f"{attn}.q_proj"', 'linear_back(d.dk, f"{attn}.q_proj"'),
    Bug("the way through the keys dropped", "language model", None, MODEL,
        "dh = add(at_read_backward(through_q, i, cache), through_k, through_v)",
        "dh = add(at_read_backward(through_q, i, cache), through_v)"),
    Bug("the way through the queries counted twice", "language model: lora", None, MODEL,
        "dh = add(at_read_backward(through_q, i, cache), through_k, through_v)",
        "dh = add(through_q, through_q, through_k, through_v)"),
    Bug("ln1 skipped", "language model: lora", None, MODEL,
        'dh = norm_backward(dh, f"blocks.{i}.ln1", cache, grads, record)', "dh = dh"),
    Bug("the attention's residual term dropped", "language model", None, MODEL,
        "return at_read_backward(dx, i, cache) + dh if dh is not None else None", "return dh"),
    Bug("the attention's own term dropped", "language model", None, MODEL,
        "return at_read_backward(dx, i, cache) + dh if dh is not None else None",
        "return at_read_backward(dx, i, cache) if dh is not None else None"),
    # pieces that every block uses
    Bug("all linear layers' gradients recorded as 0", "language model: activations", None, MODEL,
        "    note(record, module, dy)\n    return project_backward",
        "    note(record, module, 0 * dy)\n    return project_backward"),
    Bug("all linear layers averaged over the batch", "language model", None, MODEL,
        "return project_backward(dy, module, cache, grads)",
        "return project_backward(dy / len(dy), module, cache, grads)"),
    Bug("all layer norms' gradients recorded as 0", "language model: activations", None, MODEL,
        "    note(record, module, dy)\n    dx, dweight", "    note(record, module, 0 * dy)\n    dx, dweight"),
    Bug("a layer norm's weight and bias swapped", "language model", None, MODEL,
        "dx, dweight, dbias = layer_norm_backward(dy", "dx, dbias, dweight = layer_norm_backward(dy"),
    Bug("a layer norm's bias forgotten", "language model", None, MODEL,
        'found = {f"{module}.weight": dweight, f"{module}.bias": dbias}',
        'found = {f"{module}.weight": dweight}'),
    Bug("a layer norm's gradients of another sign", "language model", None, MODEL,
        'bias": dbias}\n    grads |= {name: grad for', 'bias": dbias}\n    grads |= {name: -grad for'),
    Bug("a layer norm's dx halved", "classifier: lora", None, MODEL,
        "if grad is not None}\n    return dx\n",
        "if grad is not None}\n    return None if dx is None else 0.5 * dx\n"),
    Bug("three ways taken for two", "language model: lora", None, MODEL,
        "sum(terms[1:], start=terms[0])", "sum(terms[1:2], start=terms[0])"),
    Bug("the first of several ways dropped", "language model: lora", None, MODEL,
        "terms = [term for term in terms if", "terms = [term for term in terms[1:] if"),
    Bug("all gradients recorded as 0", "classifier: activations", None, MODEL,
        "record[name] = array", "record[name] = np.zeros_like(array)"),
    Bug("a classifier's head tied too", "classifier", None, MODEL,
        'return "head" if config.n_classes else "tok_emb"', 'return "tok_emb"'),
    # where the backward pass stops
    Bug("stops at the highest wanted parameter", "language model", None, CALL,
        "lowest=min((depth", "lowest=max((depth"),
    Bug("stops one layer early", "language model: lora", ALONE, CALL,
        "self.lowest < depth(place or module, self.config)", "self.lowest < depth(place or module, self.config) - 1"),
    Bug("blocks that overlap", "language model", ALONE, CALL,
        "return 1 + 6 * int(i)", "return 1 + 4 * int(i)"),
    Bug("ln_f below the last block", "classifier", ALONE, CALL,
        "return 1 + 6 * config.n_layers", "return 6 * config.n_layers"),
    Bug("v's gradient never asked for", "language model: lora", None, MODEL,
        'for name in "qkv" if call.operands_wanted', 'for name in "qk" if call.operands_wanted'),
    Bug("the tied head's gradient never asked for", "language model", None, MODEL,
        'call.operands_wanted(module, place="head")', 'call.operands_wanted("head")'),
    Bug("the tied head taken to stand at the input", "language model", None, MODEL,
        'call.operands_wanted(module, place="head")', "call.operands_wanted(module)"),
    # the objective
    Bug("divided by the number of targets again", "language model", None, OBJECTIVE,
        "cross_entropy_backward(1.0, loss_cache)", "cross_entropy_backward(1.0 / n_targets, loss_cache)"),
]
# fmt: on


# ------------------------------------------------------------------ planting


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with the package's source, compiled once for all copies, and on the path."""
    folder = tmp_path_factory.mktemp("planted")

    def no_source(here, names):
        files = [name for name in names if (Path(here) / name).is_file()]
        above = [name for name in names if Path(here) == PACKAGE and name not in (*ROOMS, "__init__.py")]
        return ["__pycache__", *above, *(name for name in files if not name.endswith(".py"))]

    shutil.copytree(PACKAGE, folder / "right", ignore=no_source)
    compileall.compile_dir(folder / "right", quiet=2)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def plant(workshop):
    """Function (bug) -> the gradient check of a copy of the package with that bug; None: without one."""
    name = f"lora_np_bug_{next(NUMBER)}"
    folder = workshop / name

    def make(bug):
        shutil.copytree(workshop / "right", folder, copy_function=os.link)  # one more name for each file: fast
        if bug is not None:
            file = folder / bug.file
            text = file.read_text(encoding="utf-8")
            times = text.count(bug.right)
            assert times == 1, f"{bug.file}: {bug.right!r} stands there {times} times"
            file.unlink()  # that name alone
            file.write_text(text.replace(bug.right, bug.wrong), encoding="utf-8")
            for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
                compiled.unlink()
        importlib.invalidate_caches()
        copy = importlib.import_module(f"{name}.reference.gradcheck")
        cases = sys.modules[f"{name}.reference.gradcheck_cases"]
        assert cases.ops.linear_backward.__module__ == f"{name}.ops.linear"  # not the package's own
        return copy

    yield make
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    shutil.rmtree(folder)


@functools.cache
def claimed_by_the_package(name):
    case, doutput = check.draw_case(name, 0)
    return check.claimed_gradients(case, doutput, tuple(case.operands))


def rows_of(copy, case, monkeypatch):
    """The rows of one case, with the first seed."""
    with monkeypatch.context() as patch:
        if "model" in case or "classifier" in case:
            # A whole model's differences take a second. In their place are the package's own gradients, which
            # test_gradcheck.py holds to them; the loss is not changed by any bug.
            patch.setattr(copy, "measured_gradients", lambda *_: claimed_by_the_package(case))
        return copy.check_case(case, 0)


# The first of each file in the quick run, all of them in the slow one.
QUICK = {bug.file: bug for bug in reversed(BUGS)}.values()


@pytest.mark.parametrize(
    "bug",
    [pytest.param(bug, marks=[] if bug in QUICK else pytest.mark.slow, id=f"{bug.file}: {bug.what}") for bug in BUGS],
)
def test_the_bug_is_caught(bug, plant, monkeypatch):
    copy = plant(bug)
    caught = [row.operand for row in copy.failures(rows_of(copy, bug.case, monkeypatch))]
    assert caught, f"no row of {bug.case} is above {copy.TOLERANCE:.0e}"
    assert bug.operand is None or bug.operand in caught


# ------------------------------------------------------------------ controls


@pytest.mark.slow
def test_a_copy_without_a_bug_passes(plant, monkeypatch):
    copy = plant(None)
    for case in sorted({bug.case for bug in BUGS}):
        rows = rows_of(copy, case, monkeypatch)
        assert rows and copy.failures(rows) == []


@pytest.mark.parametrize("text", ["no such line", "return"])
def test_text_that_does_not_stand_there_once_is_an_error(text, plant):
    with pytest.raises(AssertionError, match="stands there"):
        plant(Bug("", "linear", None, LINEAR, text, ""))


def test_no_two_bugs_are_one():
    assert len({(bug.file, bug.right, bug.wrong) for bug in BUGS}) == len(BUGS)


# VeRA's random factors are constants of both passes: test_variants.py holds them to what they should be.
DRAWN = {"cached_projections"}


def backward_functions():
    """(file, text, syntax tree) of every function below this check that goes backward.

    Those are the backward passes, the slope that GELU's forward pass keeps for its own, AdaLoRA's distance from
    orthonormal with its gradient, and each function of the same file that one of them names; and of the
    cross-entropy's forward pass what it does where a gradient is wanted. `blocks` is a file of its own:
    test_blocks.py.
    """
    for folder in ("ops", "adapters", "model"):
        for file in sorted((PACKAGE / folder).glob("*.py")):
            text = file.read_text(encoding="utf-8")
            functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
            names = [name for name in functions if re.search(r"(^|_)(back(ward)?|slope|orthogonality)$", name)]
            for name in names:  # the list grows on the way
                named = {node.id for node in names_in(functions[name])} - DRAWN
                names += [helper for helper in functions if helper in named and helper not in names]
                yield file.relative_to(PACKAGE).as_posix(), text, functions[name]
            if file.name == "cross_entropy.py":
                branches = [n for n in ast.walk(functions["cross_entropy_forward"]) if isinstance(n, ast.If)]
                going_back = [n for n in branches if {"dx", "dlogits"} & {m.id for m in names_in(n.test)}]
                assert len(going_back) == 2
                yield from ((f"ops/{file.name}", text, branch) for branch in going_back)


def names_in(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name)]


def working_lines(function):
    """(first, last) line of each statement that computes: no docstring, no `= None`, no `return None`."""
    simple = (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)
    for node in ast.walk(function):
        if isinstance(node, simple) and node.value is not None and not isinstance(node.value, ast.Constant):
            yield node.lineno, node.end_lineno


def lines_with_a_bug(file, text):
    """The numbers of the lines that a planted bug changes or takes away."""
    for bug in BUGS:
        if bug.file == file and bug.right in text:
            before, _, after = text.partition(bug.right)
            right, wrong = text.splitlines(), (before + bug.wrong + after).splitlines()
            for tag, first, last, _, _ in difflib.SequenceMatcher(None, right, wrong, False).get_opcodes():
                if tag != "equal":
                    yield from range(first + 1, last + 1)


ELSEWHERE = {
    # What a whole model's record says inside attention: test_gradcheck.py holds it against attention_backward.
    'note(record, f"{attn}.probs", d.dprobs)',
    'note(record, f"{attn}.scores", d.dscores)',
    # Spares a product that nobody reads: test_accounting.py counts it.
    'dw_wanted = any(name in wanted for name in ("x", "lora_A", "lora_E"))',
}


def test_every_line_of_every_backward_pass_has_a_bug():
    """A new line of a backward pass asks for a bug in the list above."""
    missing = []
    for file, text, function in backward_functions():
        touched = set(lines_with_a_bug(file, text))
        for first, last in working_lines(function):
            line = text.splitlines()[first - 1].strip()
            if touched.isdisjoint(range(first, last + 1)) and line not in ELSEWHERE:
                missing.append(f"{file}:{first}: {line}")
    assert missing == []
