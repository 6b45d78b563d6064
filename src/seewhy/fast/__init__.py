"""Prepared models: twins that compute the same maps in less time. Nothing else in seewhy needs this package."""
