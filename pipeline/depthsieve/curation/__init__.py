"""Choose the images of a store that are worth training on, and say of every other one why it is left out."""
