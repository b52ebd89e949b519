"""The model and how it is decoded: everything that training and service share, and nothing of either."""
