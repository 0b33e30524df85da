"""What is to do: what there is, less what the store knows, cut into shards and committed as a generation."""
