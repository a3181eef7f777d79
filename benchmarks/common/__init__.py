"""What several benchmarks use: tasks, models, data, the long training, statistics."""
