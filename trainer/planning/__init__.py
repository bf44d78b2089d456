"""What a run will do before it does it, and settings for one's own images."""
