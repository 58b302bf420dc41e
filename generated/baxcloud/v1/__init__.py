"""Generated code of the proto package `baxcloud.v1`."""
