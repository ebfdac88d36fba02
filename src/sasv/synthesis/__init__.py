"""Spoofed copies of a whole table: the plan, the workers, the tables of what was made."""
