"""The laboratory's training runs: each kind is a dataclass of settings, and a function of it.

What a run gives depends on its settings, on the rooms below this one and on the files of this folder, and on
nothing else: that is what the store keeps it under (`run_store.py`).
"""

from .classify import ClassifyRun, classify_run
from .dialect import DialectRun, dialect_run
from .planted import PlantedRun, planted_run

RUNNERS = {ClassifyRun: classify_run, DialectRun: dialect_run, PlantedRun: planted_run}


def carry_out(run):
    """A run of any kind.

    Returns
    -------
    numbers : dict of plain numbers and lists, ready for JSON
    arrays : dict of arrays, such as what was trained; empty where the run asks for none
    """
    return RUNNERS[type(run)](run)
