"""Ground floor: frozen records, checks, numerics, moments. Knows nothing of networks."""
