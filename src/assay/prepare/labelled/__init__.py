"""Any labelled corpus to train, validation and test rows: cleaned, without repeats, split without leaks.

sources -> clean -> what is dropped, and why -> splits -> Parquet files and a report
"""
