"""RUN: runners take the names of instances and have them executed, somewhere, some time."""
