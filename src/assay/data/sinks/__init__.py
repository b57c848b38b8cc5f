"""What merge writes: a file a kind of output, and the table that says which format goes where."""
