"""The specification as a plain program: a port to NumPy, and the program in which `causes.py` makes mistakes.

It shares no code with the package. It has no blocks, buffers or threads, and computes every gradient.
"""

from .cases import PLAIN

__all__ = ["PLAIN"]
