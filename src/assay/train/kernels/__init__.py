"""Elementwise passes of training with their gradients: in Triton, and in plain torch beside it."""
