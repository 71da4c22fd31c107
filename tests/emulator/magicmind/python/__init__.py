"""The Python side of the emulated MagicMind."""
