"""Rationales: what a teacher says that a review tells about user and item."""
