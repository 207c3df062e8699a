"""All of wattshift that touches the world: agents, drivers, feeds, Ray, controller, API, CLI."""
