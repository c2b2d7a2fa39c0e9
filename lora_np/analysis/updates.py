"""Weight updates ΔW = after − before and full gradients ∂L/∂W of a model's layers, as flat dicts.

LoRA assumes that the full gradient G = ∂L/∂W has a low rank: A and B only get dA = s Bᵀ G and dB = s G Aᵀ. GaLore (Zhao
et al. 2024, section 3) makes this assumption about the gradient itself. Its `spectrum` shows whether that is so.
"""

import numpy as np

from ..adapters import linear_layers
from ..checked import finite_matrix, same_shape
from ..model import loss_and_gradients
from .spectra import leading_part, svd
from .subspaces import check_length, orthonormal_basis


def weight_updates(before, after):
    """after − before for every name that both have.

    Parameters
    ----------
    before, after : dicts of arrays, or of quantised weights

    Returns
    -------
    dict of arrays, in `before`'s order

    Raises
    ------
    ValueError
        If an array has another shape in the other model.
    """
    common = [name for name in before if name in after]
    for name in common:
        same_shape(f"after[{name!r}]", after[name], before[name])
    return {name: np.asarray(after[name]) - np.asarray(before[name]) for name in common}


def linear_updates(before, after):
    """`weight_updates` of the blocks' linear layers alone: the matrices that LoRA can adapt."""
    return weight_updates({name: before[name] for name in linear_weights(before)}, after)


def linear_weights(params):
    """The names of the blocks' linear layers' weights."""
    return [f"{module}.weight" for module in linear_layers(params)]


def truncated_updates(before, after, ranks):
    """The trained model with each linear layer's update cut to its k leading directions, for each k.

    Everything else (embeddings, layer norms, biases, head) stays as trained, so only k varies.

    Parameters
    ----------
    before, after : dicts of arrays, the base and the fully fine-tuned model
    ranks : iterable of int; 0 leaves the linear layers as they were in the base

    Yields
    ------
    (k, params) with after's names
    """
    # Decompose once for all ranks, because that is the expensive part.
    factors = {name: svd(update) for name, update in linear_updates(before, after).items()}
    for k in ranks:
        cut = {
            name: np.asarray(before[name]) + leading_part(*usv, k).astype(before[name].dtype)
            for name, usv in factors.items()
        }
        yield k, {**after, **cut}


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
    check_length("directions", Q, G.shape[1], "the gradient's rows")
    largest = np.abs(G).max()
    if not largest:
        return 0.0
    G = G / largest  # the square of a tiny gradient would be 0
    return min(1.0, float(np.sum((G @ Q) ** 2) / np.sum(G**2)))
