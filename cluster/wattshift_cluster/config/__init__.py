"""What the operator writes: quantities with units, `site.toml`, `agent.toml`, and their faults.

`load.load_site` and `load.load_agent` are the ways in. Everything behind them is frozen.
"""
