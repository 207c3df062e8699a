"""What the grid says and what the site draws. An unknown value is None here, never zero.

said            the words that every way in ends in
openadr/        the utility's server (OpenADR 3), listened to; openadr2/ that of 2.0b
vtn/            a small such server of our own, for a dry run
utility/        registers that a utility's master writes over Modbus
schedule        caps from a file
market/         prices and carbon; curves/: any table that others publish
peaks/          when a grid's peak is foreseen, and what a month is billed for
solar drills/   what the sun leaves to mining │ practice events
frequency/      where the grid's frequency comes from
meters/         how power is read, and how much of it is believed; own_meter/: an independent one
alarm_hooks     alarms told to others
serving fetch watched rows whole_file     what several of them stand on
"""
