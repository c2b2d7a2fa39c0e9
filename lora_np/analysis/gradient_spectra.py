"""How many directions a full gradient has, and how much of it a low-rank adapter could follow.

LoRA assumes that the full gradient G = ∂L/∂W has a low rank: A and B only get dA = s Bᵀ G and dB = s G Aᵀ. GaLore (Zhao
et al. 2024, section 3) makes this assumption about the gradient itself.

    gradient_spectra        the spectra of given gradients
    layer_gradients         G of every linear layer, also with an adapter, whose training never computes G
    noting_spectra          a hook that notes singular values during `training.train`
"""

import numpy as np

from ..checked import finite_matrix, whole_number
from ..model import loss_and_gradients
from .spectra import spectrum
from .subspaces import orthonormal_basis
from .updates import linear_weights

STEPS = "gradient_spectra.steps"
SIGMA = ".gradient_singular_values"  # follows a weight's name


def gradient_spectra(gradients):
    """The `Spectrum` of the gradient of each of the blocks' linear layers.

    Parameters
    ----------
    gradients : dict of arrays with the model's names, from `loss_and_gradients` for the full model; everything except
        linear layers' weights (embeddings, biases, layer norms, the head, an adapter's arrays) is left out

    Returns
    -------
    dict, name -> Spectrum, in the order of `gradients`. A gradient of zero has ranks 0.

    Raises
    ------
    ValueError
        If no name is that of a linear layer's weight, or a gradient is not finite.
    """
    names = linear_weights(gradients)
    if not names:
        raise ValueError("gradients: got no linear layer's weight, expected names such as blocks.0.attn.q_proj.weight")
    return {name: spectrum(gradients[name], name) for name in names}


def layer_gradients(params, batch, config, adapter=None):
    """∂L/∂W of every linear layer of the blocks, on one batch and without dropout.

    Parameters
    ----------
    params, batch, config, adapter : see `loss_and_gradients`. With LoRA attached it is the gradient at W + ΔW, the G in
        dA and dB.

    Returns
    -------
    dict, name of the weight -> array (out, in), in the order of params
    """
    names = tuple(linear_weights(params))
    grads = loss_and_gradients(params, batch, config, adapter, names).grads  # in the order of the backward pass
    return {name: grads[name] for name in names}


def noting_spectra(every=1, gradients_of=None, then=None):
    """A hook for `train(…, adjust=…)` that notes the singular values of gradients in the run's memory.

    The notes are saved with the state, so an interrupted run resumes with them.

        state = train(params, objective, …, adjust=noting_spectra(every=20))
        steps, sigma = noted_spectra(state.memory)
        [stable_rank(row) for row in sigma["blocks.0.attn.q_proj.weight"]]

    A step's own gradients are those of its batch, at the weights before the step and after clipping, which does not
    change the ranks. Training an adapter does not compute gradients of full weights. To note these, or to use the same
    batch for every note, pass a function:

        def gradients_of(arrays):
            model, attached = attach(params, adapter, arrays)
            return layer_gradients(model, batch, config, attached)

    Parameters
    ----------
    every : int, note steps 1, 1 + every, 1 + 2 · every and so on
    gradients_of : function (trainable) -> gradients, at the weights after the step; None: the step's own
    then : another hook to call afterwards, such as that of `allocating`; or None

    Returns
    -------
    function (step, trainable, grads, memory)
    """
    every = whole_number("every", every)

    def hook(step, trainable, grads, memory):
        if (step - 1) % every == 0:
            spectra = gradient_spectra(grads if gradients_of is None else gradients_of(trainable))
            add_row(memory, STEPS, np.int64(step))
            for name, layer in spectra.items():
                add_row(memory, name + SIGMA, layer.singular_values)
        if then is not None:
            then(step, trainable, grads, memory)

    return hook


def add_row(memory, name, values):
    row = np.asarray(values)[None]
    memory[name] = np.concatenate([memory[name], row]) if name in memory else row


def noted_spectra(memory):
    """What `noting_spectra` has noted.

    Parameters
    ----------
    memory : dict, of the `TrainState` that `train` returned

    Returns
    -------
    steps : int array (S,)
    sigma : dict, name of the weight -> array (S, n), for each step a row of singular values in descending order

    Raises
    ------
    ValueError
        If nothing was noted.
    """
    if STEPS not in memory:
        raise ValueError("memory: holds no spectra, expected that of a run with the hook `noting_spectra`")
    sigma = {key.removesuffix(SIGMA): rows for key, rows in memory.items() if key.endswith(SIGMA)}
    return memory[STEPS], sigma


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
