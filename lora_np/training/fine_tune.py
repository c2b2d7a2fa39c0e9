"""One protocol for every fine-tuning: its schedule, and how it chooses the best weights."""

from ..adapters.adalora_allocation import allocating, settled_from
from ..checked import whole_number
from .streams import stream
from .trainable import adapter_optimiser, attach, model_objective, trainable_arrays
from .trainer import TrainConfig


def fine_tuning(
    params, config, adapter, epoch_batches, measure, *, learning_rate, epochs, evaluations=None, seed=0, progress=None
):
    """What `train` needs to fine-tune a model, or an adapter of it: `train(**fine_tuning(...))`.

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
    progress : str, the progress bar's text; None: no bar

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
    objective, adjust = allocating(model_objective(params, config, adapter), adapter, steps)
    return {
        "trainable": trainable_arrays(params, adapter),
        "objective": objective,
        "epoch_batches": epoch_batches,
        "config": settings,
        "evaluate": lambda arrays: measure(*attach(params, adapter, arrays)),
        "adjust": adjust,
        "progress": progress,
    }
