"""One protocol for every fine-tuning: its schedule, and which weights are the best."""

from ..adapters.adalora_allocation import settled_from
from .trainable import adapter_optimiser
from .trainer import TrainConfig


def fine_tuning_config(adapter, steps_per_epoch, *, learning_rate, epochs, evaluations=None, seed=0):
    """The settings that every fine-tuning has in common.

    The learning rate rises over a quarter of the first pass and then falls linearly to zero. The best weights are those
    of the lowest validation loss: it is a proper score, and scatters much less than the accuracy of the same texts.

    Parameters
    ----------
    adapter : Adapter at its start, or None to train the whole model
    steps_per_epoch : int, batches in one pass over the data
    learning_rate : float, the peak
    epochs : int, passes over the data
    evaluations : int, about how many along the way; None: two a pass
    seed : int

    Returns
    -------
    TrainConfig
    """
    steps = epochs * steps_per_epoch
    return TrainConfig(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=steps_per_epoch // 4,
        optimiser=adapter_optimiser(adapter),
        eval_every=max(1, steps // (2 * epochs if evaluations is None else evaluations)),
        select="loss",
        select_from=settled_from(adapter, steps),
        seed=seed,
    )
