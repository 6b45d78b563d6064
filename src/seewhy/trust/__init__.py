"""How far to trust a map: a check of each map, parts of a photo to cover, and metrics that query the model."""

from seewhy.trust.class_changes import ClassChange as ClassChange
from seewhy.trust.class_changes import CoverResult as CoverResult
from seewhy.trust.class_changes import CoverTest as CoverTest
from seewhy.trust.map_check import check as check
from seewhy.trust.photo_cover import Rectangle as Rectangle
from seewhy.trust.photo_cover import Stroke as Stroke
from seewhy.trust.photo_cover import cover_photo as cover_photo
