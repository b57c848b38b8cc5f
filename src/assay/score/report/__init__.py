"""`assay report`: a run as one HTML page.

report.py      counts a run, puts its page together and writes it
summary.py     the main figures, for callers
tally.py       what the parts hold, counted in one pass; histogram.py: numbers of any range (pure)
timeline.py    when the parts were made: throughput, hours of work (pure)
scores.py      sections on what documents got: scores, lengths
speed.py       sections on throughput and cost
evidence.py    the section on differences to fp32, bounded for all documents
expected.py    what was estimated of the run beside what came of it
records.py     sections on what is on record: parity, calibration, sources, settings, versions
words.py       how shares, sizes and times are written
"""
