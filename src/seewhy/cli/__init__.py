"""Cli: the commands."""
