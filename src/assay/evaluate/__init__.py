"""A bundle and labelled rows in, numbers that can be defended out.

settings.py     what a user may set
predict.py      rows -> what the bundle says of them, by the path of `assay score`
statistics.py   every metric of many weighted copies of the rows at once (pure)
bootstrap.py    weights of resamples; intervals and p values from their statistics (pure)
measure.py      values, intervals, reasons where undefined; slices; differences of bundles (pure)
definitions.py  what each metric is (pure)
seen.py         which rows the training has seen
findings.py     what was found, as JSON and as a table
evaluate.py     `assay evaluate`: the steps in order
report.py       one HTML file a person can look at
"""
