"""clipmux.workers: the processes on either side of the device."""
