"""Training a classifier, in full or with an adapter, from texts with labels."""

from ..adapters.adalora_allocation import allocating
from ..data import class_batches
from .evaluate import evaluate
from .progress import progress_bar
from .protocol import fine_tuning_config
from .streams import stream
from .threads import blas_threads
from .trainable import attach, model_objective, trainable_arrays
from .trainer import train


def train_classifier(
    params,
    config,
    adapter,
    texts,
    validation,
    pad_id,
    *,
    learning_rate,
    epochs,
    batch_size=32,
    seed=0,
    evaluations=None,
    label=None,
):
    """Train a classifier, or an adapter of it, on texts with labels.

    Parameters
    ----------
    params, config : the classifier to start from, see `add_head`
    adapter : Adapter at its start, or None to train the whole model
    texts : (list of N arrays of token ids, (N,) integer labels)
    validation : list of Batch; they choose the best weights, by their loss
    pad_id : int, the token that fills up short texts
    learning_rate, epochs, evaluations, seed : see `fine_tuning_config`
    batch_size : int
    label : str, what a progress bar says; None: no bar

    Returns
    -------
    TrainState

    Raises
    ------
    FloatingPointError
        When training diverges; see `train`.
    """

    def epoch_batches(rng):
        return class_batches(*texts, batch_size, pad_id, rng)

    def scores(arrays):
        model, attached = attach(params, adapter, arrays)
        return evaluate(model, validation, config, attached)

    steps_per_epoch = len(epoch_batches(stream(seed, "shuffle", 0)))
    settings = fine_tuning_config(
        adapter, steps_per_epoch, learning_rate=learning_rate, epochs=epochs, evaluations=evaluations, seed=seed
    )
    objective, adjust = allocating(model_objective(params, config, adapter), adapter, settings.steps)
    trainable = trainable_arrays(params, adapter)
    with blas_threads(1), progress_bar(settings.steps, label) as on_step:
        return train(trainable, objective, epoch_batches, settings, scores, on_step, adjust=adjust)
