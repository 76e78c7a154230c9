"""One self-contained HTML file from any records."""

from jaxinit.report._report import report as report
from jaxinit.report._tables import Table as Table
from jaxinit.report._tables import depth_tables as depth_tables
from jaxinit.report._verdict import verdicts as verdicts
