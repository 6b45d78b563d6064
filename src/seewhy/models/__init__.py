"""Models: from a URI or module to a `LoadedModel`."""
