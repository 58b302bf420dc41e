"""Draws the participants of a room onto one picture."""

from adapters.compositor.compositor import Compositor, warm
from adapters.compositor.picture import Picture

__all__ = ["Compositor", "Picture", "warm"]
