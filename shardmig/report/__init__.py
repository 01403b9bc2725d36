"""Summaries, estimates and results for people: terminal tables and a one-file HTML page."""
