"""Labelled rows in, a bundle out: fine-tuning, and the corpus of the quickstart."""
