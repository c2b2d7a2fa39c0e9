"""Lessons and exercises: helpers for notebooks, and checks that find and describe incorrect gradients."""

__all__ = ["check", "lesson"]
