"""Text in, token ids out: policies for long documents, windows, and the tokenize run.

encode.py           texts -> token ids, under one policy for long documents
chunks.py           rows of a source -> chunks of token ids, for the engine
counting.py         how many tokens texts have, for those who cut them
content.py          ids of texts without special tokens, no more of a long text than is kept
cuts.py             where a text may be cut without changing its ids (pure)
special_tokens.py   what a tokenizer puts around texts
tokens.py           what an encoder gives: ids in one buffer, error codes
views.py            rows -> what the model is given: whole, or windows (pure)
compare.py          the ids beside those of transformers
sample.py           a sample of a corpus, texts beside ids, for parity gates
settings.py, kind.py, plan.py, verb.py, work.py, worker.py   `assay tokenize`: a run whose parts hold ids
"""
