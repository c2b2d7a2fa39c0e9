"""Choose learning rates by validation loss, with the same search for all methods and domains."""

import math
from functools import partial
from pathlib import Path

from ..formats import check_file, check_folder, model_place, read_json, write_json
from .methods import FEW, MORE_SEEDS, SETTINGS, TUNE_SEED, TUNE_SEEDS, run_at
from .recipes import dialect
from .runs import BASES
from .store import STORE, carry_out_all, made_with

MOST_STEPS = 5  # rates that are more than this many factors of 2 from the first rate are not tried


def tune(names=None, out=SETTINGS, store=STORE, workers=None, report=print):
    """For each of several methods, find the learning rate with the lowest mean validation loss.

    The search starts at the rate in settings.json, and keeps trying half and twice the best rate found so far until
    both are worse. A rate at which a run diverges is treated as the worst. All runs are stored, so an interrupted
    search can be resumed, and methods that need the same run share it. The test split is never read.

    Parameters
    ----------
    names : list of str, the names of the rates to tune; other rates in the file are kept. None: all, which takes hours
    out : path of the JSON file that the experiments read; a rate is written when its search ends
    store, workers, report : see `store.carry_out_all`

    Returns
    -------
    dict: "chosen", name -> rate; "tried", name -> {rate: mean loss in nats, None if a run diverged}; "made_with",
        name -> the digest of the runs' code

    Raises
    ------
    ValueError
        If an argument is invalid, or if a run fails; finished runs are stored.
    """
    tunable = rates_to_tune()
    for name in names or ():
        if name not in tunable:
            raise ValueError(f"methods: got {name!r}, expected one or more of {'; '.join(tunable)}")
    check_file(out, "out", (store,))
    check_folder(store, "store")
    settings = read_json(out) if Path(out).exists() else {"chosen": {}, "tried": {}, "made_with": {}}
    if not (isinstance(settings, dict) and {"chosen", "tried", "made_with"} <= settings.keys()):
        raise ValueError(f"out: {out} does not contain learning rates; expected a new file or one written by tune")
    for base in {name.partition(",")[0] for name in names or tunable} & set(BASES):
        model_place(base)  # if it is missing, raises an error that says how to install it
    losses = {name: {} for name in names or tunable}
    while wanted := {
        (name, rate): tunable[name][1](rate)
        for name, of_rate in losses.items()
        for rate in untried(tunable[name][0], of_rate)
    }:
        results, failed, _ = carry_out_all([run for runs in wanted.values() for run in runs], store, workers, report)
        if failed:
            raise ValueError(f"{len(failed)} runs failed, the first with {failed[0]['error']}")
        for (name, rate), runs in wanted.items():
            of_rate, of_runs = losses[name], [results.validation_loss(run) for run in runs]
            of_rate[rate] = math.inf if None in of_runs else round(sum(of_runs) / len(of_runs), 5)
            if not untried(tunable[name][0], of_rate):
                settings["chosen"][name] = best_of(of_rate)
                tried = {f"{tried:g}": loss if math.isfinite(loss) else None for tried, loss in sorted(of_rate.items())}
                settings["tried"][name], settings["made_with"][name] = tried, made_with(runs[0].__module__)["code"]
                report(f"{name}: {best_of(of_rate):g}")
        write_json(out, {"command": "python -m lora_np tune"} | settings)
    return settings


def rates_to_tune():
    """A dict, name -> (the rate in settings.json, which is tried first; a function that maps a rate to its runs)."""
    return {name: (rate, partial(runs_to_tune, name)) for name, rate in read_json(SETTINGS)["chosen"].items()}


def runs_to_tune(name, rate):
    """The runs that evaluate a learning rate; `name` is a key in settings.json, such as "minilm, full"."""
    *first, last = name.split(", ")
    if first and first[0] in dialect.DOMAINS:
        return [dialect.run_of(*first, last, TUNE_SEED, rate, test=False)]
    base = first.pop(0) if first and first[0] in BASES else "pretrained"
    key, *size = *first, last
    number, unit = size[0].split() if size else (1, "passes")
    more = FEW[int(number)] if unit == "snippets" else {"epochs": int(number)}
    seeds = range(TUNE_SEED, TUNE_SEED + MORE_SEEDS.get(more.get("examples"), TUNE_SEEDS))
    return [run_at(rate, key, seed, base, test=False, **more) for seed in seeds]


def untried(guess, losses):
    """The rates to try next for one method."""
    centre = best_of(losses) if losses else guess
    rates = [rate for rate in (centre / 2, centre, 2 * centre) if rate not in losses]
    return [rate for rate in rates if 2.0**-MOST_STEPS <= rate / guess <= 2.0**MOST_STEPS]


def best_of(losses):
    """The rate with the lowest loss; if several rates tie, the lowest of them."""
    return min(sorted(losses), key=losses.get)
