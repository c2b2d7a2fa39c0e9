"""Pages for a browser: the playground, which trains in the page, and the explorer of an adapter."""

from .assemble import playground
from .explore import explore

__all__ = ["explore", "playground"]
