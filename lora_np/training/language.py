"""Teaching a language model a domain from a token stream, in full or with an adapter."""

from ..data import language_batches
from .evaluate import evaluate
from .fine_tune import fine_tuning

EVALUATION_BATCH = 16  # windows in a batch of an evaluation


def language_loss(params, config, tokens, adapter=None):
    """Mean loss over a token stream in nats per token, in windows of n_positions tokens; its exp is the perplexity."""
    batches = language_batches(tokens, EVALUATION_BATCH, config.n_positions)
    return evaluate(params, batches, config, adapter)["loss"]


def language_training(params, config, adapter, tokens, validation, *, batch_size=16, also=None, **settings):
    """What `train` needs to train a language model, or an adapter of it, on a token stream.

    Parameters
    ----------
    params, config : the language model to start from
    adapter : Adapter at its start, or None to train the whole model
    tokens, validation : (N,) integers; the second chooses the best weights
    batch_size : int, windows of n_positions tokens in a batch
    also : function (params, adapter) -> dict of floats to note at each evaluation, or None
    settings : learning_rate, epochs, evaluations, seed and progress, see `fine_tuning`

    Returns
    -------
    dict of `train`'s arguments
    """

    def epoch_batches(rng):
        return list(language_batches(tokens, batch_size, config.n_positions, rng))

    def measure(model, attached):
        more = also(model, attached) if also is not None else {}
        return {"loss": language_loss(model, config, validation, attached), **more}

    return fine_tuning(params, config, adapter, epoch_batches, measure, **settings)
