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
    params, config, adapter, texts, validation, pad_id, *, batch_size=32, class_weights=None, threads=1, **settings
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
    threads : int, shards and, in an evaluation, batches that are processed in parallel

    Returns
    -------
    dict of `train`'s arguments
    """

    def epoch_batches(rng):
        return class_batches(*texts, batch_size, pad_id, rng)

    def measure(model, attached):
        return evaluate(model, validation, config, attached, class_weights, threads)

    settings |= {"class_weights": class_weights, "threads": threads}
    return fine_tuning(params, config, adapter, epoch_batches, measure, **settings)


def language_training(
    params, config, adapter, tokens, validation, *, batch_size=16, length=None, also=None, threads=1, **settings
):
    """What `train` needs to train a language model on a token stream: `train(**language_training(...))`.

    Parameters
    ----------
    params, config, adapter, settings : see `fine_tuning`
    tokens, validation : (N,) integers; the second chooses the best weights
    batch_size : int, windows in a batch
    length : int, tokens in a window; None: n_positions
    also : function (params, adapter) -> dict of floats to note at each evaluation, or None
    threads : int, as in `classifier_training`

    Returns
    -------
    dict of `train`'s arguments
    """

    def epoch_batches(rng):
        return list(language_batches(tokens, batch_size, length or config.n_positions, rng))

    def measure(model, attached):
        more = also(model, attached) if also is not None else {}
        return {"loss": language_loss(model, config, validation, attached, length, threads), **more}

    return fine_tuning(params, config, adapter, epoch_batches, measure, threads=threads, **settings)


def language_loss(params, config, tokens, adapter=None, length=None, threads=1):
    """Mean loss over a token stream in nats per token, in windows of `length` tokens; its exp is the perplexity."""
    batches = language_batches(tokens, EVALUATION_BATCH, length or config.n_positions)
    return evaluate(params, batches, config, adapter, threads=threads)["loss"]


def answer_training(params, config, adapter, rows, validation, pad_id, *, batch_size=16, threads=1, **settings):
    """What `train` needs to train a language model on rows with targets of their own, such as the answers of a chat.

    Parameters
    ----------
    params, config, adapter, settings : see `fine_tuning`
    rows, validation : (list of N arrays of token ids, list of N arrays of targets); the second chooses the best weights
    pad_id : int, the token that pads short rows
    batch_size, threads : as in `classifier_training`

    Returns
    -------
    dict of `train`'s arguments
    """
    batches = class_batches(*validation, EVALUATION_BATCH, pad_id)

    def epoch_batches(rng):
        return class_batches(*rows, batch_size, pad_id, rng)

    def measure(model, attached):
        return evaluate(model, batches, config, attached, threads=threads)

    return fine_tuning(params, config, adapter, epoch_batches, measure, threads=threads, **settings)


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
    shards=1,
    threads=1,
    recompute=False,
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
    shards, threads : see `TrainConfig`
    recompute : bool, see `lora_np.model.forward`

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
        shards=shards,
        threads=threads,
    )
    objective = model_objective(params, config, adapter, class_weights, recompute)
    objective, adjust = allocating(objective, adapter, steps)
    return {
        "trainable": trainable_arrays(params, adapter),
        "objective": objective,
        "epoch_batches": epoch_batches,
        "config": settings,
        "evaluate": lambda arrays: measure(*attach(params, adapter, arrays)),
        "adjust": adjust,
    }
