"""The controller's HTTP face: routes, tokens, event stream, metrics and one live page."""
