"""A bundle and labelled rows in, numbers that can be defended out.

settings.py     what a user may set
predict.py      rows -> what the bundle says of them, by the path of `assay score`
statistics.py   every metric of many weighted copies of the rows at once (pure)
sums.py         what metrics are made of: weighted sums over cells of the rows (pure)
draws.py        what resamples draw, and how often (pure)
bootstrap.py    weights of resamples; intervals and p values from their statistics (pure)
measure.py      values, intervals, reasons where undefined; slices; differences of bundles (pure)
definitions.py  what each metric is (pure)
seen.py         which rows the training has seen
warnings.py     what a reader must know before a number is quoted
findings.py     what was found, as JSON and as a table
evaluate.py     `assay evaluate`: the steps in order
report.py       one HTML file a person can look at; display.py: what stderr shows meanwhile
"""
