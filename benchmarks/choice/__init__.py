"""Does select choose well: against the owner's weights, and against exhaustive training."""
