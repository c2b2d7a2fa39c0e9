"""Experiments: each recipe is a short file that reads like its method section."""

__all__ = []  # import from the modules, such as `laboratory`
