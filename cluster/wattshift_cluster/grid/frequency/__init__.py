"""Where the grid's frequency comes from: a line feed, a meter's registers, or a recorded day."""
