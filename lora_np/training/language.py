"""Teaching a language model a domain, in full or with LoRA, from a token stream."""

from contextlib import nullcontext

from ..adapters import init_adapter
from ..data import language_batches
from .adamw import AdamW
from .evaluate import evaluate
from .progress import progress_bar
from .streams import stream
from .task import attach, model_objective
from .threads import blas_threads
from .trainer import TrainConfig, train

EVALUATION_BATCH = 16  # windows at once where nothing is trained

def language_loss(params, config, tokens, adapter=None):
    """Mean loss over a token stream in nats per token, in windows of n_positions tokens; its exp is the perplexity."""
    batches = language_batches(tokens, EVALUATION_BATCH, config.n_positions)
    return evaluate(params, batches, config, adapter)["loss"]


def train_language(
    params,
    config,
    adapter_config,
    tokens,
    validation,
    *,
    learning_rate,
    epochs,
    batch_size=16,
    seed=0,
    also=None,
    label=None,
):
    """Train a language model, or an adapter of it, on a token stream.

    Parameters
    ----------
    params, config : the language model to start from
    adapter_config : AdapterConfig, or None to train the whole model
    tokens, validation : (N,) integers; the second chooses the best weights, twice an epoch
    learning_rate : float, the peak
    epochs, batch_size, seed : int; a batch is of windows of n_positions tokens
    also : function (params, adapter) -> dict of floats to note at each evaluation, or None
    label : str, what a progress bar is to say of it; None: no bar

    Returns
    -------
    TrainState
    """
    trainable = params
    if adapter_config is not None:
        trainable = init_adapter(params, adapter_config, stream(seed, "adapter")).weights

    def epoch_batches(rng):
        return list(language_batches(tokens, batch_size, config.n_positions, rng))

    def scores(arrays):
        model, adapter = attach(params, adapter_config, arrays)
        more = also(model, adapter) if also is not None else {}
        return {"loss": language_loss(model, config, validation, adapter), **more}

    steps_per_epoch = len(epoch_batches(stream(seed, "shuffle", 0)))
    settings = TrainConfig(
        steps=epochs * steps_per_epoch,
        learning_rate=learning_rate,
        warmup_steps=steps_per_epoch // 4,
        optimiser=AdamW(weight_decay=0.01),
        eval_every=max(1, steps_per_epoch // 2),
        seed=seed,
    )
    bar = progress_bar(settings.steps, label) if label is not None else nullcontext()
    with blas_threads(1), bar as on_step:
        objective = model_objective(params, config, adapter_config)
        return train(trainable, objective, epoch_batches, settings, scores, on_step)
