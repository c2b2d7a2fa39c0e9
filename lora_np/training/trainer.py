"""The training loop: a pure function of the initial weights, the data, the settings and the seed."""

import math
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np

from ..checked import check_fields, finite_number, one_of, seed_number, whole_number
from .accumulate import GradientSum, mean_loss, split_batch
from .adamw import AdamW, adamw_update
from .clip import clip_factor, global_norm, norm_of_squares, square
from .progress import progress_of
from .schedule import SCHEDULES, learning_rate_at
from .state import Saver, TrainState, load_state
from .streams import stream
from .threads import MOST_THREADS, blas_threads, shard_threads


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    steps : int, total number of optimiser steps
    learning_rate : float, the peak learning rate
    schedule, warmup_steps, final_share : see `learning_rate_at`
    optimiser : AdamW
    clip_norm : float above 0, or None for no clipping; see `clip_by_global_norm`
    shards : int, number of shards that each batch is split into (gradient accumulation)
    threads : int, number of shards processed in parallel; affects the running time, not the results; see `threads.py`
    eval_every : int, steps between evaluations; 0: only after the last step
    select_from : int, the first step whose evaluation can be selected as the best; see `settled_from`
    patience : int, training stops after this many evaluations in a row without a new best; None: it never stops early
    save_every : int, steps between saves of the state, if `train` has a `state_path`
    seed : int
    """

    steps: int
    learning_rate: float
    schedule: str = "linear"
    warmup_steps: int = 0
    final_share: float = 0.0
    optimiser: AdamW = field(default_factory=AdamW)
    clip_norm: float | None = 1.0
    shards: int = 1
    threads: int = 1
    eval_every: int = 0
    select_from: int = 0
    patience: int | None = None
    save_every: int = 100
    seed: int = 0

    def __post_init__(self):
        check_fields(self, whole_number, "steps", "shards", "save_every")
        check_fields(self, whole_number, "threads", most=MOST_THREADS)
        check_fields(self, whole_number, "eval_every", "warmup_steps", "select_from", least=0)
        check_fields(self, seed_number, "seed")
        if self.patience is not None:
            check_fields(self, whole_number, "patience")
        if self.select_from > self.steps:
            raise ValueError(f"select_from: got {self.select_from}, expected at most steps = {self.steps}")
        check_fields(self, one_of, "schedule", choices=SCHEDULES)
        check_fields(self, finite_number, "learning_rate", above=0)
        check_fields(self, finite_number, "final_share")
        if self.clip_norm not in (None, math.inf):  # if it is infinite, the norm is computed, but nothing is clipped
            check_fields(self, finite_number, "clip_norm", above=0)


def train(
    trainable,
    objective,
    epoch_batches,
    config,
    evaluate=None,
    on_step=None,
    state_path=None,
    label="",
    after_update=None,
    progress=None,
    save_seconds=None,
    resume=True,
    workers=None,
):
    """Train a flat dict of arrays. Each matrix product uses one BLAS thread; see `threads.py`.

    Parameters
    ----------
    trainable : dict of arrays to start from; it is not changed
    objective : function (trainable, batch, rng) -> Objective (loss, n_targets, grads); rng is for dropout masks and
        depends only on the seed, the step and the shard. If it has a true attribute `in_parts`, it also accepts the
        argument `release` of `lora_np.model.loss_and_gradients`, which saves memory
    epoch_batches : function (rng) -> list of the batches of one epoch; rng depends only on the seed and the epoch's
        number. Every epoch must have as many batches as the first.
    config : TrainConfig
    evaluate : None, or a function (trainable) -> dict of floats, including the "loss" by which the best weights are
        selected. It must not keep references to the arrays, because the next step overwrites them
    on_step : function (step, dict of floats), called after each step, for logging
    state_path : file to save the state in; if the file exists, the run resumes from it, see `resume`
    label : str, describes everything besides `config` that the run depends on, such as the data and the model. The
        label is saved together with `config`, and a state with a different label is rejected.
    after_update : function (step, trainable, grads, memory), called after each step's update. It may write to
        `trainable` and to `memory`, a dict of arrays that is saved with the state; see `allocating`
    progress : str, the title of the progress bar, or of the line printed every minute; see `progress.py`. None: no
        progress is shown
    save_seconds : float, seconds between saves; the interval is longer if saving would otherwise take more than a
        twentieth of the running time. None: save every config.save_every steps, and after the last step
    resume : bool; False: the run starts from scratch, and its first save overwrites any existing state
    workers : `cluster.Workers` that compute the shards, or None to compute them in this process

    Returns
    -------
    TrainState
        `best` has the arrays at the best evaluation, or, without `evaluate`, those after the last step. `history` has
        an array over steps for each of "loss", "learning_rate" and "grad_norm", and an array over evaluations for
        "eval_step", "eval_loss" and every other value that `evaluate` returned.

    Raises
    ------
    FloatingPointError
        If the loss, the gradient or an evaluation is no longer finite.
    """
    label = whole_label(config, label)
    if resume and state_path is not None and os.path.exists(state_path):
        state = load_state(state_path, label, trainable)
    else:
        state = initial_state(trainable)
    history = {name: list(values) for name, values in state.history.items()}
    state = state._replace(history=history)

    @lru_cache(maxsize=1)
    def batches_of(epoch):
        return epoch_batches(stream(config.seed, "shuffle", epoch))

    n_batches = len(batches_of(0))
    if not n_batches:
        raise ValueError("epoch_batches: got no batches, expected at least one")

    saver = Saver(state_path, label, config.save_every, save_seconds)
    showing = progress_of(progress, state.step, config.steps, config.eval_every or config.steps)
    with blas_threads(1), shard_threads(config.threads) as run, showing as show:
        while state.step < config.steps and not is_exhausted(history, config):
            epoch, index = divmod(state.step, n_batches)
            batches = batches_of(epoch)
            if len(batches) != n_batches:
                got = f"got {len(batches)} batches in epoch {epoch}"
                raise ValueError(f"epoch_batches: {got}, expected {n_batches} as in the first epoch")
            state, measured = train_step(state, objective, batches[index], config, run, after_update, workers)
            for name, value in measured.items():
                history.setdefault(name, []).append(value)

            last = state.step == config.steps
            is_time = config.eval_every and state.step % config.eval_every == 0
            evaluates = evaluate is not None and (last or is_time)
            show.stepped(state.step, measured["loss"], batches[index], evaluates)
            if evaluates:
                scores = evaluate(state.trainable)
                if improves(scores, history, state.step, config):
                    state = state._replace(best={name: array.copy() for name, array in state.trainable.items()})
                scores = {f"eval_{name}": value for name, value in scores.items()}
                for name, value in {"eval_step": state.step, **scores}.items():
                    history.setdefault(name, []).append(value)
                measured |= scores
            elif last and evaluate is None:
                state = state._replace(best=state.trainable)
            saver.stepped(state, last)
            if on_step is not None:
                on_step(state.step, measured)
            show.resumes()
    return state._replace(history={name: np.array(values) for name, values in history.items()})


def whole_label(config, label):
    """The label of a saved state: the settings that affect the results, followed by `label`."""
    return repr(replace(config, threads=1, save_every=1)) + label


def is_exhausted(history, config):
    """Whether at least `patience` evaluations have passed since the best one."""
    losses = selectable_losses(history, config)
    return config.patience is not None and bool(losses) and len(losses) > losses.index(min(losses)) + config.patience


def selectable_losses(history, config):
    """The losses of the evaluations that could be selected as the best, in order."""
    steps = zip(history.get("eval_step", []), history.get("eval_loss", []))
    return [loss for step, loss in steps if step >= config.select_from]


def improves(scores, history, step, config):
    """Return whether an evaluation has the lowest loss since `select_from`; raise an error if a score is not finite."""
    for name, value in scores.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"the evaluation's {name} became {value} after step {step}")
    return step >= config.select_from and scores["loss"] < min(selectable_losses(history, config), default=math.inf)


def initial_state(trainable):
    """The state before the first step. Its arrays are copies, because `train_step` writes into them."""
    copies = {name: np.array(array, order="C") for name, array in trainable.items()}
    m, v = ({name: np.zeros_like(array) for name, array in copies.items()} for _ in range(2))
    return TrainState(0, copies, m, v, {}, {}, {})


def train_step(state, objective, batch, config, run=map, after_update=None, workers=None):
    """Take one optimiser step.

    Parameters
    ----------
    state : TrainState; its arrays are overwritten, so it cannot be used again
    objective, batch, config : see `train`
    run : `map`, or a thread pool's `map`
    after_update, workers : see `train`

    Returns
    -------
    state : TrainState, the state after the step
    measured : dict, this step's loss, learning rate and gradient norm
    """
    step, shards = state.step, split_batch(batch, config.shards)
    if not shards:
        raise ValueError("targets: all in the batch are ignored, expected at least one that is not ignored")
    shape = config.schedule, config.warmup_steps, config.final_share
    learning_rate = learning_rate_at(step, config.steps, config.learning_rate, *shape)
    grads, squares = {}, {}

    def update(grads, scale=1.0, run=map):
        arrays = [{name: group[name] for name in grads} for group in (state.trainable, state.m, state.v)]
        params, *moments = arrays
        adamw_update(params, grads, *moments, step + 1, learning_rate, config.optimiser, run, arrays, scale)

    def update_at_once(part):
        squares.update({name: square(grad) for name, grad in part.items()})
        update(part)

    at_once = config.clip_norm is None and after_update is None  # nothing needs all gradients
    total = GradientSum(len(shards), update_at_once if at_once else grads.update)

    def compute(index, shard):
        take, rng = partial(total.take, index), stream(config.seed, "masks", step, index)
        more = {"release": take} if getattr(objective, "in_parts", False) else {}
        result = objective(state.trainable, shard, rng, **more)
        take(result.grads, result.n_targets)
        return result

    if workers is None:
        results = list(run(compute, range(len(shards)), shards))
    else:
        results = [None] * len(shards)
        for index, result in workers.compute(objective, state.trainable, shards, config.seed, step):
            total.take(index, result.grads, result.n_targets)
            results[index] = result
    loss, _ = mean_loss(results)
    if at_once:
        norm = norm_of_squares(squares, {name: state.trainable[name] for name in total.order})
    else:
        grads = {name: grads[name] for name in total.order}
        norm = global_norm(grads, run)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        remedy = f"a learning rate below {config.learning_rate} usually helps"
        raise FloatingPointError(f"the loss became {loss} (gradient norm {norm}) at step {step + 1}; {remedy}")
    factor = clip_factor(norm, config.clip_norm)
    if after_update is not None and factor != 1.0:
        grads, factor = {name: grad * factor for name, grad in grads.items()}, 1.0
    if not at_once:
        update(grads, factor, run)
    if after_update is not None:
        after_update(step + 1, state.trainable, grads, state.memory)
    measured = {"loss": loss, "learning_rate": learning_rate, "grad_norm": norm}
    return state._replace(step=step + 1), measured
