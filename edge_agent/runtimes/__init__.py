"""Interpreters that run a student, imported when opened."""
