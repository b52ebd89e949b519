"""What is live: histories, rates and shared texts, in memory or in Redis."""
