"""HTML pages built from arrays and plain values. This package imports neither `Explanation` nor a model."""

from seewhy.viewer.html_document import jpeg_data_url as jpeg_data_url
from seewhy.viewer.packed_maps import PackedMap as PackedMap
from seewhy.viewer.packed_maps import pack as pack
from seewhy.viewer.packed_maps import unpack as unpack
from seewhy.viewer.pages import IndexRow as IndexRow
from seewhy.viewer.pages import PageMap as PageMap
from seewhy.viewer.pages import ReportData as ReportData
from seewhy.viewer.pages import build_app as build_app
from seewhy.viewer.pages import build_index as build_index
from seewhy.viewer.pages import build_report as build_report
from seewhy.viewer.pages import build_summary as build_summary
