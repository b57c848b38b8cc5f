"""`assay gutenberg ...`: Project Gutenberg to a folder of clean texts with one index; a file a command."""
