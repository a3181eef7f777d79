"""Several sets of weights of one model in stacked tensors, trained by torch.vmap."""
