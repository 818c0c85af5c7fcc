"""One page of all that a bundle holds; :mod:`~exporter.report.reading` reads reports without trust."""
