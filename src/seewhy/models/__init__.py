"""Models: from a name to a LoadedModel."""
