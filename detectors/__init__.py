"""Torch models: build, load, predict, checkpoints, the training loop and average precision."""
