"""sha256d: Stratum V1, with version rolling and the other extensions of BIP 310."""

from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.feed import BitcoinFeed

DIALECT = Dialect("sha256d", BitcoinFeed, extensions=True, moves=True, suggests=True)
