"""Where the real package keeps its compiled part."""
