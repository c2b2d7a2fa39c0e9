"""The graded exercises: a folder for each set, and in it a file for each exercise."""
