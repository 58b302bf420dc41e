"""The recorder process: takes a room in, composes it, encodes once and writes to many places."""
