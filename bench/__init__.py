"""clipmux.bench: measurements and the demonstration, outside the system under test."""
