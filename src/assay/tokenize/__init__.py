"""Text in, token ids out: policies for long documents, windows, and the tokenize run."""
