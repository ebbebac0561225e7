"""What runs: a folder a domain, its deployments.yaml beside the code, and what the domains share in market_data/."""
