"""What the packed GPU engines run besides matrix products: in Triton, and in plain torch beside it."""
