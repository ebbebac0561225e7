"""From the warehouse, into the warehouse: what is computed from the bars."""
