"""The forward pass at full speed: token budgets, engines, devices and parity."""
