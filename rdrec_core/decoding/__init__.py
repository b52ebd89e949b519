"""Constrained decoding: the item trie, beam search, candidate scoring, text search."""
