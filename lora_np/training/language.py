"""Teaching a language model a domain from a token stream, in full or with an adapter."""

from ..adapters.adalora_allocation import allocating
from ..data import language_batches
from .evaluate import evaluate
from .progress import progress_bar
from .protocol import fine_tuning_config
from .streams import stream
from .threads import blas_threads
from .trainable import attach, model_objective, trainable_arrays
from .trainer import train

EVALUATION_BATCH = 16  # windows in a batch of an evaluation


def language_loss(params, config, tokens, adapter=None):
    """Mean loss over a token stream in nats per token, in windows of n_positions tokens; its exp is the perplexity."""
    batches = language_batches(tokens, EVALUATION_BATCH, config.n_positions)
    return evaluate(params, batches, config, adapter)["loss"]


def train_language(
    params,
    config,
    adapter,
    tokens,
    validation,
    *,
    learning_rate,
    epochs,
    batch_size=16,
    seed=0,
    also=None,
    evaluations=None,
    label=None,
):
    """Train a language model, or an adapter of it, on a token stream.

    Parameters
    ----------
    params, config : the language model to start from
    adapter : Adapter at its start, or None to train the whole model
    tokens, validation : (N,) integers; the second chooses the best weights
    learning_rate : float, the peak
    epochs, batch_size, seed : int; a batch is of windows of n_positions tokens
    also : function (params, adapter) -> dict of floats to note at each evaluation, or None
    evaluations : int, about how many evaluations in all; None: two an epoch
    label : str, the progress bar's text; None: no bar

    Returns
    -------
    TrainState
    """

    def epoch_batches(rng):
        return list(language_batches(tokens, batch_size, config.n_positions, rng))

    def scores(arrays):
        model, attached = attach(params, adapter, arrays)
        more = also(model, attached) if also is not None else {}
        return {"loss": language_loss(model, config, validation, attached), **more}

    steps_per_epoch = len(epoch_batches(stream(seed, "shuffle", 0)))
    settings = fine_tuning_config(
        adapter, steps_per_epoch, learning_rate=learning_rate, epochs=epochs, evaluations=evaluations, seed=seed
    )
    trainable = trainable_arrays(params, adapter)
    objective, adjust = allocating(model_objective(params, config, adapter), adapter, settings.steps)
    with blas_threads(1), progress_bar(settings.steps, label) as on_step:
        return train(trainable, objective, epoch_batches, settings, scores, on_step, adjust=adjust)
