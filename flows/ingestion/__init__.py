"""From a provider into the warehouse."""
