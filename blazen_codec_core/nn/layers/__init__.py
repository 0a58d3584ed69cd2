"""PyTorch layers with explicit stream state."""
