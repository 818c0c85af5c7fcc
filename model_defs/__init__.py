"""Model families: a file or folder here is registered by existing."""
