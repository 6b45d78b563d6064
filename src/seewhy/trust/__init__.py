"""How far to trust a map: a check of each map, and metrics that query the model."""

from seewhy.trust.map_check import check as check
from seewhy.trust.measure import measure as measure
