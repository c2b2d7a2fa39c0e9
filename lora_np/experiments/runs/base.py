"""The shipped base, read once a process."""

from functools import lru_cache

from ...formats import load_pretrained

load_base = lru_cache(maxsize=1)(load_pretrained)
