"""The demo: a real questionnaire, from page arrivals in random order to computed scores.

It is also an example to read. :mod:`~triggers.demo.study` makes the messages that arrive,
:mod:`~triggers.demo.rules` defines which task runs when, :mod:`~triggers.demo.tasks` defines the tasks,
:mod:`~triggers.demo.results` stores their results, and :mod:`~triggers.demo.main` runs everything.
"""
