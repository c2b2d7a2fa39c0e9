"""Browser pages: the playground, which trains a model in the browser, and the explorer, which describes an adapter."""

from .assemble import playground
from .explore import explore

__all__ = ["explore", "playground"]
