"""Makes spoofed copies of a whole table: the plan, the workers, and the resulting tables."""
