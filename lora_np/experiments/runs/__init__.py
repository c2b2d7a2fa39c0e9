"""Training runs: each kind is a dataclass of settings with a single-threaded method `carry_out`.

`carry_out` returns a dict of numbers, ready for JSON, and a dict of the best checkpoint's trained arrays (empty
unless the run has keep=True). It raises FloatingPointError if training diverges; see `train`. The result depends
only on the settings and on the code that the run uses; `store.py` stores it under a key derived from both.
"""

from dataclasses import replace
from functools import lru_cache

from ...formats import PRETRAINED, read_model

__all__ = ["BASES", "load_base"]

# The small base comes with the package, MiniLM and SmolLM2-135M-Instruct with packages of their own.
BASES = {"minilm": "MiniLM", "smollm2": "SmolLM2", "pretrained": "the small base"}


@lru_cache(maxsize=2)
def load_base(name="pretrained"):
    """Load one of BASES, dense and without dropout, as a LoadedModel; each base is read only once per process."""
    loaded = read_model(PRETRAINED if name == "pretrained" else name)
    return loaded._replace(config=replace(loaded.config, dropout=0.0))
