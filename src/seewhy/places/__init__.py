"""Where in the input the maps of a layer lie: all of it, a region of it, or one part for each row."""
