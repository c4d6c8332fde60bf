"""Sanitizes what tasks log: bounded plain data without secrets, which every storage accepts."""
