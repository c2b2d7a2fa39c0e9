"""The training loop: a pure function of the start, the data, the settings and the seed."""

import math
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from .accumulate import accumulated_gradients, split_batch
from .adamw import AdamW, adamw_update
from .clip import clip_by_global_norm
from .schedule import SCHEDULES, learning_rate_at
from .state import TrainState, load_state, save_state
from .streams import stream
from .threads import shard_threads

SELECT = {"loss": -1.0, "accuracy": 1.0}  # the measures that can choose the best: lower, higher


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run.

    Parameters
    ----------
    steps : int, optimiser steps in all
    learning_rate : float, the peak
    schedule, warmup_steps, final_share : see `learning_rate_at`
    optimiser : AdamW
    clip_norm : float or None, the longest gradient
    shards : int, parts that each batch is cut into (gradient accumulation)
    threads : int, how many shards are worked on side by side; changes the time and no number; see `threads.py`
    eval_every : int, steps between evaluations; 0: after the last step alone
    select : "loss" or "accuracy", the measure by which the best is kept
    select_from : int, the first step whose evaluation may be the best, where the model is not yet what it is to be
        before; see `rank_allocation.settled_from`
    save_every : int, steps between saves of the state, where there is a path for it
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
    select: str = "loss"
    select_from: int = 0
    save_every: int = 100
    seed: int = 0

    def __post_init__(self):
        at_least_one = ("steps", "shards", "threads", "save_every")
        at_least_zero = ("eval_every", "warmup_steps", "select_from", "seed")
        for name, least in [(n, 1) for n in at_least_one] + [(n, 0) for n in at_least_zero]:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name}: got {value!r}, expected a whole number of at least {least}")
        if self.select_from > self.steps:
            raise ValueError(f"select_from: got {self.select_from}, expected at most steps = {self.steps}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate: got {self.learning_rate}, expected a number above 0")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule: got {self.schedule!r}, expected one of {', '.join(SCHEDULES)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: got {self.clip_norm}, expected a number above 0, or None")
        if self.select not in SELECT:
            raise ValueError(f"select: got {self.select!r}, expected one of {', '.join(SELECT)}")
        for name in ("learning_rate", "final_share", "clip_norm"):
            if getattr(self, name) is not None:  # NumPy's scalars would turn float32 arrays into float64
                object.__setattr__(self, name, float(getattr(self, name)))


def train(
    trainable,
    objective,
    epoch_batches,
    config,
    evaluate=None,
    on_step=None,
    state_path=None,
    label="",
    adjust=None,
):
    """Train a flat dict of arrays.

    Parameters
    ----------
    trainable : dict of arrays to start from; left as it is
    objective : function (trainable, batch, rng) -> Objective (loss, n_targets, grads); rng is for
        dropout masks and depends on the seed, the step and the shard alone
    epoch_batches : function (rng) -> list of the batches of one epoch; rng depends on the seed and
        the number of the epoch alone. Every epoch must have as many batches as the first.
    config : TrainConfig
    evaluate : function (trainable) -> dict of floats with config.select among them, or None; the arrays
        are the run's own, and its next step writes into them
    on_step : function (step, dict of floats), called after each step, for a progress bar or a log
    state_path : where to keep the state; a state that is there already is gone on from
    label : str, what else the run depends on (data, model), in any words: with the settings it is kept
        in the state, and a state of another label is refused
    adjust : function (step, trainable, grads, memory), called after each step's update and free to write into
        trainable and memory, a dict of arrays that is kept with the state; see `rank_allocation.allocating`

    Returns
    -------
    TrainState
        `best` holds the arrays of the best evaluation (the last ones without `evaluate`); `history`
        has plain arrays over steps: "loss", "learning_rate", "grad_norm"; and over evaluations:
        "eval_step", "eval_loss", … for each measure that `evaluate` returned.

    Raises
    ------
    FloatingPointError
        When the loss, the gradient or an evaluation is no longer finite.
    """
    label = repr(replace(config, threads=1, save_every=1)) + label  # the two that change no number
    if state_path is not None and os.path.exists(state_path):
        state = load_state(state_path, label, trainable)
    else:
        state = initial_state(trainable)
    history = {name: list(values) for name, values in state.history.items()}

    @lru_cache(maxsize=1)
    def batches_of(epoch):
        return epoch_batches(stream(config.seed, "shuffle", epoch))

    n_batches = len(batches_of(0))
    if not n_batches:
        raise ValueError("epoch_batches: got no batches, expected at least one")

    with shard_threads(config.threads) as run:
        while state.step < config.steps:
            epoch, index = divmod(state.step, n_batches)
            batches = batches_of(epoch)
            if len(batches) != n_batches:
                raise ValueError(
                    f"epoch_batches: epoch {epoch} has {len(batches)} batches, expected {n_batches} as the first"
                )
            state, measured = train_step(state, objective, batches[index], config, run, adjust)
            for name, value in measured.items():
                history.setdefault(name, []).append(value)

            last = state.step == config.steps
            if evaluate is not None and (last or (config.eval_every and state.step % config.eval_every == 0)):
                scores = evaluate(state.trainable)
                for name, value in scores.items():
                    if not math.isfinite(value):
                        raise FloatingPointError(f"the evaluation's {name} became {value} after step {state.step}")
                sign, evaluations = SELECT[config.select], history.get(f"eval_{config.select}", [])
                past = [sign * v for s, v in zip(history.get("eval_step", []), evaluations) if s >= config.select_from]
                if state.step >= config.select_from and sign * scores[config.select] > max(past, default=-math.inf):
                    best = {name: array.copy() for name, array in state.trainable.items()}
                    state = state._replace(best=best)
                for name, value in {"step": state.step, **scores}.items():
                    history.setdefault(f"eval_{name}", []).append(value)
                measured = {**measured, **{f"eval_{name}": value for name, value in scores.items()}}
            elif last and evaluate is None:
                state = state._replace(best=state.trainable)
            save = state_path is not None and (last or state.step % config.save_every == 0)
            if last or save:  # the history grows with the steps: made into arrays where they are read
                state = state._replace(history={name: np.array(values) for name, values in history.items()})
            if save:
                save_state(state_path, state, label)
            if on_step is not None:
                on_step(state.step, measured)
    return state


def initial_state(trainable):
    """The state before the first step, with arrays of its own: `train_step` writes into them."""
    copies = {name: np.array(array, order="C") for name, array in trainable.items()}
    m, v = ({name: np.zeros_like(array) for name, array in copies.items()} for _ in range(2))
    return TrainState(0, copies, m, v, {}, {}, {})


def train_step(state, objective, batch, config, run=map, adjust=None):
    """One optimiser step.

    Parameters
    ----------
    state : TrainState; its trainable arrays and moments are written into, so it is used up
    objective, batch, config : see `train`
    run : `map`, or a pool's `map`
    adjust : see `train`

    Returns
    -------
    state : TrainState, the next one
    measured : dict, this step's loss, learning rate and gradient norm
    """
    step = state.step

    def shard_objective(index, shard):
        return objective(state.trainable, shard, stream(config.seed, "masks", step, index))

    loss, grads = accumulated_gradients(shard_objective, split_batch(batch, config.shards), run)
    grads, norm = clip_by_global_norm(grads, config.clip_norm, run)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"the loss became {loss} (gradient norm {norm}) at step {step + 1}; "
            f"a lower learning rate than {config.learning_rate} usually helps"
        )
    learning_rate = learning_rate_at(
        step, config.steps, config.learning_rate, config.schedule, config.warmup_steps, config.final_share
    )
    groups = state.trainable, state.m, state.v
    adamw_update(state.trainable, grads, state.m, state.v, step + 1, learning_rate, config.optimiser, run, groups)
    if adjust is not None:
        adjust(step + 1, state.trainable, grads, state.memory)
    measured = {"loss": loss, "learning_rate": learning_rate, "grad_norm": norm}
    return state._replace(step=step + 1), measured
