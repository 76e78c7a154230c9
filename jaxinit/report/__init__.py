"""One self-contained HTML file from any records."""

from jaxinit.report._rate import Rate as Rate
from jaxinit.report._rate import rate as rate
from jaxinit.report._report import report as report
from jaxinit.report._tables import Table as Table
from jaxinit.report._tables import depth_tables as depth_tables
from jaxinit.report._verdict import RULE as RULE
from jaxinit.report._verdict import Verdict as Verdict
from jaxinit.report._verdict import verdicts as verdicts
