"""The pure decision core of wattshift: no I/O, no clock, no randomness."""
