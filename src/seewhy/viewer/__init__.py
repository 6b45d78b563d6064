"""The explorable page: plain arrays and words in, one HTML text out. It knows no Explanation and no model."""

from seewhy.viewer.pack import Packed as Packed
from seewhy.viewer.pack import pack as pack
from seewhy.viewer.pack import unpack as unpack
from seewhy.viewer.page import build_app as build_app
from seewhy.viewer.page import build_index as build_index
from seewhy.viewer.page import build_page as build_page
from seewhy.viewer.page import build_summary as build_summary
from seewhy.viewer.page import picture_address as picture_address
