"""The specification as a plain NumPy program, in which `causes.py` plants mistakes.

It shares no code with the package. It uses no chunks, buffers or threads, and computes every gradient.
"""

from .cases import PLAIN

__all__ = ["PLAIN"]
