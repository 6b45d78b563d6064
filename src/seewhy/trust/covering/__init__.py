"""Parts of a photo that a user covers, and how the classes change."""
