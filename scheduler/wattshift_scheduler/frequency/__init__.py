"""What a fall of the grid's frequency asks of one host, decided where it is measured.

terms      what a site offers, and what its sensor lets it claim
response   samples in, the share of load to shed out
"""
