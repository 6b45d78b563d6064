"""Bulk jobs: explain a dataset into Parquet files, on one machine or on Ray, and read the run."""
