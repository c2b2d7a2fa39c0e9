"""Search for better settings within a given time, by macro-F1 on the validation set.

The default settings are tried first, and balanced class weights second. The better of the two is the centre of a search
by successive halving (Jamieson and Talwalkar 2016): many learning rates and ranks are tried for a third of the default
number of epochs, the best third of them for the default number, and the best third of those for three times as many.
Each run has its own complete learning-rate schedule. The defaults are kept unless another trial has a higher macro-F1.
"""

import time
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..training import stream
from .settings import FinetuneSettings

FACTORS = (2.0, 0.5, 4.0)  # of the default learning rate
RANKS = (2, 8, 32)
KEEP = 3  # one in this many settings is trained again, for as many times the epochs
MOST = 27  # settings that are trained in the first round
SLOWER = 5  # training SmolLM2 takes at most about as many times as long as training MiniLM, both with their defaults


class Trial(NamedTuple):
    """Settings that were trained."""

    settings: FinetuneSettings
    class_weights: str
    macro_f1: float  # on the validation set; −1 if the training diverged
    loss: float  # the lowest validation loss, in nats, which decides between settings of the same macro-F1
    seconds: float
    trained: Any  # what `train` returned


def search(train, fits, data, settings, other, minutes, report):
    """Search near the given settings; return what `train` returned for the best ones, and a list of one dict per trial.

    Parameters
    ----------
    train : function (LabelledTable, FinetuneSettings) -> tuple that begins with the data and a Run, and ends with a
        TrainState and the validation set's macro-F1
    fits : function (FinetuneSettings) -> bool, whether the adapter's rank is possible
    data : LabelledTable; if its class weights are balanced, all trials have balanced weights
    settings : FinetuneSettings without None; its learning rate, rank and epochs are the centre of the search
    other : FinetuneSettings with defaults for SmolLM2, which is tried once if there is time, or None
    minutes : float, the time to spend; training with the default settings may take longer
    report : function, called with a line of text for each trial
    """
    deadline, rows, best = time.monotonic() + 60 * minutes, [], None

    def attempt(tried):
        nonlocal best
        trial = carried_out(train, data, tried)
        if best is None or trial.macro_f1 > best.macro_f1:
            best = trial
        rows.append(row_of(trial))
        report("  " + described(rows[-1]))
        return trial._replace(trained=None)

    report(f"searching for {minutes:g} min; the trials, on the validation set:")
    first = attempt(settings)
    settings = first.settings
    if data.class_weights == "none" and time.monotonic() + first.seconds < deadline:
        data, unweighted = data.balanced(), data
        if (second := attempt(settings)).macro_f1 > first.macro_f1:
            first = second
        else:
            data = unweighted
    per_epoch = first.seconds / settings.epochs
    rounds = sorted({max(1, round(settings.epochs * factor)) for factor in (1 / KEEP, 1, KEEP)})
    n = int((deadline - time.monotonic()) / (len(rounds) * rounds[0] * per_epoch))
    field = [tried for tried in candidates(settings) if fits(tried)][: min(n, MOST)]
    for epochs in rounds:
        trials = [first] if epochs == settings.epochs else []
        for tried in field:
            if time.monotonic() + epochs * per_epoch < deadline and replace(tried, epochs=epochs) != settings:
                trials.append(attempt(replace(tried, epochs=epochs)))
        trials = sorted(trials, key=lambda trial: (-trial.macro_f1, trial.loss))
        field = [trial.settings for trial in trials[: -(-len(trials) // KEEP)]]
        if epochs == settings.epochs and time.monotonic() + SLOWER * first.seconds < deadline and other is not None:
            attempt(other)
    if best.trained is None:
        raise FloatingPointError(f"the training diverged at all {len(rows)} settings that were tried")
    report("selected: " + described(row_of(best)) + " (there was no time to compare it)" * (len(rows) == 1))
    return best.trained, rows


def carried_out(train, data, settings):
    """Train with the given settings, and return the Trial."""
    started, trained, macro_f1, loss = time.monotonic(), None, -1.0, np.inf
    try:
        *trained, macro_f1 = train(data, settings)
    except FloatingPointError:
        pass  # the training diverged
    else:
        _, run, *_, state = trained
        settings = run.settings
        loss = float(state.history["eval_loss"][state.history["eval_step"] >= run.plan["config"].select_from].min())
    return Trial(settings, data.class_weights, macro_f1, loss, time.monotonic() - started, trained)


def candidates(settings):
    """Return settings with other learning rates and ranks; those that change only the learning rate come first."""
    of_rate = [replace(settings, learning_rate=factor * settings.learning_rate) for factor in FACTORS]
    if settings.adapter is None:
        return of_rate
    scale = settings.adapter.alpha / settings.adapter.r
    pairs = [(of, r) for of, r in product([*of_rate, settings], RANKS) if r != settings.adapter.r]
    order = stream(settings.seed, "sample").permutation(len(pairs))
    of_rank = [replace(of, adapter=replace(of.adapter, r=r, alpha=scale * r)) for of, r in (pairs[i] for i in order)]
    return of_rate + of_rank


def described(row):
    """Format the result of `row_of`."""
    return ", ".join(f"{name.replace('_f1', '-F1').replace('_', ' ')} {value}" for name, value in row.items())


def row_of(trial):
    """A trial as a dict for `task.json`."""
    settings = trial.settings
    values = {"base": str(settings.base or "pretrained"), "rank": settings.adapter and settings.adapter.r}
    values |= {"learning_rate": settings.learning_rate, "epochs": settings.epochs}
    values["class_weights"] = trial.class_weights
    measured = {"macro_f1": round(trial.macro_f1, 4), "loss": round(trial.loss, 4)}
    if trial.trained is None:  # the training diverged
        measured = dict.fromkeys(measured)
    return values | measured | {"seconds": round(trial.seconds)}
