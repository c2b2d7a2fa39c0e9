"""The components that all kinds of fine-tuning share: trainable arrays, schedule, and selection of the best weights."""

from ..adapters import Adapter, head_arrays, trained_weights
from ..adapters.adalora_allocation import allocating, settled_from
from ..checked import whole_number
from ..model import draw_masks, loss_and_gradients
from .adamw import AdamW
from .evaluate import evaluate
from .head_alone import evaluate_head, head_inputs, head_objective
from .streams import stream
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
    patience=None,
    progress=None,
    loss=None,
):
    """Return the arguments with which `train` fine-tunes a model or an adapter: `train(**fine_tuning(...))`.

    The learning rate rises linearly over the first quarter of the first epoch and then falls linearly towards zero. The
    best weights are those with the lowest validation loss, because the loss is a proper scoring rule and much less
    noisy than the accuracy on the same texts.

    Parameters
    ----------
    params, config : the model to start from; `lora_np.model.add_head` gives it a classification head
    adapter : initial Adapter, or None to train the whole model
    epoch_batches : function (rng) -> list of Batch for one epoch; see `train`, `class_batches` and `language_batches`
    validation : list of Batch
    learning_rate : float, the peak learning rate
    epochs : int
    evaluations : int, approximate total number of evaluations; None: two per epoch
    seed : int
    class_weights : array (n_classes,) or None, for the training and the validation loss; see `cross_entropy_forward`
    shards, threads : see `TrainConfig`; an evaluation processes `threads` batches in parallel
    recompute : bool, see `lora_np.model.forward`
    patience : see `TrainConfig`
    loss : function (params, adapter) -> (objective, evaluate) for `train`, to be used instead of the cross-entropy
    progress : str, if only a head is trained, the label of the progress bar for computing its inputs; None: no bar

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
        patience=patience,
        seed=seed,
        shards=shards,
        threads=threads,
    )

    trainable = trainable_arrays(params, adapter)
    if loss is not None:
        objective, measure = loss(params, adapter)
        return plan_of(trainable, objective, epoch_batches, settings, measure, adapter)
    if trainable and trainable.keys() == head_arrays(trainable).keys() and not config.dropout:
        vectors, _ = head_inputs(params, epoch_batches(stream(seed, "shuffle", 0)), config, adapter, threads, progress)
        held_out = head_inputs(params, validation, config, adapter, threads)
        objective = head_objective(vectors, class_weights)
    else:
        held_out, objective = None, model_objective(params, config, adapter, class_weights, recompute)

    def measure(arrays):
        model = attach(params, adapter, arrays)
        if held_out is None:
            return evaluate(model[0], validation, config, model[1], class_weights, threads)
        return evaluate_head(arrays, *held_out, class_weights)

    return plan_of(trainable, objective, epoch_batches, settings, measure, adapter)


def plan_of(trainable, objective, epoch_batches, config, evaluate, adapter):
    """Return a dict of `train`'s arguments; AdaLoRA adds a term to the objective, and a function after each update."""
    objective, after_update = allocating(objective, adapter, config.steps)
    return {
        "trainable": trainable,
        "objective": objective,
        "epoch_batches": epoch_batches,
        "config": config,
        "evaluate": evaluate,
        "after_update": after_update,
    }


def trainable_arrays(params, adapter=None):
    """Return the arrays to train: the adapter's arrays that are not frozen, or all weights if there is no adapter."""
    return params if adapter is None else trained_weights(adapter)


def attach(params, adapter, trainable):
    """Return the base weights and the adapter, with the trained arrays replaced by those in `trainable`.

    Parameters
    ----------
    params : dict of the base weights
    adapter : Adapter whose arrays `trainable` replaces, or None if `trainable` replaces base weights
    trainable : dict of the arrays that are trained: an adapter's weights, or base weights under their names

    Returns
    -------
    params : dict of the base weights, including trained ones
    adapter : Adapter or None
    """
    if adapter is None:
        return {**params, **trainable}, None
    return params, Adapter(adapter.config, {**adapter.weights, **trainable})


def model_objective(params, config, adapter=None, class_weights=None, recompute=False):
    """Return the objective for `train`: a function that computes a shard's loss and the trainable arrays' gradients.

    Parameters
    ----------
    params : dict of the base weights
    config : the model's configuration
    adapter : initial Adapter, or None if base weights are trained
    class_weights : array (n_classes,), see `cross_entropy_forward`, or None
    recompute : bool, see `lora_np.model.forward`

    Returns
    -------
    function (trainable, batch, rng, release=None) -> Objective; rng draws the dropout masks
    """

    def objective(trainable, batch, rng, release=None):
        model, attached = attach(params, adapter, trainable)
        dtype = params["tok_emb.weight"].dtype
        masks = draw_masks(config, batch.ids.shape, rng, attached, dtype)
        wanted = tuple(trainable)
        return loss_and_gradients(model, batch, config, attached, wanted, masks, class_weights, recompute, release)

    objective.in_parts = True
    return objective


def adapter_optimiser(adapter=None, weight_decay=0.01):
    """Return AdamW with the learning-rate factors of an adapter's configuration (`AdapterConfig.rate_factors`)."""
    factors = {} if adapter is None else adapter.config.rate_factors
    return AdamW(weight_decay=weight_decay, rate_factors=factors)
