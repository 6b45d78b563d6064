"""Rendering: arrays to images."""
