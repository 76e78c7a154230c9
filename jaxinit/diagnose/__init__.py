"""A Propagation in, findings out: what is wrong, where, how surely, what to change."""

from jaxinit.diagnose import thresholds as thresholds
from jaxinit.diagnose._diagnose import diagnose as diagnose
from jaxinit.diagnose._diagnose import propagation_verdict as propagation_verdict
from jaxinit.diagnose._marks import MARKS as MARKS
from jaxinit.diagnose._marks import marks as marks
from jaxinit.diagnose._rate import Rate as Rate
from jaxinit.diagnose._rate import rate as rate
from jaxinit.diagnose._verdict import KINDS as KINDS
from jaxinit.diagnose._verdict import RULE as RULE
from jaxinit.diagnose._verdict import Verdict as Verdict
from jaxinit.diagnose._verdict import seeds as seeds
