"""Two documents of any length: whether they belong together, how sure that is, and what spoke for it."""
