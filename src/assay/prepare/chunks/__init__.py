"""Chunks of books as a run: its units are ranges of books, its parts hold a row a chunk.

passages.py     passages of a text: their text, their letters, their hash
quality.py      which chunks are worth keeping, and the hash of one (pure)
languages.py    the language of a text, by py3langid
language_model.py   its model, unpacked once for this machine
book.py         one file's bytes -> its chunks, or why it has none
settings.py, kind.py, plan.py, work.py, worker.py, verb.py   the run
"""
