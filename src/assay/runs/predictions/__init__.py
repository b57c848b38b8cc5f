"""Predictions that many ranks make in any order, to ordered parts; knows no Lightning and no torch.

    out/predictions.json   whose result this is; created, exclusively, before the first row
    out/staged/            what each rank has so far: row ids and outputs, whole Parquet files
    out/parts/             the result in row order; empty until every row was found exactly once
    out/complete.json      written last: all parts are there

A rank gathers its batches into row groups sorted by row id. Row groups that follow one another make a
stream of rising rows; in the end the streams are merged, a few thousand rows of each at a time, and what
the cohort knows of a row (ids, labels) is put beside its outputs by position. Memory grows neither with
the rows nor with the ranks: more than FAN_IN streams (shuffled rows) are merged in passes, through files.

Not covered: going on with the staged rows of an attempt that died. They can be read, and that is all.

    layout.py    what a row of the result holds, and where it comes from
    result.py    one result a directory: reserved, refused, found again
    rows.py      row ids and outputs as arrays and tables; repeats dropped
    staging.py   one rank's rows on their way to disk
    merging.py   all ranks' rows, in order, each once
    publish.py   the parts, written and published
"""
