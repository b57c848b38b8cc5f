"""Token ids in, logits out: checkpoints, families and the packed batch. Knows torch, never Parquet."""
