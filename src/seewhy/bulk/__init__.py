"""A whole data set: every picture explained, into Parquet files that appear whole, on one machine or on Ray."""
