"""What a turn of the core does before and after it decides; `step` is the turn itself.

    reducers, news, answers ─▶ upkeep ─▶ [step decides] ─▶ moves ─▶ alarms
    (what came in)             (what it touched)           (grants)  (what to know)

reducers   one for each event; those of signals and the meter are in news
answers    what agents say by the hundred, folded at once
upkeep     what is carried from the last decision, brought up to now
moves      from the wanted allocation to grants: lower at once, raise only what fits
alarms     what a person should know
"""
