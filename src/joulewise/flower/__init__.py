"""joulewise in a Flower app: the only part that needs Flower.

app = ClientApp(mods=[Sparsify(device="phone-lte-2021", rule=CWMP(), budget=Density(0.01))])
strategy = Sparse(FedAvg(...))
"""

from joulewise.errors import MissingExtra

try:
    from joulewise.courses import Falling, Rising
    from joulewise.fleet import EqualCount, EqualJoules, OnePrice
    from joulewise.flower.grid import SparseGrid
    from joulewise.flower.lossy import Lossy
    from joulewise.flower.metering import Pricing
    from joulewise.flower.mod import Sparsify
    from joulewise.flower.rows import Rows
    from joulewise.flower.state import ContextStore, FileStore, MemoryStore
    from joulewise.flower.strategy import Sparse
except ModuleNotFoundError as error:
    if error.name != "flwr":
        raise
    raise MissingExtra("flower", "Using joulewise in a Flower app") from error

__all__ = [
    "ContextStore",
    "EqualCount",
    "EqualJoules",
    "Falling",
    "FileStore",
    "Lossy",
    "MemoryStore",
    "OnePrice",
    "Pricing",
    "Rising",
    "Rows",
    "Sparse",
    "SparseGrid",
    "Sparsify",
]
