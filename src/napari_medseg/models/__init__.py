"""Networks: SAM, its prompts, the registry of what is there."""
