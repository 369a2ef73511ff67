"""Formats of labeling tools: one module each, written from `task` and read into `returned`."""
