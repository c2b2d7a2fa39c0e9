"""Lessons and exercises: what the notebooks share, and checks that say which gradient is wrong, and how."""

__all__ = ["check", "lesson"]
