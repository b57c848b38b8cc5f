"""Hard negatives: for each anchor the nearest texts of a corpus that are not its positives.

vectors.py    finished embed runs as a source of vectors, and whether two of them can be compared
store.py      the vectors, texts and ids of a set of embed runs, unique by text, in bounded host memory
pairs.py      the pairs of anchor and positive as places in the stores
search.py     the nearest vectors, exact whatever the block size; faiss as a choice
select.py     which neighbours are negatives, and why others are not (pure)
miner.py      the negatives of anchors: found, judged, drawn
guard.py      a scoring model that drops candidates which are probably positives
settings.py, kind.py, plan.py, verb.py, work.py, worker.py   `assay mine`: a run whose parts hold negatives
"""
