"""Any model at initialization: forward and backward statistics of every module and operation, over seeds."""

from jaxinit.probe import equations as equations
from jaxinit.probe._degrees import Form as Form
from jaxinit.probe._degrees import form_of as form_of
from jaxinit.probe._degrees import form_of_number as form_of_number
from jaxinit.probe._drawn import Drawn as Drawn
from jaxinit.probe._drawn import laws as laws
from jaxinit.probe._probe import probe as probe
from jaxinit.probe._products import Dependence as Dependence
from jaxinit.probe._products import Figures as Figures
from jaxinit.probe._products import Layer as Layer
from jaxinit.probe._products import Norms as Norms
from jaxinit.probe._products import Product as Product
from jaxinit.probe._products import Products as Products
from jaxinit.probe._products import batches as batches
from jaxinit.probe._products import products as products
from jaxinit.probe._purity import remarks as remarks
from jaxinit.probe._sketch import sketch as sketch
from jaxinit.probe._values import values as values
from jaxinit.probe._watch import Watch as Watch
from jaxinit.probe._watch import watch as watch
