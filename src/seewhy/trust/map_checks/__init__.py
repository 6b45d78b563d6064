"""The check: masks, copies of maps, statistic and verdict."""
