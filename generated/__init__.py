"""Code generated from protos/ by tools/generate.py; never edited."""
