"""Scoring: a run whose work is the engine. Rows in, scores out, merged back onto the sources.

settings.py    what a user may set
plan.py        settings + bundle + sources -> the run's manifest
schema.py      the columns of a part
work.py        a unit's rows -> chunks -> scores -> the rows of its part
chunks.py      rows -> chunks of token ids
scorer.py      chunks of token ids -> logits -> scores
decide.py      probabilities -> decisions (pure)
parity.py      the gate: a sample on the fp32 reference path first
worker.py      the process that does it
verb.py        `assay score`: plan, create or join the run, drive the workers
merge.py       parts back onto their sources, by position, every id checked
report.py      one HTML file a person can look at; tally.py counts, timeline.py times, charts.py draws
classifier.py  `assay.load(path).predict(texts)`
"""
