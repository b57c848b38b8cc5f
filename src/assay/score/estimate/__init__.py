"""What a scoring run will take, from a sample of it that is run for real.

intervals.py   the sample's mean, and how far it may be off (pure)
sample.py      which rows are looked at (pure), their lengths, and how long they take
words.py       the estimate in words, for a terminal
record.py      the estimate as a file in a run, which the report compares with what came of it
"""
