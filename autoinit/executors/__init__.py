"""Ways of running jobs: one after the other, in worker processes, or several at a time on one device."""
