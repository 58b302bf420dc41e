"""Draws the participants of a room onto one picture."""
