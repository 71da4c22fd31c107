"""What MagicMind's Python packages share."""
