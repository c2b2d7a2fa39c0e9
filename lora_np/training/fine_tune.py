"""How every fine-tuning trains, of a classifier or a language model: its schedule, and which weights are best."""

from ..adapters.adalora_allocation import allocating, settled_from
from ..checked import whole_number
from .evaluate import evaluate
from .streams import stream
from .trainable import adapter_optimiser, attach, model_objective, trainable_arrays
from .trainer import TrainConfig


def fine_tuning(
    params,
    config,
    adapter,
    epoch_batches,
    validation,
    *,
    learning_rate,
    epochs,
    evaluations=None,
    seed=0,
    class_weights=None,
    shards=1,
    threads=1,
    recompute=False,
    also=None,
):
    """The arguments with which `train` fine-tunes a model or its adapter: `train(**fine_tuning(...))`.

    The learning rate rises over a quarter of the first epoch and then falls linearly to zero. The best weights have the
    lowest validation loss: it is a proper score, and scatters much less than the accuracy on the same texts.

    Parameters
    ----------
    params, config : the model to start from; `lora_np.model.add_head` makes a classifier
    adapter : Adapter at its start, or None to train the whole model
    epoch_batches : function (rng) -> list of Batch for one epoch; see `train`, `class_batches` and `language_batches`
    validation : list of Batch
    learning_rate : float, the peak
    epochs : int
    evaluations : int, approximate number of evaluations in all; None: two per epoch
    seed : int
    class_weights : array (n_classes,) or None, for the training and the validation loss; see `cross_entropy_forward`
    shards, threads : see `TrainConfig`; an evaluation processes `threads` batches in parallel
    recompute : bool, see `lora_np.model.forward`
    also : function (params, adapter) -> dict of floats to record at each evaluation, or None

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
        select_from=settled_from(adapter, steps),
        seed=seed,
        shards=shards,
        threads=threads,
    )

    def measure(arrays):
        model = attach(params, adapter, arrays)
        scores = evaluate(model[0], validation, config, model[1], class_weights, threads)
        return scores if also is None else {**scores, **also(*model)}

    objective = model_objective(params, config, adapter, class_weights, recompute)
    objective, adjust = allocating(objective, adapter, steps)
    return {
        "trainable": trainable_arrays(params, adapter),
        "objective": objective,
        "epoch_batches": epoch_batches,
        "config": settings,
        "evaluate": measure,
        "adjust": adjust,
    }
