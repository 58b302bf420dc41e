"""Takes LiveKit tracks in as they were encoded and writes them without transcoding."""
