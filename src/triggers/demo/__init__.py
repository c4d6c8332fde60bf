"""The demonstration: a real questionnaire, from scrambled page arrivals to computed scores.

It is also an example to read: :mod:`~triggers.demo.study` says what arrives,
:mod:`~triggers.demo.rules` which task runs when, :mod:`~triggers.demo.tasks` what each does,
:mod:`~triggers.demo.results` where it leaves what it found, and :mod:`~triggers.demo.main` plays it all.
"""
