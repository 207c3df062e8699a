"""OpenADR 3: the utility's or aggregator's server (VTN) tells, this site (VEN) listens and reports.

source      [[openadr]] of site.toml as a running source; the rest is below it
ven asking  the source: rounds of asking, notices, reports │ what is asked in one round
kept        what is known, and survives a restart
saying      everything that is known, as the one word of the source
mapping     what an event asks of this site, payload by payload
meanings    what each payload type becomes, or why it is ignored
capacity    limits, subscriptions, and what holds once limits run out
times       durations, starts, random shifts, loops; timeline: pieces in which nothing changes
units asked amounts on the wire │ what was agreed, and what is asked under it
reports due readings       what the VTN wants to know: the report │ when │ from what

client login exchange pages failures      the calls, over HTTP
callback listener topics notices          being told: webhook, MQTT
words shim  the objects as read from the wire │ what 3.0 says otherwise
"""
