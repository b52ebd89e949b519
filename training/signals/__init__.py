"""What is known of items beside the T5: who bought what after what."""
