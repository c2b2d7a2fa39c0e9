"""Lessons and exercises: helpers for notebooks, and checks that find and explain mistakes."""

__all__ = ["check", "lesson"]
