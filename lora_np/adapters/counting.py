"""What one linear layer costs, from shapes: the FLOPs of its products, and what it keeps for its backward pass.

Each kind of adapter counts its own in its own file, with these.
"""


def linear_flops(name, rows, shape, wanted):
    """y = x Wᵀ, dx = dy W and dW = dyᵀ x are of one size: rows · out · in multiply-adds, two FLOPs each.

    Parameters
    ----------
    name : str, of the layer
    rows : int, of x
    shape : (out, in)
    wanted : names among x and weight

    Returns
    -------
    dict, "{name}.forward", "{name}.dx", "{name}.dweight" -> FLOPs, of those products that are carried out
    """
    n_out, n_in = shape
    flops = 2 * rows * n_out * n_in
    terms = {f"{name}.forward": flops}
    if "x" in wanted:
        terms[f"{name}.dx"] = flops
    if "weight" in wanted:
        terms[f"{name}.dweight"] = flops
    return terms


def linear_kept(x, wanted):
    """The layer's input where the weight's gradient is wanted; parameters are not counted here.

    Parameters
    ----------
    x : dict, the input's name -> its bytes
    wanted : names among x and weight
    """
    return x if "weight" in wanted else {}
