"""The dialect of each algorithm."""

from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.dialects import alephium, bitcoin, ergo, ethereum_classic, kaspa

DIALECTS: dict[str, Dialect] = {
    one.DIALECT.algorithm: one.DIALECT for one in (bitcoin, ergo, ethereum_classic, kaspa, alephium)
}
"""By algorithm, as `wattshift_kernels.algorithms` names it."""
