"""Held-out logits in, calibrated probabilities out."""
