"""Sudoku for models that reason on grids: puzzles as arrays, their rules and their symmetries; knows no model.

grids.py      tokens of a grid, what it breaks, lines of 81 characters (pure)
views.py      symmetries of a grid, each with its inverse (pure)
augment.py    many grids at once, each in a symmetric form of its own (pure)
search.py     puzzles solved, rated by guesses and made, compiled (pure)
canonical.py  which full grids are views of one another, compiled (pure)
strata.py     how hard puzzles are, by guesses, and shares of each (pure)
lists.py      files with a puzzle a line
build.py      `assay sudoku build`: all of it into a folder; findings.py says what came of it
settings.py   what a user may set
puzzles.py    the arrays of one split, read and written in the layout of HRM and TRM
"""
