"""Scoring: a run whose work is the engine. Rows in, scores out, merged back onto the sources.

settings.py    what a user may set
plan.py        settings + bundle + sources -> the run's manifest
decide.py      logits -> probabilities -> decisions (pure)
work.py        a unit's rows -> token ids -> logits -> the rows of its part
worker.py      the process that does it
verb.py        `assay score`: plan, create or join the run, drive the workers
merge.py       parts back onto their sources, by position, every id checked
report.py      one HTML file a person can look at
classifier.py  `assay.load(path).predict(texts)`
"""
