"""Choosing learning rates on validation, each method's on its own."""

import math
from contextlib import closing
from pathlib import Path

from ..formats import read_json, write_json
from .run_store import made_with
from .runs import carry_out
from .sweep import sweep

MOST_STEPS = 5  # of a factor 2, away from the first guess


def choose_rates(guesses, runs_of, out, command, executor=None, report=print):
    """Find the learning rate of the least mean validation loss for each of several methods; write the JSON.

    A rate is tried at half and at twice the guess, and further on the better side until the best has a worse one on
    each side; one at which a run diverges counts as worse than any. The file is written after every rate, and what it
    holds is not run again: a choice that was stopped goes on, and to start over, the file or a method's entry in it is
    deleted.

    Parameters
    ----------
    guesses : dict, method -> the rate that is tried first
    runs_of : function (method, rate) -> list of runs, whose numbers have "validation_loss", None of one that diverged
    out : where to write
    command : str, what made it, for the file
    executor : concurrent.futures.Executor, see `sweep`
    report : function of a line of text

    Returns
    -------
    dict, method -> learning rate

    Raises
    ------
    ValueError
        If runs failed; what finished is kept.
    """
    before = read_json(out) if Path(out).exists() else {}
    if before and before.get("made_with") != made_with():
        report(f"{out} was begun with another version of the code; what it holds is kept. To start over, delete it")
    tried = before.get("tried", {})
    tried = {
        key: {float(rate): math.inf if loss is None else loss for rate, loss in losses.items()}
        for key, losses in tried.items()
    }
    while wanted := [(key, rate) for key, guess in guesses.items() for rate in untried(guess, tried.get(key, {}))]:
        of_rate = {pair: runs_of(*pair) for pair in wanted}
        pairs = {id(run): pair for pair, runs in of_rate.items() for run in runs}
        losses, failed = {pair: [] for pair in wanted}, []
        with closing(sweep(numbers_of, [run for runs in of_rate.values() for run in runs], executor)) as endings:
            for run, numbers, error, _ in endings:
                key, rate = pair = pairs[id(run)]
                if error is None:
                    loss = numbers["validation_loss"]
                    losses[pair].append(math.inf if loss is None else loss)
                    said = "diverged" if loss is None else f"validation {loss:.4f} nats"
                else:
                    failed.append(error)
                    said = f"FAILED: {error}"
                if len(losses[pair]) == len(of_rate[pair]):
                    tried.setdefault(key, {})[rate] = round(sum(losses[pair]) / len(losses[pair]), 5)
                    write_rates(out, command, guesses, tried)
                report(f"{key:<24} lr {rate:<10g} {said}")
        if failed:
            raise ValueError(f"{len(failed)} of {len(pairs)} runs failed, the first with {failed[0]}")
    return write_rates(out, command, guesses, tried)


def numbers_of(run):
    return carry_out(run)[0]


def untried(guess, losses):
    """The rates that are still to be tried for one method."""
    first = [rate for rate in (guess / 2, guess, 2 * guess) if rate not in losses]
    if first:
        return first
    best = best_of(losses)
    rates = [rate for rate in (best / 2, 2 * best) if rate not in losses]
    return [rate for rate in rates if 2.0**-MOST_STEPS <= rate / guess <= 2.0**MOST_STEPS]


def best_of(losses):
    """The rate of the least loss; the lowest of several, whichever was tried first."""
    return min(sorted(losses), key=losses.get)


def write_rates(out, command, guesses, tried):
    """Write what was tried and chosen, in the order of the methods; give the chosen."""
    tried = {key: dict(sorted(tried[key].items())) for key in guesses if key in tried}
    chosen = {key: best_of(losses) for key, losses in tried.items()}
    written = {
        key: {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in losses.items()}
        for key, losses in tried.items()
    }
    write_json(out, {"command": command, "made_with": made_with(), "chosen": chosen, "tried": written})
    return chosen
