"""What a model is made of, read from its config.json: layers, attention by kind, experts, stored format."""
