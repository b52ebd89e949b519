"""Live user histories: one Protocol (base.py), in memory or in Redis."""
