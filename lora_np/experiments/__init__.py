"""Experiments: each recipe is a short file whose docstring is its method section."""

__all__ = []  # import from the modules, such as `laboratory`
