"""Tests of the codebase itself: layout, layering, generated code, what may be committed."""
