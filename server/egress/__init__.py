"""Egress: from an accepted request to files, segments and streams in their places."""
