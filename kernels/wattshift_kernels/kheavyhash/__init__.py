"""kHeavyHash, Kaspa's proof of work: Keccak, a matrix of the block's own, and Keccak again."""
