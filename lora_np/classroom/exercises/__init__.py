"""The graded exercises: one folder per set, one file per exercise."""

__all__ = []  # `classroom/sets.py` imports all folders
