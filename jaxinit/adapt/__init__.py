"""From analysis to parameters: calibration, critical initializers, re-initialization of whole models."""

from jaxinit.adapt._analytic import analyze as analyze
from jaxinit.adapt._calibrate import calibrate as calibrate
from jaxinit.adapt._calibrated import Calibrated as Calibrated
from jaxinit.adapt._calibrated import calibratable as calibratable
from jaxinit.adapt._calibrated import calibrated as calibrated
from jaxinit.adapt._critical import critical as critical
from jaxinit.adapt._init_table import InitRow as InitRow
from jaxinit.adapt._init_table import InitTable as InitTable
from jaxinit.adapt._init_table import init_table as init_table
from jaxinit.adapt._mup_check import coordinate_check as coordinate_check
from jaxinit.adapt._mup_table import mup_learning_rates as mup_learning_rates
from jaxinit.adapt._mup_table import mup_table as mup_table
from jaxinit.adapt._reinit import reinit as reinit
from jaxinit.adapt._suggest import suggest as suggest
