"""The functions `run` and `back`, which the forward and backward passes of an architecture call.

`run(name, *inputs)` computes one layer, and `back(name, dy)` computes the gradients of its inputs. This file decides at
which positions a layer is computed, which gradients are needed, and whether activations are recorded. `operations.py`
decides which weights, adapter and dropout mask the layer uses.
"""

import numpy as np

from .. import ops
from ..adapters import KINDS
from .operations import OPERATIONS


def forward_layers(cache, record=None):
    """Create the `run` for one forward pass.

    Parameters
    ----------
    cache : ForwardCache, whose `ops` and `shapes` are filled by `run`
    record : dict that `run` fills, name -> activation; or None
    """
    call, caches, shapes, _ = cache

    def run(name, *inputs):
        module = call.modules[name]
        operation = OPERATIONS[module.operation]
        if module.one_position:
            shapes[name] = [x.shape for x in inputs]
            if module.operation != "attention":  # attention reads all keys and values
                inputs = [at_positions(x, call.last) for x in inputs]
        y, caches[name] = operation.forward(call, module, *inputs)
        if record is not None:
            if operation.inside is not None:
                record.update(operation.inside(call, module, *inputs))
            record[output_name(name)] = y
        return y

    return run


def backward_layers(cache, grads, record=None):
    """Create the `back` for one backward pass.

    Parameters
    ----------
    cache : ForwardCache
    grads : dict that `back` fills, name of a wanted parameter -> gradient
    record : dict that `back` fills, name of an activation -> gradient; or None
    """
    call, caches, shapes, _ = cache

    def back(name, dy):
        module = call.modules[name]
        operation = OPERATIONS[module.operation]
        if dy is None:  # no lower layer is trained
            return None if operation.inputs == 1 else (None,) * operation.inputs
        if name in call.adapter_arrays:
            dx, of_parameters = KINDS[call.adapter_config.kind].backward(dy, caches[name])
            result = (dx,)
        else:
            earlier = (grads.get(f"{module.parameters}.weight"),) if operation.adds_up else ()
            result = operation.backward(dy, caches[name], *earlier)
            of_parameters = {leaf: getattr(result, "d" + leaf) for leaf in call.wanted[name] if leaf != "x"}
        for leaf, grad in of_parameters.items():
            grads[f"{module.parameters}.{leaf}"] = grad
        if record is not None:
            steps = {f"{module.prefix}{step}": getattr(result, "d" + step) for step in operation.steps}
            record.update(ops.present({output_name(name): dy, **steps}))
        dinputs = result[: operation.inputs]
        if module.one_position:
            dinputs = [spread(dx, shape, call.last) for dx, shape in zip(dinputs, shapes[name])]
        return dinputs[0] if operation.inputs == 1 else dinputs

    return back


def output_name(name):
    """The name of a layer's output: the layer's own name, except that the head's output is called "logits"."""
    return "logits" if name == "head" else name


def at_positions(x, positions):
    """Select one position in each row, (B, 1, C); x is returned unchanged if it has only that position."""
    return x[np.arange(len(x)), positions][:, None] if x.ndim == 3 and x.shape[1] > 1 else x


def spread(dx, shape, positions):
    """The backward pass of `at_positions`: dx at the selected positions, and zero at all others."""
    if dx is None or dx.shape == shape:
        return dx
    full = np.zeros_like(dx, shape=shape)  # (B, T, C)
    full[np.arange(len(full)), positions] = dx[:, 0]
    return full
