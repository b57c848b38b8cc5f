"""`assay merge`: the scores of a run beside the columns of its sources.

merge.py     zips parts onto sources, several files at a time
checks.py    what is refused before anything is written
outputs.py   which file each source becomes
columns.py   a source's scores in its row order, every id checked
"""
