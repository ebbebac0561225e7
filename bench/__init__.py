"""What is measured, on this machine, against real servers: `make bench`. Every benchmark adds its names to results.json."""
