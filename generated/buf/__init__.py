"""Generated code of the proto package `buf`."""
