"""Where networks come from: one file for each source of models. What they give is put together in `models`."""
