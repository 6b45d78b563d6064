"""Bulk jobs: explain a dataset and write Parquet files, on one machine or on Ray, and read the run."""
