"""How the scans of one call are computed: in its own process, by several, or by a cluster."""
