"""One file a format: how its files are known, inspected and read. `table` lists them all."""
