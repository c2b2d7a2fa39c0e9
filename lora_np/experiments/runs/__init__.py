"""Training runs: each kind is a dataclass of settings, whose method `carry_out` gives numbers and trained arrays.

A run depends on its settings and on the code that it goes through, and on nothing else; `store.py` keeps it under both.
"""

from functools import lru_cache

from ...formats import load_pretrained

load_base = lru_cache(maxsize=1)(load_pretrained)  # the shipped base, read once a process
