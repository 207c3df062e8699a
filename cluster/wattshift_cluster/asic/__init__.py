"""ASIC miners: what an agent may ask of one machine, and the drivers that do it.

driver  setup                            the contract; what a driver is made of
probe  connect  kinds  models            which firmware answers, who drives it, and the tables
wire  held  http  http_line  …           our own exchanges: bounded, with a deadline, held ready
luxos  whatsminer  whatsminer_v2  antminer  braiins  vnish  bitaxe      drivers of our own
pyasic_any  pyasic_rs_any  pyasic_handle what the libraries know beyond these, at arm's length

Nothing here ever makes up a machine's pools. The one write that carries them, a stock Antminer's,
gives back what was just read (see `antminer_conf`).
"""
