"""Settlement: the signed log of what was measured and decided, and what an event comes to by it."""
