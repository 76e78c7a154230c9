"""Figures of records: matplotlib (the extra `plot`), imported when the first figure is made, never pyplot."""

from jaxinit.plot._calibration import calibration as calibration
from jaxinit.plot._depth import depth_profile as depth_profile
from jaxinit.plot._depth import depth_profiles as depth_profiles
from jaxinit.plot._figure import drawable as drawable
from jaxinit.plot._figure import figure as figure
from jaxinit.plot._findings import findings as findings
from jaxinit.plot._finite_width import finite_width as finite_width
from jaxinit.plot._parameters import parameters as parameters
from jaxinit.plot._phase import phase_diagram as phase_diagram
from jaxinit.plot._spectrum import spectrum as spectrum
from jaxinit.plot._style import new_figure as new_figure
from jaxinit.plot._style import png as png
from jaxinit.plot._style import save as save
from jaxinit.plot._svg import svg as svg
from jaxinit.plot._svg import variables as variables
from jaxinit.plot._sweep import sweep_map as sweep_map
from jaxinit.plot._training import curves as curves
from jaxinit.plot._training import learning_rate_sensitivity as learning_rate_sensitivity
from jaxinit.plot._training import training as training
from jaxinit.plot._training_signals import training_signals as training_signals
from jaxinit.plot._width_transfer import width_transfer as width_transfer
