"""Raw texts to data sets without leaks: books to chunks and pairs, labelled rows to clean splits.

listing.py      a folder or an index -> the books, sorted, with authors and titles
folder.py       the folder of a data set: nothing of others in it, one command at a time
chunks/         the run that makes chunks of books
shelf.py        all chunks on disk, those of one book at hand by its number
shelving.py     a finished chunks run -> a shelf, and what is known of each book
tables.py       tables with a row a book on disk, mapped into memory
sketches.py     texts -> passages by which two editions of one work are known (pure)
partitions.py   hashes of all books, sorted on disk a part at a time
duplicates.py   hashes -> chunks to drop, books that share passages, editions (pure)
splits.py       books -> splits that no author, edition or near-duplicate crosses (pure)
place.py        where the steps run
neighbours.py   vectors of a sample of the chunks -> books that are near
mined.py        candidates, scored -> those that a model takes for positives
drawing.py      the runs between splits and files
pairs/          the run that draws pairs of chunks
collecting.py   a finished pairs run -> files, one a split
samples.py      chunks of some books, to measure leaks on
leaks.py        what typography, names and editions alone give away (pure)
settings.py, books.py   `assay prepare books`: all of it in one command; report.py: what it did
labelled/       `assay prepare labelled`: any labelled corpus, cleaned, deduplicated and split
"""
