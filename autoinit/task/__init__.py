"""What will be trained: model, data, loss and optimizer, and the state that is put back exactly."""
