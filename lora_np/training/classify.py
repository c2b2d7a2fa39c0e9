"""Training a classifier, in full or with an adapter, from texts with labels."""

from ..data import class_batches
from .evaluate import evaluate
from .fine_tune import fine_tuning


def classifier_training(params, config, adapter, texts, validation, pad_id, *, batch_size=32, **settings):
    """What `train` needs to train a classifier, or an adapter of it, on texts with labels.

    Parameters
    ----------
    params, config : the classifier to start from, see `add_head`
    adapter : Adapter at its start, or None to train the whole model
    texts : (list of N arrays of token ids, (N,) integer labels)
    validation : list of Batch, which choose the best weights by their loss
    pad_id : int, the token that pads short texts
    batch_size : int
    settings : learning_rate, epochs, evaluations, seed and progress, see `fine_tuning`

    Returns
    -------
    dict of `train`'s arguments
    """

    def epoch_batches(rng):
        return class_batches(*texts, batch_size, pad_id, rng)

    def measure(model, attached):
        return evaluate(model, validation, config, attached)

    return fine_tuning(params, config, adapter, epoch_batches, measure, **settings)
