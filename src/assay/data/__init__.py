"""Sources in, rows out: knows Arrow and storage, never torch."""
