"""Images: files to arrays."""
