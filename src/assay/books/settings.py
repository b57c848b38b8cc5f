"""What a user may set for the texts of books. Imports nothing heavy: the command line is made from it."""

from typing import Literal

Typography = Literal["normal", "raw"]
"""Quotes, dashes and dots of one form, or a book's own."""
