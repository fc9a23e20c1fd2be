"""Merges the features of the students and answers."""
