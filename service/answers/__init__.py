"""From a checked request to an answer: histories, recommendations, texts and their cache."""
