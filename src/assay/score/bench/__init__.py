"""`assay bench`: what a bundle does on a sample of one's documents, and how long a corpus would take.

settings.py   what a user may set
bench.py      measures the engine and transformers' padded pass, in turns
sample.py     the documents that are measured
estimate.py   rates to hours and cost (pure)
report.py     what was found, for people and as JSON
"""
