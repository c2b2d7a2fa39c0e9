"""Helpers for layers that combine operations: select the operands that need gradients, and add gradients."""


def operands_wanted(wanted, passes_through):
    """Return which of an operation's operands need gradients, so that a layer's wanted gradients can be computed.

    Parameters
    ----------
    wanted : names of the layer's operands
    passes_through : dict, layer's operand -> names of the operation's operands on its gradient's path, space-separated

    Returns
    -------
    tuple of names
    """
    operands = [operand for name in wanted for operand in passes_through.get(name, "").split()]
    return tuple(dict.fromkeys(operands))


def add(*grads):
    """The sum of one array's gradients from several paths; None if any of them is None (not wanted)."""
    return None if any(grad is None for grad in grads) else sum(grads[1:], start=grads[0])


def present(grads):
    """The entries of a dict of gradients that are not None."""
    return {name: grad for name, grad in grads.items() if grad is not None}
