"""Pages for a browser: the playground, which trains in the page, and the explorer of an adapter."""

from .explore import explore
from .playground import playground

__all__ = ["explore", "playground"]
