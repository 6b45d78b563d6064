"""Terminal output: streams and consoles that escape control characters, tables, bars and a small image preview."""

from seewhy.terminal.console import can_preview as can_preview
from seewhy.terminal.console import make_console as make_console
from seewhy.terminal.escaping import encode_json as encode_json
from seewhy.terminal.escaping import plain as plain
from seewhy.terminal.escaping import printable as printable
from seewhy.terminal.tables import ACCENT as ACCENT
from seewhy.terminal.tables import FAINT as FAINT
from seewhy.terminal.tables import LayerRow as LayerRow
from seewhy.terminal.tables import OutlierRow as OutlierRow
from seewhy.terminal.tables import VerdictLine as VerdictLine
from seewhy.terminal.tables import VerdictTable as VerdictTable
from seewhy.terminal.tables import plain_table as plain_table
from seewhy.terminal.tables import print_details as print_details
from seewhy.terminal.tables import print_heading as print_heading
from seewhy.terminal.tables import print_layers as print_layers
from seewhy.terminal.tables import print_predictions as print_predictions
from seewhy.terminal.tables import print_preview as print_preview
from seewhy.terminal.tables import print_summary as print_summary
from seewhy.terminal.tables import print_table as print_table
