"""Which engine and block a product takes: measured on the machine that runs it, else by rule.

`tuning.choices_for` gives what holds for a target; a lowering carries it, and the patterns ask
`choices.chosen_engine`. `measure.measure` times candidates; `table` keeps what it found.
"""
