"""One protocol for every fine-tuning, of a classifier or a language model: its schedule, and which weights are best."""

from ..adapters.adalora_allocation import allocating, settled_from
from ..checked import whole_number
from ..data import class_batches, language_batches
from .evaluate import evaluate
from .streams import stream
from .trainable import adapter_optimiser, attach, model_objective, trainable_arrays
from .trainer import TrainConfig

EVALUATION_BATCH = 16  # windows in a batch of an evaluation


def classifier_training(
    params, config, adapter, texts, validation, pad_id, *, batch_size=32, class_weights=None, **settings
):
    """What `train` needs to train a classifier on texts with labels: `train(**classifier_training(...))`.

    Parameters
    ----------
    params, config, adapter, settings : see `fine_tuning`; `lora_np.model.add_head` makes a classifier
    texts : (list of N arrays of token ids, (N,) integer labels)
    validation : list of Batch, which choose the best weights by their loss
    pad_id : int, the token that pads short texts
    batch_size : int
    class_weights : array (n_classes,) or None, of the training and of the validation loss; see `cross_entropy_forward`

    Returns
    -------
    dict of `train`'s arguments
    """

    def epoch_batches(rng):
        return class_batches(*texts, batch_size, pad_id, rng)

    def measure(model, attached):
        return evaluate(model, validation, config, attached, class_weights)

    return fine_tuning(params, config, adapter, epoch_batches, measure, class_weights=class_weights, **settings)


def language_training(params, config, adapter, tokens, validation, *, batch_size=16, also=None, **settings):
    """What `train` needs to train a language model on a token stream: `train(**language_training(...))`.

    Parameters
    ----------
    params, config, adapter, settings : see `fine_tuning`
    tokens, validation : (N,) integers; the second chooses the best weights
    batch_size : int, windows of n_positions tokens in a batch
    also : function (params, adapter) -> dict of floats to note at each evaluation, or None

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


def language_loss(params, config, tokens, adapter=None):
    """Mean loss over a token stream in nats per token, in windows of n_positions tokens; its exp is the perplexity."""
    batches = language_batches(tokens, EVALUATION_BATCH, config.n_positions)
    return evaluate(params, batches, config, adapter)["loss"]


def fine_tuning(
    params,
    config,
    adapter,
    epoch_batches,
    measure,
    *,
    learning_rate,
    epochs,
    evaluations=None,
    seed=0,
    class_weights=None,
):
    """What `train` needs to fine-tune a model, or an adapter of it.

    The learning rate rises over a quarter of the first epoch and then falls linearly to zero. The best weights have the
    lowest validation loss: it is a proper score, and scatters much less than the accuracy on the same texts.

    Parameters
    ----------
    params, config : the model to start from
    adapter : Adapter at its start, or None to train the whole model
    epoch_batches : function (rng) -> list of Batch, see `train`
    measure : function (params, adapter) -> dict of floats, with the "loss" on the validation data
    learning_rate : float, the peak
    epochs : int
    evaluations : int, about how many evaluations in all; None: two an epoch
    seed : int
    class_weights : array (n_classes,) or None, of the training loss

    Returns
    -------
    dict of `train`'s arguments
    """
    if evaluations is not None:
        whole_number("evaluations", evaluations)
    steps_per_epoch = len(epoch_batches(stream(seed, "shuffle", 0)))
    steps = epochs * steps_per_epoch
    settings = TrainConfig(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=steps_per_epoch // 4,
        optimiser=adapter_optimiser(adapter),
        eval_every=max(1, steps // (2 * epochs if evaluations is None else evaluations)),
        select="loss",
        select_from=settled_from(adapter, steps),
        seed=seed,
    )
    objective, adjust = allocating(model_objective(params, config, adapter, class_weights), adapter, steps)
    return {
        "trainable": trainable_arrays(params, adapter),
        "objective": objective,
        "epoch_batches": epoch_batches,
        "config": settings,
        "evaluate": lambda arrays: measure(*attach(params, adapter, arrays)),
        "adjust": adjust,
    }
