"""Experiments: each recipe is a short file whose docstring describes the method."""

__all__ = []  # import from the modules, such as `laboratory`
