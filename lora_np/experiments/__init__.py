"""Experiments: each recipe is a short file that reads like its method section."""
