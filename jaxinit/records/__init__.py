"""The currency: what the producers (theory, simulation, probe, training) hand to tables, figures and reports."""

from jaxinit.records._calibration import STATUSES as STATUSES
from jaxinit.records._calibration import CalibratedSite as CalibratedSite
from jaxinit.records._calibration import Calibration as Calibration
from jaxinit.records._codec import saved as saved
from jaxinit.records._convergence import Convergence as Convergence
from jaxinit.records._convergence import Crossing as Crossing
from jaxinit.records._diagnosis import Diagnosis as Diagnosis
from jaxinit.records._diagnosis import Finding as Finding
from jaxinit.records._phase_diagram import PhaseDiagram as PhaseDiagram
from jaxinit.records._propagation import PROBE_STATISTICS as PROBE_STATISTICS
from jaxinit.records._propagation import STATISTICS as STATISTICS
from jaxinit.records._propagation import Propagation as Propagation
from jaxinit.records._provenance import provenance as provenance
from jaxinit.records._record import Record as Record
from jaxinit.records._record import load as load
from jaxinit.records._resampling import Estimate as Estimate
from jaxinit.records._sites import ParameterStatistics as ParameterStatistics
from jaxinit.records._sites import Site as Site
from jaxinit.records._spectrum import Spectrum as Spectrum
from jaxinit.records._statistic import Statistic as Statistic
from jaxinit.records._suggestion import SuggestedLayer as SuggestedLayer
from jaxinit.records._suggestion import Suggestion as Suggestion
from jaxinit.records._sweep import Sweep as Sweep
