"""clipmux.build: from a checkpoint to a model folder."""
