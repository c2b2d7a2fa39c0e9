"""How many directions a full gradient has, and how much of it a low-rank adapter could follow.

That LoRA can do without the full gradient is a bet on its rank. These functions look at one step's gradients; the
caller collects them:

    spectra = [gradient_spectra(gradients) for gradients in …]  # in a training loop, every so many steps

GaLore (Zhao et al. 2024, section 3) makes the same bet on the gradient itself.
"""

import numpy as np

from ..adapters import linear_layers
from .checked import finite_matrix
from .spectra import spectrum
from .subspaces import orthonormal_basis


def gradient_spectra(gradients):
    """The `Spectrum` of the gradient of each of the blocks' linear layers.

    Parameters
    ----------
    gradients : dict of arrays with the model's names, as `loss_and_gradients` gives them for the full model;
        what is no linear layer's weight (embeddings, biases, layer norms, the head, an adapter's arrays) is left out

    Returns
    -------
    dict, name -> Spectrum, in the order of `gradients`. A gradient of zero is there too, with ranks 0, so that
    every step has the same names.

    Raises
    ------
    ValueError
        If there is no linear layer's weight among the names, or a gradient is not finite; it names the layer.
    """
    names = [f"{module}.weight" for module in linear_layers(gradients)]
    if not names:
        raise ValueError("gradients: got no linear layer's weight, expected names such as blocks.0.attn.q_proj.weight")
    return {name: spectrum(gradients[name], name) for name in names}


def energy_share(gradient, directions):
    """The share of a gradient that lies in the span of given directions of the input: ‖G V Vᵀ‖²_F / ‖G‖²_F.

    With Q an orthonormal basis of the span, G Q Qᵀ is the nearest matrix to G whose rows lie in it, and
    ‖G Q Qᵀ‖_F = ‖G Q‖_F. For a basis drawn at random the expected share is k / in.

    Parameters
    ----------
    gradient : array (out, in)
    directions : array (in, k), independent columns, orthonormal or not: `right_directions` of a final ΔW, or Aᵀ.
        For directions of the output, transpose the gradient.

    Returns
    -------
    float in [0, 1]; 0 for a gradient of zero, as its ranks are

    Raises
    ------
    ValueError
        For directions that are dependent or of another length, or values that are not finite.
    """
    G, Q = finite_matrix(gradient, "gradient"), orthonormal_basis(directions, "directions")
    if len(Q) != G.shape[1]:
        raise ValueError(f"directions: got columns of {len(Q)} entries, expected {G.shape[1]} as the gradient's rows")
    largest = np.abs(G).max()
    if not largest:
        return 0.0
    G = G / largest  # the square of a tiny gradient would be 0
    return min(1.0, float(np.sum((G @ Q) ** 2) / np.sum(G**2)))
