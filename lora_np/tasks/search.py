"""Search for better settings on the validation set within a given time, by successive halving.

Many settings are tried for a third of the default number of epochs, the best third of them for the default number, and
the best third of those for three times as many (Jamieson and Talwalkar 2016). Each run has its own complete
learning-rate schedule. The default settings are tried first, so the validation loss of the result never exceeds theirs.
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
SLOWER = 10  # an epoch with SmolLM2 takes about as many times as long as one with MiniLM


class Trial(NamedTuple):
    """Settings that were trained."""

    settings: FinetuneSettings
    loss: float  # the lowest validation loss, in nats; infinite if the training diverged
    seconds: float
    trained: Any  # what `train` returned


def search(train, fits, settings, other, minutes, report):
    """Search near the given settings; return what `train` returned for the best ones, and a list of one dict per trial.

    Parameters
    ----------
    train : function (FinetuneSettings) -> tuple that begins with a Run and ends with a TrainState
    fits : function (FinetuneSettings) -> bool, whether the adapter's rank is possible
    settings : FinetuneSettings without None; its learning rate, rank and epochs are the centre of the search
    other : FinetuneSettings with defaults for SmolLM2, which is tried once if there is time, or None
    minutes : float, the time to spend; training with the default settings may take longer
    report : function, called with a line of text for each trial
    """
    deadline, rows, best = time.monotonic() + 60 * minutes, [], None

    def attempt(tried):
        nonlocal best
        trial = carried_out(train, tried)
        if best is None or trial.loss < best.loss:
            best = trial
        rows.append(row_of(trial))
        report("  " + described(rows[-1]))
        return trial._replace(trained=None)

    report(f"searching for {minutes:g} min; validation loss of each trial:")
    first = attempt(settings)
    settings = first.settings
    per_epoch = first.seconds / settings.epochs
    rounds = sorted({max(1, round(settings.epochs * factor)) for factor in (1 / KEEP, 1, KEEP)})
    n = int((deadline - time.monotonic()) / (len(rounds) * rounds[0] * per_epoch))
    field = [tried for tried in candidates(settings) if fits(tried)][: min(n, MOST)]
    for epochs in rounds:
        trials = [first] if epochs == settings.epochs else []
        for tried in field:
            if time.monotonic() + epochs * per_epoch < deadline and replace(tried, epochs=epochs) != settings:
                trials.append(attempt(replace(tried, epochs=epochs)))
        trials = sorted(trials, key=lambda trial: trial.loss)
        field = [trial.settings for trial in trials[: -(-len(trials) // KEEP)]]
        if epochs == settings.epochs and time.monotonic() + SLOWER * per_epoch < deadline and other is not None:
            attempt(other)
    if best.trained is None:
        raise FloatingPointError(f"the training diverged at all {len(rows)} settings that were tried")
    report("selected: " + described(row_of(best)) + " (there was no time to compare it)" * (len(rows) == 1))
    return best.trained, rows


def carried_out(train, settings):
    """Train with the given settings, and return the Trial."""
    started, trained, loss = time.monotonic(), None, np.inf
    try:
        trained = train(settings)
    except FloatingPointError:
        pass  # the training diverged
    else:
        run, *_, state = trained
        settings = run.settings
        loss = float(state.history["eval_loss"][state.history["eval_step"] >= run.plan["config"].select_from].min())
    return Trial(settings, loss, time.monotonic() - started, trained)


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
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items())


def row_of(trial):
    """A trial as a dict for `task.json`."""
    settings = trial.settings
    values = {"base": str(settings.base or "pretrained"), "rank": settings.adapter and settings.adapter.r}
    values |= {"learning_rate": settings.learning_rate, "epochs": settings.epochs}
    return values | {"loss": round(trial.loss, 4) if np.isfinite(trial.loss) else None, "seconds": round(trial.seconds)}
