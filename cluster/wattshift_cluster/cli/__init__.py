"""The `wattshift` command: every subcommand is its own small module, loaded only when called."""
