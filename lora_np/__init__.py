"""LoRA (low-rank adaptation) from scratch in NumPy, every gradient written by hand."""

__version__ = "0.1.0"
