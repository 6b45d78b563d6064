"""Model sources, one file per library or location. `models.loading` combines them."""
