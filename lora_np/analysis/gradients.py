"""How much of a full gradient a low-rank adapter could follow.

LoRA assumes that the full gradient G = ∂L/∂W has a low rank: A and B only get dA = s Bᵀ G and dB = s G Aᵀ. GaLore (Zhao
et al. 2024, section 3) makes this assumption about the gradient itself. Its `spectrum` shows whether that is so.
"""

import numpy as np

from ..checked import finite_matrix
from ..model import loss_and_gradients
from .subspaces import orthonormal_basis
from .updates import linear_weights


def layer_gradients(params, batch, config, adapter=None):
    """∂L/∂W of every linear layer of the blocks, on one batch and without dropout.

    Training an adapter never computes these gradients. To follow them during `training.train`, call this in its hook
    `adjust`. The gradients that the hook gets are the step's own, after clipping.

    Parameters
    ----------
    params, batch, config, adapter : see `loss_and_gradients`. With LoRA attached it is the gradient at W + ΔW, the G in
        dA and dB.

    Returns
    -------
    dict, name of the weight -> array (out, in), in the order of params

    Examples
    --------
    >>> {name: spectrum(G).stable_rank for name, G in layer_gradients(params, batch, config).items()}
    """
    names = tuple(linear_weights(params))
    grads = loss_and_gradients(params, batch, config, adapter, names).grads  # in the order of the backward pass
    return {name: grads[name] for name in names}


def energy_share(gradient, directions):
    """The share of a gradient in the span of given directions of the input: ‖G Q Qᵀ‖²_F / ‖G‖²_F.

    Q is an orthonormal basis of the span. G Q Qᵀ is the nearest matrix to G whose rows are in the span, and
    ‖G Q Qᵀ‖_F = ‖G Q‖_F. For a random basis the expected share is k / in.

    Parameters
    ----------
    gradient : array (out, in)
    directions : array (in, k) of independent columns, orthonormal or not, such as `right_directions` of a final ΔW, or
        Aᵀ. For directions of the output, transpose the gradient.

    Returns
    -------
    float in [0, 1]; 0 for a gradient of zero

    Raises
    ------
    ValueError
        If directions are dependent or of another length, or values are not finite.
    """
    G, Q = finite_matrix("gradient", gradient), orthonormal_basis(directions, "directions")
    if len(Q) != G.shape[1]:
        raise ValueError(f"directions: got columns of {len(Q)} entries, expected {G.shape[1]} as the gradient's rows")
    largest = np.abs(G).max()
    if not largest:
        return 0.0
    G = G / largest  # the square of a tiny gradient would be 0
    return min(1.0, float(np.sum((G @ Q) ** 2) / np.sum(G**2)))
