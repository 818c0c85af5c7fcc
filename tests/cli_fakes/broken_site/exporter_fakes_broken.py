"""A target whose module cannot be imported, as after a half finished upgrade of its runtime."""

raise ImportError("libfake.so.7: cannot open shared object file")
