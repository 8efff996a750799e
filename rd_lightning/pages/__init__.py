"""Reports to look at in a browser: one HTML file, which needs no network."""
