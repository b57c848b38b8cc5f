"""Outcomes: what becomes of a model's outputs. Pure values and functions; touches no tensor and no file."""
