"""Training runs: each kind is a dataclass of settings, whose method `carry_out` gives numbers and trained arrays.

A run depends on its settings and on the code that it goes through, and on nothing else; `store.py` keeps it under both.
"""

from functools import lru_cache

from ...formats import PRETRAINED, read_model

BASES = ("pretrained", "smollm2")  # the small base, which comes with the package, and SmolLM2-135M-Instruct


@lru_cache(maxsize=2)
def load_base(name="pretrained"):
    """One of BASES as a Task with dense weights, read once a process."""
    return read_model(PRETRAINED if name == "pretrained" else name)
