"""Where a program's packets go: the crash-safe part, segments, images, streams. Each in a thread of its own or the writer's."""
