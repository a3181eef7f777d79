"""Trainings that their owners wrote, in the place of data, loss and optimizer."""
