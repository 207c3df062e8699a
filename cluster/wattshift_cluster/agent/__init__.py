"""One host's devices: what they are, the leases they hold, and the safe point they fall to.

service  protocol  leases  epochs    the process; what goes over the wire; which leases are taken
build  device  specs                 from agent.toml to devices; what every device can do
hashing                              a GPU or CPU behind its gate, made of
    meters  steering  throttle           what it draws; from a lease to intensity; backing off
    assignments  desk  child             work and shares; the pool session; the worker's process
worker  launches  tray  pace         the process that hashes
gpu/  gpus  limit_desk               NVML: readings and power limits
power/                               the learnt power curve and what is made of it
observe/  neighbourhood              who else uses a device without marking its gate
asics  asic_sweep  asic_desk  …      ASICs: one of them; the turns they take; an operator's orders
    asic_contact  asic_words  others     who answers and what it says; how it is told; other masters
    asic_wish  asic_gate  lanes  keeper  what to command, when to wake, how much at once, memories
fences  fencing  asic_supply         the outlets they are plugged in: switched, when, what that says
consent  cloud                       the owner's word; whose machine this is
"""
