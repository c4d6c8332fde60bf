"""What Triggers costs, as ratios measured in one run: ``make bench``, or ``python -m bench firing``.

Machines differ and are shared, so nothing here is compared with a figure from elsewhere: each part
measures the thing and its yardstick in turns, and reports the ratio of their best rounds.
"""
