"""Training runs: each kind is a dataclass of settings, whose `carry_out` method returns numbers and trained arrays.

A run's result depends only on its settings and on the code that it uses; `store.py` stores it under both.
"""

from functools import lru_cache

from ...formats import PRETRAINED, read_model

__all__ = ["BASES", "load_base"]

BASES = ("pretrained", "smollm2")  # the small base, which comes with the package, and SmolLM2-135M-Instruct


@lru_cache(maxsize=2)
def load_base(name="pretrained"):
    """Load one of BASES as a LoadedModel with dense weights; it is read only once per process."""
    return read_model(PRETRAINED if name == "pretrained" else name)
