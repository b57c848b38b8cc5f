"""Embedding: a run whose work is the engine, pooled. Rows in, vectors out.

settings.py     what a user may set
plan.py         settings + encoder + sources -> the run's manifest; kind.py: what that fixes
verb.py         `assay embed`: plan, create or join the run, drive the workers
worker.py       the process that does the work
vectors.py      chunks of token ids -> vectors; cache.py: those that were made before; unit_length.py
parity.py       the gate: a sample on the fp32 reference path too

What scoring shares:

forward.py      chunks through an engine
engine_work.py  a unit -> the rows of its part: prepare, compute, finish
drive.py        the command: plan, create or join the run, drive its workers
place.py        where the workers go, and the precision of the run
gate.py         the parity gate of a run, measured once and kept beside it
evidence.py     some rows of each unit in fp32 too; differences.py: how far they lie, added up over parts (pure)
"""
