"""All input and output: probing, processes, environments, artifacts, runs."""
