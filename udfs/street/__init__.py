"""The simulated street of the sample lake: a world, drives through it, and how a frame of one is drawn."""
