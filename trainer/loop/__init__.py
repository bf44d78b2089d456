"""What every training method shares: the loop and its parts."""
