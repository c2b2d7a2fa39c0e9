"""Which gradients are asked for, handed on to the steps that a layer is made of; and sums of what comes back."""


def operands_wanted(wanted, passes_through):
    """The operands of one step that the wanted gradients of its layer pass through.

    Parameters
    ----------
    wanted : names that the layer is asked for
    passes_through : dict, such a name -> the step's operands, divided by spaces

    Returns
    -------
    tuple of names
    """
    operands = [operand for name in wanted for operand in passes_through.get(name, "").split()]
    return tuple(dict.fromkeys(operands))


def add(*grads):
    """The sum of the gradients that reach one array by several ways; None where none was asked for."""
    return None if any(grad is None for grad in grads) else sum(grads[1:], start=grads[0])


def present(grads):
    """The gradients of a dict that were asked for: those that are not None."""
    return {name: grad for name, grad in grads.items() if grad is not None}
