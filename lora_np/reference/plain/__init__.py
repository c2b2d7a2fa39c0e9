"""The specification as a plain program: what a port would be in NumPy, and what `causes.py` makes mistakes in.

It shares nothing with the package, and computes what the package computes with other code: without blocks, buffers or
threads, and with every gradient.
"""

from .cases import PLAIN

__all__ = ["PLAIN"]
