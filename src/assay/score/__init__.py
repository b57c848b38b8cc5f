"""Scoring: a run whose work is the engine. Rows in, scores out, merged back onto the sources.

How a unit becomes a part, in the order of the steps:

bundles.py     what kind of bundle a folder holds: what reads its rows, what scores them
scorer.py      chunks of token ids -> logits -> scores; `outcome.decide` decides
pairs.py       the same for Siamese bundles; cascade/ for two models, one after the other
schema.py      the columns of a part

Around it:

settings.py    what a user may set
plan.py        settings + bundle + sources -> the run's manifest; kind.py: what that fixes
verb.py        `assay score`: plan, create or join the run, drive the workers
worker.py      the process that does the work
parity.py      the gate: a sample on the fp32 reference path too
classifier.py  `assay.load(path).predict(texts)`; texts.py: what it takes
labelled.py    labelled rows to logits, for evaluation and calibration
corpus.py      whose rows the scores of a run are
merge/         parts back onto their sources, by position, every id checked
report/        one HTML page that a person can look at
bench/         what a bundle does here, and how long a corpus would take
estimate/      what a run will take, from a sample that is run for real
pricing.py     what a device costs
"""
