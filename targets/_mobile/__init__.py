"""Parts of the mobile target."""
