"""Rendering: arrays and plain values to images. No module here imports `Explanation`."""
