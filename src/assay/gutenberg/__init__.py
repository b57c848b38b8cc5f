"""Project Gutenberg to a folder of clean texts with one index, by the rules of the publisher.

rules.py      what may be asked, whom, how often and where a redirect may lead (pure)
names.py      folders and files after author and title (pure)
markers.py    whether a text is whole, as far as the text itself tells (pure)
harvesting.py what a page of the publisher's list for robots offers (pure)
mirroring.py  a listing of rsync to the files worth having (pure)
download.py   one URL to its bytes: bounded, tried again, in scope, never too fast
shelf.py      the folder: texts, raw files, the index and its parts
ingest.py     the bytes of one book to its text and its record
fetch.py, harvest.py, sync.py, archive.py   `assay gutenberg ...`: where the bytes come from
settings.py   what a user may set
"""
