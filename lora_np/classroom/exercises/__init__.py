"""The graded exercises: a folder for each set, with a file for each exercise."""

__all__ = []  # `classroom/sets.py` imports the folders by name
