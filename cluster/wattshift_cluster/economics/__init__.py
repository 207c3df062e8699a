"""What a hash earns, from the outside world: sources, bounds on what they say, and its age."""
