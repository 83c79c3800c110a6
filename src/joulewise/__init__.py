"""joulewise: federated learning that spends less energy.

Price every parameter in joules, send what a joule moves furthest, remember the rest, write down every joule.

    layout, costs      named tensors, and what keeping one coordinate of each costs
    rules, select      which coordinates a budget buys
    codec, compress    what goes over the link, and what the client remembers
    ledger             what that cost

`joulewise.theory` predicts all of it before there is a message; `joulewise.flower` adds it to a Flower app. These and
the other optional parts are imported by name.
"""

from joulewise.aggregate import weighted_mean as weighted_mean
from joulewise.certificate import Certificate as Certificate
from joulewise.codec import Decoded as Decoded
from joulewise.codec import decode as decode
from joulewise.codec import encode as encode
from joulewise.compress import EF21 as EF21
from joulewise.compress import ClientState as ClientState
from joulewise.compress import Compressor as Compressor
from joulewise.compress import ErrorFeedback as ErrorFeedback
from joulewise.compress import Sent as Sent
from joulewise.compress import settle as settle
from joulewise.costs import Costs as Costs
from joulewise.devices import Device as Device
from joulewise.devices import list_devices as list_devices
from joulewise.devices import load_device as load_device
from joulewise.errors import JoulewiseError as JoulewiseError
from joulewise.layout import Layout as Layout
from joulewise.ledger import Charge as Charge
from joulewise.prices import price as price
from joulewise.rules import CWMP as CWMP
from joulewise.rules import Bytes as Bytes
from joulewise.rules import Count as Count
from joulewise.rules import Dense as Dense
from joulewise.rules import Density as Density
from joulewise.rules import Joules as Joules
from joulewise.rules import LayerwiseTopK as LayerwiseTopK
from joulewise.rules import MinVariance as MinVariance
from joulewise.rules import Price as Price
from joulewise.rules import Projection as Projection
from joulewise.rules import RandomK as RandomK
from joulewise.rules import Threshold as Threshold
from joulewise.rules import TopK as TopK
from joulewise.select import Selection as Selection
from joulewise.select import select as select

__version__ = "0.1.0"
