"""Pairs of chunks as a run: its units are ranges of books.

places.py      where chunks lie in a book -> sides of k chunks that share no sentence (pure)
partners.py    books -> whom a book may be paired with, by kind of negative (pure)
draw.py        one book -> its pairs, the same on every machine (pure)
kind.py, plan.py, work.py, worker.py   the run
"""
